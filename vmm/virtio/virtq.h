/*
 * A split virtqueue seen from the device (virtio 1.2, 2.7), over hostile memory.
 *
 * The addresses of the three parts are checked once, when the queue is enabled. A descriptor is
 * copied once and then checked; a chain has a capacity and a bound of steps. What breaks a rule
 * breaks the queue: it gives nothing any more until it is enabled again, and only the guest that
 * did it is harmed. Event index (2.7.10) and indirect descriptors (2.7.5.3) are supported.
 *
 * One thread at a time, the device's (virtio.h); guest memory is shared with vCPUs that may write
 * to it at any moment.
 */
#ifndef HUSK_VMM_VIRTIO_VIRTQ_H
#define HUSK_VMM_VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "vmm/guestmem.h"
#include "vmm/iov.h"

#define VIRTQ_SIZE_MAX 1024		/* a power of two */
#define VIRTQ_CHAIN_MAX IOV_ENTRIES_MAX /* buffers of one chain */

/* Feature bits that the queue itself implements; devices offer them (virtio.h does). */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)

struct virtq_desc; /* as in guest memory */
struct virtq_avail;
struct virtq_used;

struct virtq_layout {
	uint16_t size;		    /* power of two, at most the device's maximum */
	uint64_t desc, avail, used; /* guest addresses */
	uint16_t base;		    /* first index of avail to look at; 0 at a fresh start */
};

struct virtq {
	const struct guestmem *mem; /* NULL = not enabled */
	struct virtq_desc *desc;
	struct virtq_avail *avail;
	struct virtq_used *used;
	uint16_t size;
	uint16_t next_avail;
	uint16_t next_used;
	uint16_t published; /* value of used->idx that the driver sees */
	uint16_t in_flight; /* chains popped and neither pushed nor put back */
	bool event_idx;
	bool indirect;
	bool broken; /* the driver broke a rule: no more chains */
};

/* One request: what the device reads (out), then what it writes (in). */
struct virtq_chain {
	uint16_t head;
	uint16_t n_out, n_in;
	uint32_t out_len, in_len; /* sums; never overflow */
	struct iovec iov[VIRTQ_CHAIN_MAX];
};

/* `features` as acknowledged by the driver; `mem` must outlive the queue.
 * -EINVAL: size or alignment; -EFAULT: a part is not in guest memory. */
int virtq_enable(struct virtq *q, const struct guestmem *mem, const struct virtq_layout *l,
		 uint16_t size_max, uint64_t features) must_check;
void virtq_disable(struct virtq *q); /* chains in flight are forgotten */
static inline bool virtq_enabled(const struct virtq *q)
{
	return q->mem != NULL;
}

/* The next chain. 1 = filled in, 0 = none (or not enabled, or broken). Breaks the queue on a chain
 * that is malformed: out of range, too long, looping, readable after writable, nested indirect. */
int virtq_pop(struct virtq *q, struct virtq_chain *c) must_check;
/* Puts back the chain popped last, which was not pushed yet; again: the one before it. */
void virtq_unpop(struct virtq *q);
/* A chain that was popped and not pushed yet, anew: the driver may have changed it, or guest memory
 * may be mapped elsewhere. 1 = filled in, 0 = the queue is broken. */
int virtq_again(struct virtq *q, uint16_t head, struct virtq_chain *c) must_check;
/* Gives a chain that was popped back with `written` bytes; the driver sees it after
 * virtq_publish. */
void virtq_push(struct virtq *q, uint16_t head, uint32_t written);
/* Shows the driver what was pushed. True: it wants an interrupt for it. */
bool virtq_publish(struct virtq *q);
/* Asks for kicks again. True: chains are there already, so pop once more instead of waiting. */
bool virtq_arm(struct virtq *q);
/* No kicks wanted for now (a hint). */
void virtq_disarm(struct virtq *q);

#endif
