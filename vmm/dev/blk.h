/*
 * virtio-blk over windows (virtio 1.2, 5.2): one huge disk, sparse, one queue.
 *
 * The disk offers no flush: what is written to it does not outlive the host's boot (README.md, What
 * the disk does not promise), so reaching the host's page cache is all a write has to do, and the
 * guest never waits for more.
 * A flush that comes nevertheless succeeds.
 *
 * Main loop thread. Requests are served in order, data without a copy between file and guest
 * memory. blk_serve() is the seam where an asynchronous engine can be put: a request is one struct.
 */
#ifndef HUSK_VMM_DEV_BLK_H
#define HUSK_VMM_DEV_BLK_H

#include "base/loop.h"
#include "vmm/virtio/virtio.h"
#include "vmm/window.h"

#define BLK_QUEUE_SIZE 256
#define BLK_SEGS_MAX (VIRTQ_CHAIN_MAX - 2)
#define BLK_DISCARD_SEGS_MAX 16
#define BLK_DISCARD_SECTORS_MAX (1u << 22)	/* 2 GiB in one segment */
#define BLK_WRITE_ZEROES_SECTORS_MAX (1u << 14) /* 8 MiB: where holes fail they are written */

struct virtio_blk {
	struct virtio_dev dev;
	struct loop *loop;
	const struct window_table *windows; /* borrowed; changes between requests only */
	struct ev_timer again;		    /* a round ended with work left */
};

void virtio_blk_init(struct virtio_blk *b, struct loop *l, const struct window_table *windows);
void virtio_blk_fini(struct virtio_blk *b);

#endif
