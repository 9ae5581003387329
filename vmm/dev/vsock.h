/*
 * virtio-vsock (virtio 1.2, 5.10), stream sockets only, joined to stream socketpairs of the host.
 * The device: its queues, which packet belongs to which connection, and who may open one. The guest
 * may open one connection: to port VSOCK_AGENT_PORT of the host, joined to the agent's channel. All
 * others are opened by the host (virtio_vsock_connect). What a connection does is vsock_conn.c.
 *
 * A packet that breaks a rule gets RST. Main loop thread.
 */
#ifndef HUSK_VMM_DEV_VSOCK_H
#define HUSK_VMM_DEV_VSOCK_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "vmm/dev/vsock_conn.h"
#include "vmm/virtio/virtio.h"

#define VSOCK_HOST_CID 2
#define VSOCK_QUEUE_SIZE 256
#define VSOCK_RESETS_MAX 128u /* answers to packets of no connection */

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

	struct vsock_conns conns;
	uint32_t next_port;
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
 * success; it is closed when the guest refuses or does not answer in time. -EINVAL: not a stream
 * socket; -ENOBUFS: too many, -ENOMEM. */
int virtio_vsock_connect(struct virtio_vsock *v, uint32_t guest_port, int fd,
			 struct err *err) must_check;

#endif
