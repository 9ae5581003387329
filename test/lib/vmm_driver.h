/*
 * A virtio driver in plain memory, for tests and fuzzing: `ram` is the guest's memory at
 * GUEST_BASE, with up to three rings in it. It can misbehave: everything it writes is the caller's
 * choice. Header only.
 */
#ifndef HUSK_TEST_LIB_VMM_DRIVER_H
#define HUSK_TEST_LIB_VMM_DRIVER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "vmm/guestmem.h"
#include "vmm/virtio/virtio.h"

#define GUEST_BASE 0x100000ull
#define GUEST_RAM (4 * MIB)
#define RING_STRIDE (64 * KIB) /* one ring: desc, avail at +32 KiB, used at +48 KiB */
#define DATA_BASE (GUEST_BASE + 256 * KIB)

struct ring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

struct driver_buf {
	uint64_t addr;
	uint32_t len;
	bool in;
};

struct driver_ring {
	uint16_t size;
	struct ring_desc *desc;
	uint16_t *avail; /* flags, idx, ring[size], used_event */
	uint16_t *used;	 /* flags, idx, then 8 bytes each, avail_event */
	uint16_t next_desc, seen;
};

struct driver {
	struct virtio_transport transport;
	struct guestmem mem;
	uint8_t *ram;
	struct virtio_dev *dev;
	struct driver_ring rings[VIRTIO_QUEUES_MAX];
	unsigned interrupts[VIRTIO_QUEUES_MAX];
};

static inline void driver_interrupt(struct virtio_transport *t, unsigned q)
{
	container_of(t, struct driver, transport)->interrupts[q]++;
}

static inline void *driver_ptr(struct driver *d, uint64_t gpa)
{
	return d->ram + (gpa - GUEST_BASE);
}

static inline struct virtq_layout driver_layout(unsigned q, uint16_t size)
{
	uint64_t at = GUEST_BASE + q * RING_STRIDE;

	return (struct virtq_layout){
		.size = size, .desc = at, .avail = at + 32 * KIB, .used = at + 48 * KIB
	};
}

static inline void driver_ring_init(struct driver *d, unsigned q, uint16_t size)
{
	struct virtq_layout l = driver_layout(q, size);

	d->rings[q] = (struct driver_ring){ .size = size,
					    .desc = driver_ptr(d, l.desc),
					    .avail = driver_ptr(d, l.avail),
					    .used = driver_ptr(d, l.used) };
}

static inline void driver_mem_init(struct driver *d)
{
	struct guest_region r = { .gpa = GUEST_BASE, .size = GUEST_RAM };

	memset(d, 0, sizeof(*d));
	d->ram = calloc(1, GUEST_RAM);
	if (!d->ram)
		abort();
	d->transport.interrupt = driver_interrupt;
	r.host = d->ram;
	if (guestmem_add(&d->mem, &r) < 0)
		abort();
}

/* Enables and starts the device's queues. */
static inline void driver_init(struct driver *d, struct virtio_dev *dev, uint16_t size,
			       uint64_t features)
{
	driver_mem_init(d);
	d->dev = dev;
	dev->transport = &d->transport;
	for (unsigned q = 0; q < dev->ops->n_queues; q++) {
		uint16_t n = MIN_OF(size, dev->ops->queue_max[q]);
		struct virtq_layout l = driver_layout(q, n);

		driver_ring_init(d, q, n);
		if (virtq_enable(&dev->queues[q], &d->mem, &l, n, features) < 0)
			abort();
	}
	virtio_start(dev, features);
}

static inline void driver_fini(struct driver *d)
{
	if (d->dev) {
		virtio_hold(d->dev);
		virtio_stop(d->dev);
		for (unsigned q = 0; q < d->dev->ops->n_queues; q++)
			virtq_disable(&d->dev->queues[q]);
		virtio_release(d->dev);
	}
	free(d->ram);
}

static inline void driver_avail(struct driver_ring *r, uint16_t head)
{
	r->avail[2 + r->avail[1] % r->size] = head;
	__atomic_store_n(&r->avail[1], (uint16_t)(r->avail[1] + 1), __ATOMIC_RELEASE);
}

/* A chain of direct descriptors. Its head. The ring's descriptors are used in turn. */
static inline uint16_t driver_add(struct driver_ring *r, const struct driver_buf *b, unsigned n)
{
	uint16_t head = r->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = (uint16_t)((head + i) % r->size);

		r->desc[at] = (struct ring_desc){
			.addr = b[i].addr,
			.len = b[i].len,
			.flags = (uint16_t)((b[i].in ? D_WRITE : 0) | (i + 1 < n ? D_NEXT : 0)),
			.next = (uint16_t)((at + 1) % r->size),
		};
	}
	r->next_desc = (uint16_t)((head + n) % r->size);
	driver_avail(r, head);
	return head;
}

/* The next chain that the device gave back. */
static inline bool driver_used(struct driver_ring *r, uint32_t *ret_head, uint32_t *ret_len)
{
	const uint8_t *e = (const uint8_t *)(r->used + 2) + 8 * (r->seen % r->size);

	if (__atomic_load_n(&r->used[1], __ATOMIC_ACQUIRE) == r->seen)
		return false;
	memcpy(ret_head, e, 4);
	memcpy(ret_len, e + 4, 4);
	r->seen++;
	return true;
}

static inline void driver_kick(struct driver *d, unsigned q)
{
	d->dev->ops->notify(d->dev, q);
}

#endif
