/*
 * What an ADD answers: interfaces, addresses, routes, DNS (specification 1.1.0, "Success"; from
 * 0.3.1 on). Bounded and checked, since it is a plug-in's. No I/O; fuzzed. Leaf functions.
 */
#ifndef HUSK_CRI_NET_RESULT_H
#define HUSK_CRI_NET_RESULT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "cri/net/cni.h"

#define NET_RESULT_MAX (1 * MIB) /* the text */
#define NET_INTERFACES_MAX 32u
#define NET_ADDRESSES_MAX 32u
#define NET_ROUTES_MAX 256u
#define NET_DNS_MAX 32u /* entries of each list */
#define NET_DNS_LEN_MAX 255u
#define NET_IFNAME_LEN 16

/* An address or the start of a range, in network order. */
struct net_addr {
	int family; /* AF_INET, AF_INET6; 0 = none */
	uint8_t bytes[16];
	uint8_t prefix; /* of ranges and of an interface's address */
};

struct net_interface {
	char name[NET_IFNAME_LEN];
	bool in_pod; /* it has a "sandbox": the pod's network namespace */
	bool has_mac;
	uint8_t mac[6];
	uint32_t mtu; /* 1.1; 0 = not said */
};

struct net_ip {
	struct net_addr address;
	struct net_addr gateway; /* family 0 = none */
	int interface;		 /* index; -1 = not said */
};

struct net_route {
	struct net_addr dst;
	struct net_addr gw; /* family 0 = on link, or the address's gateway */
	/* 1.1; 0 = not said, but for scope and table (see has_*) */
	uint32_t mtu, advmss, priority, table;
	uint8_t scope;
	bool has_table, has_scope;
};

struct net_result {
	struct net_interface *interfaces;
	struct net_ip *ips;
	struct net_route *routes;
	size_t n_interfaces, n_ips, n_routes;
	/* NULL-terminated; NULL = none */
	char **nameservers, **search, **options;
	char *domain; /* NULL = none */
};

/* Of the object that net_json_parse made of a plug-in's output. -EPROTO (a form or value that
 * cannot be), -EFBIG (a limit), -ENOTSUP (a version that we do not speak). */
int net_result_parse(const json_t *j, struct net_result **ret, struct err *err) must_check;
void net_result_free(struct net_result *r);
void net_result_freep(struct net_result **r);
#define cleanup_net_result cleanup_with(net_result_freep)

/* The same result as the next plug-in of the list is to see it, whose version may differ from the
 * one that the plug-in answered in. In place; `j` was accepted by net_result_parse. */
int net_result_convert(json_t *j, enum cni_version to, struct err *err) must_check;

/* As text, without prefix: "10.88.0.2". out has at least 46 bytes. "" for family 0. */
void net_addr_format(const struct net_addr *a, char out[46]);

#endif
