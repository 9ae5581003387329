/* virtio-rng (virtio 1.2, 5.4): random bytes of the host's kernel. Main loop thread. */
#ifndef HUSK_VMM_DEV_RNG_H
#define HUSK_VMM_DEV_RNG_H

#include "base/loop.h"
#include "vmm/virtio/virtio.h"

#define RNG_QUEUE_SIZE 8
#define RNG_CHUNK_MAX 256 /* for one request: getrandom gives these without being interrupted */

struct virtio_rng {
	struct virtio_dev dev;
};

void virtio_rng_init(struct virtio_rng *r);

#endif
