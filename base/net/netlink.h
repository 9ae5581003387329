/*
 * A socket to the kernel's rtnetlink, of the network namespace of the thread that opens it. Calls
 * wait for the kernel's answer, which can be long where its lock is taken: not on a loop that
 * others need soon. Not thread-safe.
 */
#ifndef HUSK_BASE_NET_NETLINK_H
#define HUSK_BASE_NET_NETLINK_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/net/nlmsg.h"

#define NETLINK_WAIT_S 20 /* for an answer: -ETIMEDOUT */

struct netlink {
	int fd; /* owned; -1 = not open */
	uint32_t seq;
};

int netlink_open(struct netlink *nl) must_check;
void netlink_close(struct netlink *nl); /* again is fine */
#define cleanup_netlink cleanup_with(netlink_close)

/* Asks for something to be done; the kernel's -errno when it was not. */
int netlink_do(struct netlink *nl, struct nlmsg *m) must_check;

/* One object of a dump; another value than 0 ends it and is returned. */
typedef int (*netlink_fn)(const struct nlmsg_view *v, void *arg);
/* All objects. -EAGAIN: they changed meanwhile; what fn got is to be thrown away. After an error
 * of fn or another failure the socket is of no use any more. */
int netlink_dump(struct netlink *nl, struct nlmsg *m, netlink_fn fn, void *arg) must_check;

#endif
