/*
 * virtio-rng (virtio 1.2, 5.4): random bytes of the host's kernel. A guest gets a bounded number of
 * them in a while; what it asks for beyond is served when that is over. Main loop thread.
 */
#ifndef HUSK_VMM_DEV_RNG_H
#define HUSK_VMM_DEV_RNG_H

#include "base/loop.h"
#include "vmm/virtio/virtio.h"

#define RNG_QUEUE_SIZE 8
#define RNG_CHUNK_MAX 256 /* for one request: getrandom gives these without being interrupted */
/* A guest seeds itself with some hundred bytes, and its kernel stretches them. */
#define RNG_REQUESTS 64
#define RNG_PERIOD_NS (100 * NS_PER_MS)

struct virtio_rng {
	struct virtio_dev dev;
	struct loop *loop;
	struct ev_timer timer; /* runs while requests wait */
	uint64_t since_ns;     /* of the period */
	unsigned served;       /* in it */
};

void virtio_rng_init(struct virtio_rng *r, struct loop *l);
void virtio_rng_fini(struct virtio_rng *r);

#endif
