/*
 * The virtio-mmio transport, version 2 (virtio 1.2, 4.2.2): the registers of one device.
 *
 * Registers are read and written by vCPU threads, under the transport's lock, and only touch the
 * transport. What reaches into the device (start, stop, a queue that goes away, configuration
 * writes) is done by virtio_mmio_apply on the main loop, while the vCPU that asked waits: so a
 * device that was reset touches no guest memory when the driver's write returns.
 *
 * Kicks are an eventfd per queue (KVM ioeventfd at register 0x50), interrupts one eventfd (irqfd).
 */
#ifndef HUSK_VMM_VIRTIO_MMIO_H
#define HUSK_VMM_VIRTIO_MMIO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"
#include "vmm/virtio/virtio.h"

#define VIRTIO_MMIO_SIZE 0x1000
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x50 /* u32: the queue's index */
#define VIRTIO_MMIO_CONFIG_WRITE_MAX 8

struct virtio_mmio_queue {
	struct virtio_mmio *owner;
	struct ev_io kick_io;
	int kick; /* owned eventfd */
	uint16_t size;
	bool ready; /* as the driver wants it */
	uint64_t desc, avail, used;
};

struct virtio_mmio {
	struct virtio_transport transport;
	struct virtio_dev *dev;
	const struct guestmem *mem;
	int irq; /* owned eventfd */
	struct virtio_mmio_queue queues[VIRTIO_QUEUES_MAX];
	atomic_uint irq_status;

	pthread_mutex_t lock; /* of what follows, and of queues[].{size,ready,desc,avail,used} */
	uint32_t status;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features;
	bool want_reset; /* apply: stop the device before anything else */
	uint8_t config_data[VIRTIO_MMIO_CONFIG_WRITE_MAX];
	size_t config_off, config_len; /* apply: config_write, when config_len > 0 */
};

/* dev, mem and loop are borrowed. Makes the eventfds and watches the kicks. */
int virtio_mmio_init(struct virtio_mmio *m, struct loop *loop, struct virtio_dev *dev,
		     const struct guestmem *mem, struct err *err) must_check;
/* Main loop, when no vCPU runs any more: stops the device, disables its queues, closes. */
void virtio_mmio_fini(struct virtio_mmio *m);

/* Any thread; off < VIRTIO_MMIO_SIZE. What the specification does not allow reads as zeros. */
void virtio_mmio_read(struct virtio_mmio *m, uint64_t off, void *buf, size_t len);
/* Any thread. True: virtio_mmio_apply must have run before the guest continues. What the
 * specification does not allow is ignored. */
bool virtio_mmio_write(struct virtio_mmio *m, uint64_t off, const void *buf, size_t len) must_check;
/* Main loop. Brings the device to where the registers are. Idempotent. */
void virtio_mmio_apply(struct virtio_mmio *m);

#endif
