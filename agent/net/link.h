/*
 * One network interface of the guest, by rtnetlink: each function is one request to the kernel and
 * returns its answer. Loop thread; the kernel answers at once, as nobody else configures networks
 * in a guest that has no container yet.
 */
#ifndef HUSK_AGENT_NET_LINK_H
#define HUSK_AGENT_NET_LINK_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/net/netlink.h"
#include "proto/agent.pb-c.h"

struct link {
	int index;
	char name[16];
};

/* The first Ethernet interface that there is. -ENODEV. */
int link_find(struct netlink *nl, struct link *ret) must_check;
/* While it is down: name, MAC address, MTU; no address is made up for it. */
int link_configure(struct netlink *nl, struct link *l, const Agent__Interface *i) must_check;
int link_up(struct netlink *nl, const struct link *l) must_check;
/* Usable at once: nobody is asked whether the address is taken, the host's side knew. */
int link_add_address(struct netlink *nl, const struct link *l, const Agent__Address *a) must_check;
int link_add_route(struct netlink *nl, const struct link *l, const Agent__Route *route) must_check;
int link_add_neighbour(struct netlink *nl, const struct link *l,
		       const Agent__Neighbour *n) must_check;

#endif
