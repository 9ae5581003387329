/*
 * Pods on the networks of the node: CNI. A pod has one network namespace, named and mounted, and
 * one attachment to the network that is configured when it starts. Plug-ins run as processes beside
 * the loop, with limits. Loop's thread; no callback comes from inside a call.
 *
 * Nothing is forgotten: what an ADD may have made is on disk before the ADD starts, and stays there
 * until a DEL with the same arguments went through. A DEL that fails is tried again, here, until it
 * does; also by the next huskd.
 */
#ifndef HUSK_CRI_NET_NET_H
#define HUSK_CRI_NET_NET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/waits.h"
#include "cri/net/result.h"
#include "proto/cri.pb-c.h"

#define NET_PLUGIN_MS 60000u   /* one run of one plug-in */
#define NET_STATUS_MS 10000u   /* so long an answer to STATUS counts */
#define NET_AT_ONCE_MAX 16u    /* pods that plug-ins work on at a time; others wait */
#define NET_RETRY_MIN_MS 5000u /* after a DEL that failed; doubles */
#define NET_RETRY_MAX_MS 300000u
#define NET_CONF_DIR "/etc/cni/net.d"
#define NET_NETNS_DIR "/run/netns"
#define NET_IFNAME "eth0"

struct loop;
struct net;

struct net_options {
	struct loop *loop;
	const char *dir;       /* what is kept of attachments; survives a reboot */
	const char *conf_dir;  /* NULL = NET_CONF_DIR */
	char *const *bin_dirs; /* NULL = /opt/cni/bin, /usr/lib/cni */
	const char *netns_dir; /* NULL = NET_NETNS_DIR */
	uint64_t plugin_ms;    /* 0 = NET_PLUGIN_MS */
	uint64_t retry_ms;     /* 0 = NET_RETRY_MIN_MS */
};

/* Reads the configuration and what is kept; runs nothing. Options are copied. */
int net_open(const struct net_options *o, struct net **ret, struct err *err) must_check;
/* Kills plug-ins that run; no callback comes any more. What is unfinished is for the next net_open.
 * NULL is fine. */
void net_close(struct net *n);

/* ---- readiness ---- */

struct net_status {
	bool ready;
	const char *reason;	    /* CRI's: "" or "NetworkPluginNotReady" */
	char message[500];	    /* for people; "" when ready */
	const char *network, *file; /* the configuration in force; NULL = none. Borrowed */
};
/* This node has had a configuration, or a pod has a network. */
bool net_configured(const struct net *n);
/* What CRI's NetworkReady is to say: a valid configuration is there, its plug-ins are, and those of
 * CNI 1.1 did not say otherwise to STATUS, which is asked in the background by this call when the
 * last answer is old. */
void net_status(struct net *n, struct net_status *ret);

/* ---- pods ---- */

/* code 0: `res` is the result, the network's until the pod's DEL is done. Else everything that was
 * made is being taken back; net_del tells when that is done. */
typedef void (*net_add_fn)(void *arg, int code, const struct net_result *res,
			   const struct err *err);
/* Keeps the request, makes the namespace, runs ADD. -EEXIST: this id is here already (also
 * while its DEL is not done); -ENETDOWN: no network is configured, with the reason;
 * -ENOENT: a plug-in is not there.
 * `pod` is not needed any more when this returns. */
int net_add(struct net *n, const char *id, const Cri__PodSandboxConfig *pod, net_add_fn done,
	    void *arg, struct err *err) must_check;
/* The ADD that is under way is ended and taken back; its `done` does not come. Nothing when there
 * is none. */
void net_add_cancel(struct net *n, const char *id);

/* Runs DEL, removes namespace and records; ends an ADD that is under way (-ECANCELED). Calls for
 * the same pod are joined. A failure is told, and tried again in the background. -ENOENT: nothing
 * is there, `done` does not come. */
int net_del(struct net *n, const char *id, wait_fn done, void *arg, struct err *err) must_check;
/* `done` with this arg, which must not have come yet, does not come; the DEL goes on. */
void net_del_forget(struct net *n, const char *id, const void *arg);

/* There is something of it that a DEL has to remove, or a DEL that has not gone through. */
bool net_has(const struct net *n, const char *id);
/* Runs CHECK. -ENOENT: no such attachment, or not finished; -ENOTSUP: the network has no CHECK (its
 * cniVersion is 0.3.1, or disableCheck). */
int net_check(struct net *n, const char *id, wait_fn done, void *arg, struct err *err) must_check;
void net_check_forget(struct net *n, const char *id, const void *arg);

struct net_view {
	const char *id, *ifname, *netns; /* netns: path */
	const char *network;
	const struct net_result *result;
	const json_t *json; /* the same, as the last plug-in had it */
};
/* A pod whose ADD went through, also by an earlier huskd, and no DEL was asked for. Borrowed until
 * the loop goes on. -ENOENT. */
int net_find(const struct net *n, const char *id, struct net_view *ret) must_check;
/* CRI's network.ip and additional_ips: the addresses on `ifname` (those that name no interface
 * are), first as the plug-in has them. Returns their number, at most max. */
size_t net_addresses(const struct net_view *v, struct net_addr *ret, size_t max);

/* After a start, when the pods are known: DEL for each attachment for which keep(arg, id) is false,
 * and for those whose ADD an earlier huskd did not finish. In the background. */
void net_reap(struct net *n, bool (*keep)(void *arg, const char *id), void *arg);

/* GC to plug-ins of CNI 1.1, with all attachments that are here. ADDs wait for its end. -ENOTSUP:
 * the network has none (cniVersion, disableGC, no plug-in that knows it). */
int net_gc(struct net *n, wait_fn done, void *arg, struct err *err) must_check;

#endif
