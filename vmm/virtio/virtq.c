#include "vmm/virtio/virtq.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

/* virtio 1.2, 2.7.5 to 2.7.8. Little-endian in memory, as are the hosts that Husk runs on. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtqueues are read in place");

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
struct virtq_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[]; /* size entries, then used_event */
};
struct virtq_used_elem {
	uint32_t id;
	uint32_t len;
};
struct virtq_used {
	uint16_t flags;
	uint16_t idx;
	struct virtq_used_elem ring[]; /* size entries, then avail_event */
};

#define DESC_F_NEXT 1u
#define DESC_F_WRITE 2u
#define DESC_F_INDIRECT 4u
#define AVAIL_F_NO_INTERRUPT 1u
#define USED_F_NO_NOTIFY 1u

/* Every access to memory that the guest writes is one load or store of the right size. */
static uint16_t load16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}
static uint16_t load16_acquire(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static void store16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}
static void store16_release(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static uint16_t *used_event(const struct virtq *q)
{
	return &q->avail->ring[q->size];
}
static uint16_t *avail_event(const struct virtq *q)
{
	return (uint16_t *)(void *)&q->used->ring[q->size];
}

int virtq_enable(struct virtq *q, const struct guestmem *mem, const struct virtq_layout *l,
		 uint16_t size_max, uint64_t features)
{
	uint64_t n = l->size;
	void *desc, *avail, *used;

	if (n == 0 || (n & (n - 1)) != 0 || n > size_max || n > VIRTQ_SIZE_MAX)
		return -EINVAL;
	if (l->desc % 16 != 0 || l->avail % 2 != 0 || l->used % 4 != 0)
		return -EINVAL;
	/* Both rings with their event field, whether it is used or not (2.7.1). */
	desc = guestmem_at(mem, l->desc, 16 * n, GUEST_READ);
	avail = guestmem_at(mem, l->avail, 6 + 2 * n, GUEST_READ);
	used = guestmem_at(mem, l->used, 6 + 8 * n, GUEST_WRITE);
	if (!desc || !avail || !used)
		return -EFAULT;
	*q = (struct virtq){
		.mem = mem,
		.desc = desc,
		.avail = avail,
		.used = used,
		.size = l->size,
		.next_avail = l->base,
		.event_idx = features & VIRTIO_F_EVENT_IDX,
		.indirect = features & VIRTIO_F_INDIRECT_DESC,
	};
	/* 0 at a fresh start. After a stop (vhost-user) what was pushed then. */
	q->next_used = q->published = load16(&q->used->idx);
	return 0;
}

void virtq_disable(struct virtq *q)
{
	memset(q, 0, sizeof(*q));
}

static int broken(struct virtq *q, const char *why)
{
	q->broken = true;
	log_limited(LOG_DEBUG, "virtqueue broken by its driver", "why", why);
	return 0;
}

/* Adds the buffer of a descriptor that was copied already. NULL, or what is wrong with it. */
static const char *add_buffer(const struct virtq *q, struct virtq_chain *c,
			      const struct virtq_desc *d)
{
	bool in = d->flags & DESC_F_WRITE;
	unsigned n = c->n_out + c->n_in;
	uint32_t *sum = in ? &c->in_len : &c->out_len;
	void *p;

	if (!in && c->n_in > 0)
		return "readable buffer after a writable one";
	if (n == VIRTQ_CHAIN_MAX)
		return "chain too long";
	if (d->len > UINT32_MAX - *sum)
		return "chain beyond 4 GiB";
	p = guestmem_at(q->mem, d->addr, d->len, in ? GUEST_WRITE : GUEST_READ);
	if (!p)
		return "buffer outside of guest memory";
	c->iov[n] = (struct iovec){ .iov_base = p, .iov_len = d->len };
	*sum += d->len;
	if (in)
		c->n_in++;
	else
		c->n_out++;
	return NULL;
}

static const char *walk(const struct virtq *q, struct virtq_chain *c,
			const struct virtq_desc *table, uint32_t n, uint32_t i, bool direct);

/* A descriptor that was copied already, and that is a table of others. */
static const char *walk_indirect(const struct virtq *q, struct virtq_chain *c,
				 const struct virtq_desc *d)
{
	const struct virtq_desc *table;
	uint32_t n = d->len / sizeof(*d);

	if (!q->indirect || (d->flags & DESC_F_NEXT))
		return "indirect descriptor in the wrong place";
	if (d->len % sizeof(*d) != 0 || n == 0 || n > VIRTQ_CHAIN_MAX)
		return "indirect table of a wrong length";
	table = guestmem_at(q->mem, d->addr, d->len, GUEST_READ);
	if (!table)
		return "indirect table outside of guest memory";
	return walk(q, c, table, n, 0, false);
}

/* Follows a chain in a table of n descriptors. The steps are bounded by the table's size, so a loop
 * ends there; direct = an indirect descriptor may stand at its end. */
static const char *walk(const struct virtq *q, struct virtq_chain *c,
			const struct virtq_desc *table, uint32_t n, uint32_t i, bool direct)
{
	struct virtq_desc d;
	const char *why;

	for (uint32_t steps = 0; steps < n; steps++) {
		if (i >= n)
			return "descriptor index out of range";
		memcpy(&d, &table[i], sizeof(d));
		__asm__ volatile("" : : : "memory"); /* the copy is what is checked and used */
		if (d.flags & DESC_F_INDIRECT)
			return direct ? walk_indirect(q, c, &d)
				      : "indirect descriptor in the wrong place";
		why = add_buffer(q, c, &d);
		if (why)
			return why;
		if (!(d.flags & DESC_F_NEXT))
			return NULL;
		i = d.next;
	}
	return "chain longer than its table";
}

static int look_up(struct virtq *q, uint16_t head, struct virtq_chain *c)
{
	const char *why;

	c->head = head;
	c->n_out = c->n_in = 0;
	c->out_len = c->in_len = 0;
	why = walk(q, c, q->desc, q->size, head, true);
	return why ? broken(q, why) : 1;
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	uint16_t ready, head;

	if (!q->mem || q->broken)
		return 0;
	ready = load16_acquire(&q->avail->idx) - q->next_avail;
	if (ready == 0)
		return 0;
	if (ready > q->size)
		return broken(q, "more chains than descriptors");
	head = load16(&q->avail->ring[q->next_avail & (q->size - 1)]);
	if (look_up(q, head, c) == 0)
		return 0;
	q->next_avail++;
	q->in_flight++;
	return 1;
}

int virtq_again(struct virtq *q, uint16_t head, struct virtq_chain *c)
{
	if (!q->mem || q->broken)
		return 0;
	return look_up(q, head, c);
}

void virtq_unpop(struct virtq *q)
{
	check(q->in_flight > 0);
	q->in_flight--;
	q->next_avail--;
}

void virtq_push(struct virtq *q, uint16_t head, uint32_t written)
{
	struct virtq_used_elem *e;

	if (!q->mem)
		return;
	check(q->in_flight > 0);
	q->in_flight--;
	e = &q->used->ring[q->next_used & (q->size - 1)];
	__atomic_store_n(&e->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&e->len, written, __ATOMIC_RELAXED);
	q->next_used++;
}

bool virtq_publish(struct virtq *q)
{
	uint16_t old = q->published, event;

	if (!q->mem || q->next_used == old)
		return false;
	store16_release(&q->used->idx, q->next_used);
	q->published = q->next_used;
	/* The driver writes its wish, then looks at used->idx; we the other way round. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!q->event_idx)
		return !(load16(&q->avail->flags) & AVAIL_F_NO_INTERRUPT);
	/* 2.7.10.1: was the index it waits for passed just now? */
	event = load16(used_event(q));
	return (uint16_t)(q->next_used - event - 1) < (uint16_t)(q->next_used - old);
}

bool virtq_arm(struct virtq *q)
{
	if (!q->mem || q->broken)
		return false;
	if (q->event_idx)
		store16(avail_event(q), q->next_avail);
	else
		store16(&q->used->flags, 0);
	atomic_thread_fence(memory_order_seq_cst);
	return load16(&q->avail->idx) != q->next_avail;
}

void virtq_disarm(struct virtq *q)
{
	if (q->mem && !q->event_idx)
		store16(&q->used->flags, USED_F_NO_NOTIFY);
}
