/*
 * The connections of virtio-vsock: each joins a stream of the guest to a stream socket of the host.
 * States, credit, half-closed streams, and the socket's side; packets come and go as headers and
 * lists of buffers. Knows neither queues nor the device (vsock.c is both).
 *
 * Bytes go from the socket straight into the guest's buffers and back. Only what the socket does
 * not take at once is kept, up to VSOCK_BUF_ALLOC a connection, which is what the guest was told
 * that it may send; so one that stands still costs the others nothing.
 *
 * End of stream travels in both directions separately: EOF of the socket <-> SHUTDOWN(send), a
 * reader that is gone <-> SHUTDOWN(receive); both <-> the connection ends with RST. Main loop
 * thread.
 */
#ifndef HUSK_VMM_DEV_VSOCK_CONN_H
#define HUSK_VMM_DEV_VSOCK_CONN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "base/loop.h"

#define VSOCK_CONNS_MAX 1023u
#define VSOCK_BUF_ALLOC (256 * KIB)	 /* what the guest may have under way on a connection */
#define VSOCK_BUF_ALLOC_SHORT (16 * KIB) /* the same when there are more connections than .. */
#define VSOCK_CONNS_WIDE 64u
/* Of all connections together, kept for host sockets that do not take it; beyond it connections are
 * reset. A guest that sends what it was told it may does not come there. */
#define VSOCK_KEPT_MAX (32 * MIB)
#define VSOCK_PACKET_MAX (64 * KIB) /* data of one packet */
_Static_assert(VSOCK_CONNS_WIDE *VSOCK_BUF_ALLOC +
			       (VSOCK_CONNS_MAX - VSOCK_CONNS_WIDE) * VSOCK_BUF_ALLOC_SHORT <=
		       VSOCK_KEPT_MAX,
	       "no honest guest is cut off");
#define VSOCK_CONNECT_TIMEOUT_NS (10 * NS_PER_S)
#define VSOCK_CLOSE_TIMEOUT_NS (5 * NS_PER_S)
#define VSOCK_BUCKETS 256u /* a power of two */

/* virtio 1.2, 5.10.6 */
struct vsock_hdr {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct vsock_hdr) == 44, "virtio 1.2, 5.10.6");

enum vsock_op {
	VSOCK_OP_INVALID,
	VSOCK_OP_REQUEST,
	VSOCK_OP_RESPONSE,
	VSOCK_OP_RST,
	VSOCK_OP_SHUTDOWN,
	VSOCK_OP_RW,
	VSOCK_OP_CREDIT_UPDATE,
	VSOCK_OP_CREDIT_REQUEST,
	VSOCK_OP_COUNT,
};

struct vsock_conn;
TAILQ_HEAD(vsock_list, vsock_conn);

struct vsock_conns {
	struct loop *loop;
	/* After the callback of a socket or a timer: connections may have packets for the guest. */
	void (*pump)(struct vsock_conns *t);
	struct vsock_list all;
	struct vsock_list table[VSOCK_BUCKETS]; /* those that a packet of the guest can mean */
	unsigned n;				/* all that are not dead */
	size_t kept;				/* bytes in `out` of all */
	struct vsock_list ready;		/* may have a packet for the guest */
	struct vsock_list dead;			/* freed by vsock_conns_reap */
};

void vsock_conns_init(struct vsock_conns *t, struct loop *loop,
		      void (*pump)(struct vsock_conns *t));
/* Ends all. flush: bytes for the host that were accepted are still written. */
void vsock_conns_close(struct vsock_conns *t, bool flush);
/* Frees those that died. Each entry from the loop or the device ends with it, and nothing keeps a
 * connection over it. */
void vsock_conns_reap(struct vsock_conns *t);
/* The next that may have a packet, taken off the list, to be asked by vsock_conn_emit. NULL =
 * none. */
struct vsock_conn *vsock_conns_next(struct vsock_conns *t);
struct vsock_conn *vsock_conn_find(struct vsock_conns *t, uint32_t host_port, uint32_t guest_port);

/* The host opens a connection, for a stream socket, to ports that no other has. Takes fd over on
 * success. -ENOBUFS: too many, -ENOMEM. */
int vsock_conn_open(struct vsock_conns *t, uint32_t host_port, uint32_t guest_port,
		    int fd) must_check;
/* The guest opened one. As above. */
int vsock_conn_accept(struct vsock_conns *t, const struct vsock_hdr *h, int fd) must_check;

/* A packet of the guest for the connection: a header whose length and ids are checked, and the
 * buffers it came in, header first. */
void vsock_conn_take(struct vsock_conn *c, const struct vsock_hdr *h, const struct iovec *iov,
		     unsigned n);
/* The next packet for the guest: ports, op, len, flags and credit into *h, data into the buffers
 * behind a header's room; `room` is their sum. False: it has none. */
bool vsock_conn_emit(struct vsock_conn *c, struct vsock_hdr *h, const struct iovec *iov, unsigned n,
		     size_t room) must_check;
/* The guest broke a rule: RST, and what was not written is forgotten. */
void vsock_conn_reset(struct vsock_conn *c);

#endif
