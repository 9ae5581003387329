/*
 * Messages of netlink (rtnetlink(7)) as bytes: built into a buffer of fixed size, and read with
 * every length checked. No I/O. Both sides of a pod's network use it: the shim in the pod's
 * namespace, the agent in the guest. Any thread.
 */
#ifndef HUSK_BASE_NET_NLMSG_H
#define HUSK_BASE_NET_NLMSG_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"

#define NLMSG_MAX 1024u /* bytes of a request */

struct nlmsg {
	size_t len;
	bool full; /* something did not fit: never sent */
	union {
		_Alignas(8) uint8_t data[NLMSG_MAX];
		struct nlmsghdr head;
	};
};

/* A request: the header and what its type begins with (`struct ifinfomsg`, ...). */
void nlmsg_begin(struct nlmsg *m, uint16_t type, uint16_t flags, const void *head, size_t n);
void nlmsg_put(struct nlmsg *m, uint16_t attr, const void *data, size_t n);
void nlmsg_put_u32(struct nlmsg *m, uint16_t attr, uint32_t v);
void nlmsg_put_str(struct nlmsg *m, uint16_t attr, const char *s); /* with its NUL */
/* Attributes inside of an attribute: until nlmsg_end with what nlmsg_nest gave. */
size_t nlmsg_nest(struct nlmsg *m, uint16_t attr);
void nlmsg_end(struct nlmsg *m, size_t nest);
/* Of RTM_NEWLINK: the kernel makes no IPv6 address of its own for the interface. */
void nlmsg_put_no_address(struct nlmsg *m);

/* One message of what the kernel sent. */
struct nlmsg_view {
	uint16_t type, flags;
	uint32_t seq;
	const uint8_t *body;
	size_t n;
};
/* False: no more; then c->bad tells whether what is left is no message. */
bool nlmsg_next(struct cur *c, struct nlmsg_view *ret);

struct nlattr_view {
	const uint8_t *p; /* NULL = absent */
	size_t n;
};
/* The attributes in n bytes: table[k] is that of type k < max, the last where there are several.
 * Others are skipped. -EBADMSG. */
int nlattrs_read(const uint8_t *p, size_t n, struct nlattr_view *table, size_t max) must_check;
/* Copies an attribute of exactly n bytes. False: absent or of another length. */
bool nlattr_get(const struct nlattr_view *a, void *out, size_t n);

#endif
