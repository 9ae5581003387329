#include "vmm/dev/rng.h"

#include <sys/random.h>

static void rng_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtq *vq = &d->queues[0];
	struct virtq_chain c;
	unsigned left = 4 * RNG_QUEUE_SIZE; /* a driver that asks for more has to kick again */

	virtq_disarm(vq);
	do {
		while (left > 0 && virtq_pop(vq, &c) > 0) {
			uint8_t bytes[RNG_CHUNK_MAX];
			size_t want = MIN_OF(c.in_len, sizeof(bytes));
			ssize_t n = getrandom(bytes, want, GRND_NONBLOCK);
			size_t put = n > 0 ? (size_t)n : 0;

			put = iov_write(c.iov + c.n_out, c.n_in, 0, bytes, put);
			virtq_push(vq, c.head, (uint32_t)put);
			left--;
		}
	} while (virtq_arm(vq) && left > 0);
	virtio_flush(d, 0);
}

static const struct virtio_dev_ops rng_ops = {
	.id = VIRTIO_ID_RNG,
	.name = "rng",
	.n_queues = 1,
	.queue_max = { RNG_QUEUE_SIZE },
	.notify = rng_notify,
};

void virtio_rng_init(struct virtio_rng *r)
{
	*r = (struct virtio_rng){ .dev.ops = &rng_ops };
}
