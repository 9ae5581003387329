/*
 * The network card of backend qemu: a vhost-user device as the others, except that QEMU's
 * -netdev takes no inherited socket and has to be let in, and that QEMU keeps the card's
 * configuration itself, so that the link's state has to be told to its control socket (QMP).
 * Nothing that QEMU says there is read. Main loop thread.
 */
#ifndef HUSK_VMM_BACKEND_QEMU_NET_H
#define HUSK_VMM_BACKEND_QEMU_NET_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/loop.h"
#include "vmm/virtio/vhost_user.h"

#define QEMU_NET_NAME_MAX 40

struct qemu_net { /* all zero: nothing to finish */
	struct loop *loop;
	struct virtio_dev *dev;
	void (*failed)(void *arg, const char *why);
	void *arg;
	/* An abstract socket that QEMU connects to, once. Whoever else may know its name is sent
	 * away: the kernel says who it is. */
	char name[QEMU_NET_NAME_MAX];
	char mac[18];
	int listener; /* owned; -1 = QEMU has come */
	struct ev_io listener_io;
	pid_t pid;
	struct vhost_user vhost;
	int qmp; /* owned; -1 = closed */
	struct ev_io qmp_io;
};

/* The child's end of the control socket in *ret_qmp, which is the caller's. `failed` as of
 * vhost_user_init. */
int qemu_net_init(struct qemu_net *n, struct loop *loop, struct virtio_dev *dev,
		  void (*failed)(void *arg, const char *why), void *arg, int *ret_qmp,
		  struct err *err) must_check;
/* Before the loop runs again: who is QEMU. */
void qemu_net_set_peer(struct qemu_net *n, pid_t pid);
void qemu_net_fini(struct qemu_net *n);

#endif
