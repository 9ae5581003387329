/*
 * virtio-vsock (virtio 1.2, 5.10), stream sockets only, joined to stream socketpairs of the host.
 *
 * The guest may open one connection: to port VSOCK_AGENT_PORT of the host, joined to the agent
 * channel. All others are opened by the host (virtio_vsock_connect). Bytes go from the socketpair
 * straight into the driver's receive buffers, and from its send buffers straight into the socket;
 * only what the socket does not take at once is kept, up to VSOCK_BUF_ALLOC for a connection, which
 * is what the guest was told it may send. A connection that stands still costs the others nothing.
 *
 * End of stream travels in both directions separately: EOF of the socketpair <-> SHUTDOWN(send),
 * a reader that is gone <-> SHUTDOWN(receive); both <-> the connection ends with RST.
 * A packet that breaks a rule gets RST. Main loop thread.
 */
#ifndef HUSK_VMM_DEV_VSOCK_H
#define HUSK_VMM_DEV_VSOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "vmm/virtio/virtio.h"

#define VSOCK_HOST_CID 2
#define VSOCK_QUEUE_SIZE 256
#define VSOCK_CONNS_MAX 1023u
#define VSOCK_BUF_ALLOC (256 * KIB) /* what the guest may have under way on a connection */
#define VSOCK_PACKET_MAX (64 * KIB) /* data of one packet */
#define VSOCK_RESETS_MAX 128u	    /* answers to packets of no connection */
#define VSOCK_CONNECT_TIMEOUT_NS (10 * NS_PER_S)
#define VSOCK_CLOSE_TIMEOUT_NS (5 * NS_PER_S)
#define VSOCK_BUCKETS 256u /* a power of two */

struct vsock_conn;
TAILQ_HEAD(vsock_list, vsock_conn);

struct vsock_reset {
	uint32_t host_port, guest_port;
};

struct virtio_vsock {
	struct virtio_dev dev;
	struct loop *loop;
	uint64_t guest_cid;
	int agent_fd; /* owned; -1 = not given, or joined to the guest's connection */
	void (*agent_connected)(void *arg);
	void *arg;

	struct vsock_list all;
	struct vsock_list table[VSOCK_BUCKETS];
	unsigned n_conns; /* all that are not freed */
	uint32_t next_port;
	struct vsock_list ready; /* have a packet for the guest, or want to look for one */
	struct vsock_list dead;	 /* freed when the entry point returns */
	struct vsock_reset resets[VSOCK_RESETS_MAX];
	unsigned reset_first, n_resets;
	struct ev_timer again; /* a round ended with work left */
};

void virtio_vsock_init(struct virtio_vsock *v, struct loop *l, uint64_t guest_cid);
/* Closes every connection. The device has been stopped. */
void virtio_vsock_fini(struct virtio_vsock *v);

/* The channel for the guest's one connection; takes fd (a stream socket) over. agent_connected is
 * called once, when the guest opened it. */
void virtio_vsock_set_agent(struct virtio_vsock *v, int fd, void (*agent_connected)(void *arg),
			    void *arg);

/* Opens a connection to a port of the guest and joins it to fd, a stream socket. Takes fd over on
 * success; it is closed when the guest refuses or does not answer in time. -EINVAL, -ENOBUFS. */
int virtio_vsock_connect(struct virtio_vsock *v, uint32_t guest_port, int fd,
			 struct err *err) must_check;

#endif
