/*
 * What a pod is to the plug-ins: CNI_ARGS, and the values for capabilities that they may ask for.
 * Leaf functions.
 */
#ifndef HUSK_CRI_NET_POD_H
#define HUSK_CRI_NET_POD_H

#include <jansson.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define NET_PORTS_MAX 1024u
#define NET_TEXT_MAX 253u /* of a pod's name, namespace, uid */

enum net_protocol { NET_TCP, NET_UDP, NET_SCTP }; /* CRI's numbers */

struct net_port {
	enum net_protocol protocol;
	int32_t host_port; /* 0 = none: skipped */
	int32_t container_port;
	const char *host_ip; /* NULL or "" = all */
};

struct net_pair {
	const char *key, *value;
};

/* All borrowed for the call that takes it. */
struct net_pod {
	const char *id;
	const char *name, *namespace_, *uid;
	const char *ifname; /* NULL = eth0 */
	const struct net_port *ports;
	size_t n_ports;
	/* Also the bandwidth: kubernetes.io/{ingress,egress}-bandwidth. */
	const struct net_pair *annotations;
	size_t n_annotations;
	const char *cgroup_path; /* NULL or "" = not said */
	/* Of dns_config; NULL = none */
	char *const *dns_servers, *const *dns_searches, *const *dns_options;
	/* An address that is asked for; NULL = none */
	char *const *ips;
	const char *mac;
};

/* "IgnoreUnknown=1;K8S_POD_NAMESPACE=..."; the caller's. -EINVAL: what cannot be written so. */
int net_pod_args(const struct net_pod *p, char **ret, struct err *err) must_check;
/* {"portMappings": [...], "bandwidth": {...}, ...} */
int net_pod_caps(const struct net_pod *p, json_t **ret, struct err *err) must_check;
/* Kubernetes' quantities ("10M", "1.5Gi", "2e6") as a whole number, rounded up; -EINVAL where it is
 * none, or not within [min, max]. */
int net_quantity(const char *text, uint64_t min, uint64_t max, uint64_t *ret) must_check;

#endif
