#include "vmm/dev/rng.h"

#include <sys/random.h>

#include "base/util.h"

static void rng_on_timer(struct ev_timer *t);

/* True: one more is within the limit. */
static bool may_serve(struct virtio_rng *r)
{
	uint64_t now = now_mono_ns();

	if (now - r->since_ns >= RNG_PERIOD_NS) {
		r->since_ns = now;
		r->served = 0;
	}
	if (r->served == RNG_REQUESTS)
		return false;
	r->served++;
	return true;
}

static void serve(struct virtq *vq, const struct virtq_chain *c)
{
	uint8_t bytes[RNG_CHUNK_MAX];
	ssize_t n = getrandom(bytes, MIN_OF(c->in_len, sizeof(bytes)), GRND_NONBLOCK);
	size_t put = n > 0 ? (size_t)n : 0;

	put = iov_write(c->iov + c->n_out, c->n_in, 0, bytes, put);
	virtq_push(vq, c->head, (uint32_t)put);
}

static void rng_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_rng *r = container_of(d, struct virtio_rng, dev);
	struct virtq *vq = &d->queues[0];
	struct virtq_chain c;

	virtq_disarm(vq);
	do {
		while (virtq_pop(vq, &c) > 0) {
			if (!may_serve(r)) {
				virtq_unpop(vq);
				virtio_flush(d, 0);
				/* Without memory for a timer the next kick goes on. */
				if (ev_timer_add(r->loop, &r->timer, RNG_PERIOD_NS, rng_on_timer,
						 r) < 0)
					(void)virtq_arm(vq);
				return;
			}
			serve(vq, &c);
		}
	} while (virtq_arm(vq));
	virtio_flush(d, 0);
}

static void rng_on_timer(struct ev_timer *t)
{
	struct virtio_rng *r = t->arg;

	rng_notify(&r->dev, 0);
}

static void rng_stop(struct virtio_dev *d)
{
	ev_timer_del(&container_of(d, struct virtio_rng, dev)->timer);
}

static const struct virtio_dev_ops rng_ops = {
	.id = VIRTIO_ID_RNG,
	.name = "rng",
	.n_queues = 1,
	.queue_max = { RNG_QUEUE_SIZE },
	.stop = rng_stop,
	.notify = rng_notify,
};

void virtio_rng_init(struct virtio_rng *r, struct loop *l)
{
	*r = (struct virtio_rng){ .dev.ops = &rng_ops, .loop = l };
}

void virtio_rng_fini(struct virtio_rng *r)
{
	ev_timer_del(&r->timer);
}
