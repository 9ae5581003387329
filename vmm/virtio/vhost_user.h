/*
 * The back end's side of vhost-user: serves one virtio device to QEMU over a stream socket.
 *
 * QEMU is a child of ours, but it runs next to the guest: its messages are foreign bytes. Each has
 * a fixed size and number of descriptors; its addresses are looked up in the memory table it gave,
 * whose descriptors must be memfds that cannot shrink. A message that breaks a rule ends the
 * connection. Main loop thread.
 */
#ifndef HUSK_VMM_VIRTIO_VHOST_USER_H
#define HUSK_VMM_VIRTIO_VHOST_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "vmm/guestmem.h"
#include "vmm/virtio/virtio.h"

#define VHOST_USER_FDS_MAX GUESTMEM_REGIONS_MAX
#define VHOST_USER_CONFIG_MAX 256
#define VHOST_USER_PAYLOAD_MAX (12 + VHOST_USER_CONFIG_MAX)

struct vhost_user;

struct vhost_user_ring {
	struct vhost_user *owner;
	uint16_t num, base;
	uint16_t in_flight; /* that outlive a change of guest memory */
	bool have_addr, enabled, have_kick;
	uint64_t desc, avail, used; /* guest addresses */
	int kick, call;		    /* owned eventfds, -1 = none */
	struct ev_io kick_io;
};

struct vhost_user_header {
	uint32_t request, flags, size;
};

struct vhost_user {
	struct virtio_transport transport;
	struct virtio_dev *dev;
	struct loop *loop;
	struct guestmem mem;
	uint64_t features, protocol_features; /* acknowledged */
	struct vhost_user_ring rings[VIRTIO_QUEUES_MAX];
	void (*failed)(void *arg, const char *why);
	void *arg;
	/* The owner's to set, after init. The driver is shown the device's configuration, not one
	 * of the peer's; what to do when it changes, NULL = nothing. */
	bool own_config;
	void (*config_changed)(void *config_arg);
	void *config_arg;

	int fd; /* owned; -1 = the connection is over */
	struct ev_io io;
	size_t have; /* bytes of the message that is being read: header, then payload */
	struct vhost_user_header header;
	uint8_t payload[VHOST_USER_PAYLOAD_MAX];
	int fds[VHOST_USER_FDS_MAX]; /* owned: those of this message */
	size_t n_fds;
};

/* Takes fd over, also on failure. `failed` is called once when the peer broke the protocol (not
 * when it closed); the connection is over then. */
int vhost_user_init(struct vhost_user *v, struct loop *loop, struct virtio_dev *dev, int fd,
		    void (*failed)(void *arg, const char *why), void *arg,
		    struct err *err) must_check;
/* Stops the device, disables its queues, unmaps the guest's memory. */
void vhost_user_fini(struct vhost_user *v);

#endif
