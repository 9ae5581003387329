/*
 * virtio-blk over windows (virtio 1.2, 5.2): one huge disk, sparse, one queue.
 *
 * The disk offers no flush: what is written to it does not outlive the host's boot (README.md, What
 * the disk does not promise), so reaching the host's page cache is all a write has to do, and the
 * guest never waits for more.
 * A flush that comes nevertheless succeeds.
 *
 * A write that finds the host's file system full is no failure: the guest believes in what it wrote
 * long before, and has no way back. The request is kept and tried again until there is room, the
 * window is gone, or the driver resets; others go on meanwhile. So that it does not come to that,
 * the client is told when room gets low (virtio_blk_room) and can make the guest stop in time.
 *
 * Requests are taken in order, data without a copy between file and guest memory, on a thread of
 * the device's own (io_thread.h): a disk that is slow, or a request that is large, holds up that
 * disk and nothing else of the VM. A request has a maximum all the same, because a reset waits for
 * the one in hand. Before virtio_blk_start, and in tests, the caller's thread serves. The functions
 * below are for the main loop.
 */
#ifndef HUSK_VMM_DEV_BLK_H
#define HUSK_VMM_DEV_BLK_H

#include "vmm/io_thread.h"
#include "vmm/virtio/virtio.h"
#include "vmm/window.h"

#define BLK_QUEUE_SIZE 256
#define BLK_SEGS_MAX (VIRTQ_CHAIN_MAX - 2)
#define BLK_SEG_BYTES_MAX (64 * KIB)
#define BLK_REQUEST_MAX (BLK_SEGS_MAX * BLK_SEG_BYTES_MAX) /* 8 MiB of data */
/* Of discard and write zeroes, which the driver may send in several ranges. */
#define BLK_RANGES_MAX 4
#define BLK_DISCARD_SECTORS_MAX (1u << 15)	/* 16 MiB in one range: 64 MiB */
#define BLK_WRITE_ZEROES_SECTORS_MAX (1u << 14) /* 8 MiB: where holes fail they are written */

#define BLK_RETRY_MS 1000 /* of requests that are kept */
/* Between two looks at the file system while it is full; otherwise a write looks after so long. */
#define BLK_ROOM_MS 5000
#define BLK_ROOM_STEP (16 * MIB) /* written between two looks; less when it gets close */
#define BLK_ROOM_STEP_MIN (1 * MIB)

/* The room for what is written. Full: less is free than should be (window_room), or a request
 * waits; until half as much again is free, and none waits. */
struct blk_room {
	bool full;
	uint64_t free, least; /* bytes: when it became so; what should be free */
	char file[256];	      /* one in the file system that is meant; "" = none is left */
};

struct virtio_blk {
	struct virtio_dev dev;
	struct window_table *windows; /* borrowed */
	struct io_thread thread;
	/* The thread's own. */
	uint16_t kept[BLK_QUEUE_SIZE]; /* heads of requests that wait for room, oldest first */
	unsigned n_kept;
	uint64_t retry_ns, look_ns; /* CLOCK_MONOTONIC: when they are tried again; when to look */
	uint64_t unlooked, step;    /* written since the last look; the next one comes at */
	bool full;

	int room_fd;		  /* owned eventfd: virtio_blk_room has news; -1 = not started */
	pthread_mutex_t lock;	  /* of what follows */
	struct blk_room room;	  /* as the thread saw it last */
	int closing[WINDOWS_MAX]; /* files of windows that are gone, for the thread */
	unsigned n_closing;
};

void virtio_blk_init(struct virtio_blk *b, struct window_table *windows);
/* Before the device is given to a transport. Again is fine. */
int virtio_blk_start(struct virtio_blk *b, struct err *err) must_check;
void virtio_blk_fini(struct virtio_blk *b);
/* The file of a window that was unmapped: closed when no request uses it any more, and where the
 * last close of a large file may take its time. */
void virtio_blk_close(struct virtio_blk *b, int fd);
/* What is new when room_fd is readable. */
void virtio_blk_room(struct virtio_blk *b, struct blk_room *ret);

#endif
