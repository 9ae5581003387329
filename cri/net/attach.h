/*
 * One pod's attachment to its network: the steps of ADD, CHECK and DEL, one operation at a time,
 * and what is asked for meanwhile. Private to this folder; net.h is the door. Loop's thread.
 */
#ifndef HUSK_CRI_NET_ATTACH_H
#define HUSK_CRI_NET_ATTACH_H

#include "base/thread/aside.h"
#include "cri/net/chain.h"
#include "cri/net/confdir.h"
#include "cri/net/net.h"
#include "cri/net/record.h"

/* Work of a thread; it knows its own memory only. */
struct attach_job {
	struct aside aside;
	char *dir, *id, *netns, *text; /* owned; text: of the record, to be written */
	uint64_t wait_ms;
	int lock_fd; /* taken by the work; -1 = none */
	bool there;  /* netns_there */
};

enum attach_op { ATTACH_NONE, ATTACH_ADD, ATTACH_CHECK, ATTACH_DEL };

struct attach {
	struct attach *next;	    /* net's list */
	struct attach *next_queued; /* of those that wait for a place */
	bool queued;
	struct net *net;
	struct record rec;
	struct net_list *list;
	struct net_result *result; /* when rec.complete */
	enum attach_op op;	   /* under way */
	bool want_add, want_del;
	bool doomed; /* DEL was asked for, or ADD failed: only DEL comes, until it goes through */
	struct waits dels, checks;
	net_add_fn add_done;
	void *add_arg;
	struct attach_job job;
	struct chain chain;
	struct ev_timer retry;
	uint64_t retry_ms;
};

struct net {
	struct loop *loop;
	char *dir, *netns_dir;
	char **bin_dirs;
	uint64_t plugin_ms, retry_ms;
	struct confdir conf;
	bool configured; /* there was a configuration at some time, or a pod has a network */
	struct attach *first;
	struct attach *queue, **queue_last;
	unsigned running; /* operations under way, at most NET_AT_ONCE_MAX */
	/* STATUS and GC */
	struct chain_versions versions, gc_versions;
	struct chain status_chain, gc_chain;
	struct net_list *status_list, *gc_list; /* what they run with */
	json_t *gc_extra;
	struct waits gcs;
	uint64_t status_at_ns; /* of the last answer; 0 = none */
	int status_code;
	struct err status_err;
};

/* Into net's list. Takes over rec. On failure it stays the caller's. */
int attach_new(struct net *n, struct record *rec, struct attach **ret, struct err *err) must_check;
struct attach *attach_find(const struct net *n, const char *id);
/* Ends what it does, without callbacks, and frees it. */
void attach_free(struct attach *a);

/* Starts what is wanted, or queues it. On failure nothing was started. */
int attach_next(struct attach *a, struct err *err) must_check;
/* The same; a failure is the end of the operation that would have started. */
void attach_kick(struct attach *a);
/* Starts those that wait and may start now. */
void attach_run_queue(struct net *n);
/* Only DEL comes from now on; an ADD or CHECK under way is ended. Nothing is started. */
void attach_doom(struct attach *a);

#endif
