/*
 * The control socket (base/proto/vmm.proto is its specification): requests in, answers and events
 * out, one packet each. The client is trusted to ask for a VM, not to write correct packets: sizes,
 * descriptors and states are checked before a request reaches the VM. Main loop thread.
 */
#ifndef HUSK_VMM_VMCTL_H
#define HUSK_VMM_VMCTL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "vmm/vm.h"

/* The socket is not read while something waits to be sent: an answer, the two events that come
 * once, and the last DiskRoom at most. */
#define VMCTL_QUEUE_MAX 4

struct vmctl_packet {
	uint8_t *data; /* owned */
	size_t len;
};

struct vmctl {
	struct loop *loop;
	int fd; /* owned */
	struct ev_io io;
	struct vm *vm; /* borrowed */
	struct vmctl_packet queue[VMCTL_QUEUE_MAX];
	unsigned n_queued;
	struct blk_room room; /* the last one */
	bool room_due;	      /* to be sent when the queue is empty */
	/* The client closed the socket (code 0), or broke the protocol (-EBADMSG...). Once. */
	void (*closed)(void *arg, int code, const char *why);
	void *arg;
};

/* Takes fd (AF_UNIX SOCK_SEQPACKET) over, also on failure. */
int vmctl_init(struct vmctl *c, struct loop *loop, int fd, struct vm *vm,
	       void (*closed)(void *arg, int code, const char *why), void *arg,
	       struct err *err) must_check;
void vmctl_fini(struct vmctl *c);

/* The events; `arg` is the vmctl. Fit into struct vm_events. */
void vmctl_agent_connected(void *arg);
void vmctl_ended(void *arg, enum end_reason reason, const char *message);
void vmctl_disk_room(void *arg, const struct blk_room *room);

/* Serves one packet that was received: the parser, apart from its socket. All descriptors are taken
 * over or closed before the answer, and set to -1. -EBADMSG: malformed; -errno: no answer could be
 * queued. */
int vmctl_take(struct vmctl *c, const uint8_t *data, size_t len, int *fds, size_t n_fds,
	       struct err *err) must_check;

#endif
