/*
 * virtio-console, one port, output only (virtio 1.2, 5.3): hvc0 for debugging. Output goes to a
 * sink that never makes the guest or the loop wait: what a pipe cannot take is dropped, and a
 * regular file gets CONSOLE_FILE_MAX bytes. Main loop thread.
 */
#ifndef HUSK_VMM_DEV_CONSOLE_H
#define HUSK_VMM_DEV_CONSOLE_H

#include "base/loop.h"
#include "vmm/virtio/virtio.h"

#define CONSOLE_QUEUE_SIZE 64
#define CONSOLE_FILE_MAX (4 * MIB)

struct virtio_console {
	struct virtio_dev dev;
	struct loop *loop;
	int sink;      /* owned; -1 = output is dropped */
	uint64_t left; /* bytes that the sink still takes */
	struct ev_timer again;
};

void virtio_console_init(struct virtio_console *c, struct loop *l);
/* Takes fd over (-1 = none). */
void virtio_console_set_sink(struct virtio_console *c, int fd);
/* Output that came another way: QEMU's own console. */
void virtio_console_output(struct virtio_console *c, const struct iovec *iov, unsigned n);
void virtio_console_fini(struct virtio_console *c);

#endif
