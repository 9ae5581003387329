/*
 * What a pod's network namespace has, as a message to the agent: made of the kernel's dumps of
 * links, addresses, routes and neighbours. Bytes are read with every length checked, and what
 * the guest could not have in the same way is refused by name, never left out. No I/O: the dumps
 * are read by join.c. One thread at a time.
 *
 * Left out on purpose: the loopback interface, interfaces that are down, the kernel's own routes
 * (the guest's kernel makes them again), and what a router announced, addresses as well as routes:
 * the guest listens to routers itself, if the interface does.
 */
#ifndef HUSK_SHIM_NET_MIRROR_H
#define HUSK_SHIM_NET_MIRROR_H

#include "base/err.h"
#include "base/limits.h"
#include "base/net/nlmsg.h"
#include "base/pb.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"

#define MIRROR_MEMORY_MAX (1 * MIB)

struct mirror {
	struct pb_arena arena; /* everything below */
	int ifindex;	       /* of the interface; 0 = none yet */
	Agent__Interface iface;
	char name[16];
	Agent__Address *addresses[POD_ADDRESSES_MAX];
	Agent__Route *routes[POD_ROUTES_MAX];
	Agent__Neighbour *neighbours[POD_NEIGHBOURS_MAX];
	struct err *err; /* of the call that is under way */
};

void mirror_init(struct mirror *m);
void mirror_fini(struct mirror *m);
/* One object of a dump, of any of the four kinds; links come first. A netlink_fn. -errno with text
 * in m->err. */
int mirror_take(const struct nlmsg_view *v, void *mirror) must_check;
/* The request, in the mirror, when all was taken. */
void mirror_finish(struct mirror *m);

#endif
