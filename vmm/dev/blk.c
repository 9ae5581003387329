#include "vmm/dev/blk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

/* 5.2.3 */
#define BLK_F_SIZE_MAX (1ull << 1)
#define BLK_F_SEG_MAX (1ull << 2)
#define BLK_F_BLK_SIZE (1ull << 6)
#define BLK_F_DISCARD (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

/* 5.2.6 */
enum { BLK_T_IN = 0, BLK_T_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8 };
enum { BLK_T_DISCARD = 11, BLK_T_WRITE_ZEROES = 13 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };
#define BLK_S_NO_ROOM 0x80 /* never shown to the driver */
#define BLK_ID_LEN 20
#define BLK_WRITE_ZEROES_F_UNMAP 1u

/* Shown to the driver together: whichever comes first. */
#define ROUND_REQUESTS 64
#define ROUND_BYTES (4 * MIB)

struct blk_config { /* 5.2.4 */
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct blk_range { /* 5.2.6, discard and write zeroes */
	uint64_t sector;
	uint32_t sectors, flags;
};

struct blk_request {
	struct blk_header h;
	const struct virtq_chain *c;
	size_t written; /* bytes given to the driver, without the status */
};

static bool on_disk(uint64_t sector, uint64_t sectors)
{
	return sector < VM_DISK_SECTORS && sectors <= VM_DISK_SECTORS - sector;
}

static uint8_t status_of(int r)
{
	return r == -ENOSPC ? BLK_S_NO_ROOM : r < 0 ? BLK_S_IOERR : BLK_S_OK;
}

static uint8_t do_rw(struct virtio_blk *b, struct blk_request *q)
{
	bool in = q->h.type == BLK_T_IN;
	const struct virtq_chain *c = q->c;
	size_t len = in ? c->in_len - 1 : c->out_len - sizeof(q->h);
	struct iovec iov[VIRTQ_CHAIN_MAX];
	unsigned n;
	int r;

	if (len % VM_SECTOR_SIZE != 0 || len > BLK_REQUEST_MAX ||
	    !on_disk(q->h.sector, len / VM_SECTOR_SIZE))
		return BLK_S_IOERR;
	if (!in) {
		n = iov_slice(c->iov, c->n_out, sizeof(q->h), len, iov, ARRAY_SIZE(iov));
		b->unlooked += len;
		return status_of(window_write(b->windows, q->h.sector, iov, n, len));
	}
	n = iov_slice(c->iov + c->n_out, c->n_in, 0, len, iov, ARRAY_SIZE(iov));
	r = window_read(b->windows, q->h.sector, iov, n, len);
	if (r == 0)
		q->written = len;
	return status_of(r);
}

static uint8_t do_ranges(struct virtio_blk *b, struct blk_request *q)
{
	bool zero = q->h.type == BLK_T_WRITE_ZEROES;
	uint32_t max = zero ? BLK_WRITE_ZEROES_SECTORS_MAX : BLK_DISCARD_SECTORS_MAX;
	struct blk_range ranges[BLK_RANGES_MAX];
	size_t len = q->c->out_len - sizeof(q->h);

	if (len == 0 || len % sizeof(ranges[0]) != 0 || len > sizeof(ranges))
		return BLK_S_IOERR;
	iov_read(q->c->iov, q->c->n_out, sizeof(q->h), ranges, len);
	for (size_t i = 0; i < len / sizeof(ranges[0]); i++) {
		const struct blk_range *g = &ranges[i];
		int r;

		/* Discard knows no flag, write zeroes one (5.2.6.2). */
		if (g->flags & ~(zero ? BLK_WRITE_ZEROES_F_UNMAP : 0u))
			return BLK_S_UNSUPP;
		if (g->sectors > max || !on_disk(g->sector, g->sectors))
			return BLK_S_IOERR;
		r = window_discard(b->windows, g->sector, g->sectors, zero);
		if (r < 0)
			return status_of(r);
	}
	return BLK_S_OK;
}

static uint8_t do_get_id(struct blk_request *q)
{
	static const char id[BLK_ID_LEN] = "husk";
	size_t room = q->c->in_len - 1;

	q->written =
		iov_write(q->c->iov + q->c->n_out, q->c->n_in, 0, id, MIN_OF(room, sizeof(id)));
	return BLK_S_OK;
}

static uint8_t blk_serve(struct virtio_blk *b, struct blk_request *q)
{
	switch (q->h.type) {
	case BLK_T_IN:
	case BLK_T_OUT:
		return do_rw(b, q);
	case BLK_T_FLUSH:
		return BLK_S_OK;
	case BLK_T_GET_ID:
		return do_get_id(q);
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
		return do_ranges(b, q);
	default:
		return BLK_S_UNSUPP;
	}
}

/* Serves a chain and gives it back. False: there is no room for it, and the chain may be kept. */
static bool handle(struct virtio_blk *b, struct virtq *vq, const struct virtq_chain *c,
		   bool may_keep)
{
	struct blk_request q = { .c = c };
	uint8_t status;

	/* Without a header or a place for the status there is nothing to answer (5.2.6). */
	if (c->out_len < sizeof(q.h) || c->in_len < 1) {
		virtq_push(vq, c->head, 0);
		return true;
	}
	iov_read(c->iov, c->n_out, 0, &q.h, sizeof(q.h));
	status = blk_serve(b, &q);
	if (status == BLK_S_NO_ROOM && may_keep)
		return false;
	if (status == BLK_S_NO_ROOM)
		status = BLK_S_IOERR;
	iov_write(c->iov + c->n_out, c->n_in, c->in_len - 1, &status, 1);
	/* "Used length" counts from the first byte; the status is the last one. */
	virtq_push(vq, c->head, q.written == c->in_len - 1 ? c->in_len : (uint32_t)q.written);
	return true;
}

/* ---- a full file system ---- */

/* A driver that keeps the rules has no more requests under way than its queue has entries. */
static void serve_new(struct virtio_blk *b, struct virtq *vq, const struct virtq_chain *c)
{
	if (handle(b, vq, c, b->n_kept < ARRAY_SIZE(b->kept)))
		return;
	if (b->n_kept == 0)
		b->retry_ns = now_mono_ns() + BLK_RETRY_MS * NS_PER_MS;
	b->kept[b->n_kept++] = c->head;
}

/* All of them: each may be another file, and one whose window is gone gets its IOERR. */
static void serve_kept(struct virtio_blk *b, struct virtq *vq)
{
	unsigned n = b->n_kept, still = 0;
	struct virtq_chain c;
	bool paused = false;

	/* Chains of a queue that was disabled meanwhile are forgotten, and so are they. */
	if (n != vq->in_flight)
		n = b->n_kept = 0;
	if (n == 0 || now_mono_ns() < b->retry_ns)
		return;
	for (unsigned i = 0; i < n; i++) {
		paused = paused || io_thread_pausing(&b->thread);
		if (!paused) {
			if (virtq_again(vq, b->kept[i], &c) == 0)
				break; /* a broken queue takes no answers */
			if (handle(b, vq, &c, true))
				continue;
		}
		b->kept[still++] = b->kept[i];
	}
	b->n_kept = still;
	if (still == 0)
		b->look_ns = 0; /* there may be room again */
	/* The release of a pause wakes the thread. */
	b->retry_ns = paused ? 0 : now_mono_ns() + BLK_RETRY_MS * NS_PER_MS;
}

static void tell_room(struct virtio_blk *b, const struct window_room *w)
{
	struct blk_room room = { .full = b->full, .least = w->least };
	uint64_t one = 1;
	char link[40];
	ssize_t n = 0;

	if (w->fd >= 0) {
		room.free = w->free;
		(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", w->fd);
		n = readlink(link, room.file, sizeof(room.file) - 1);
	}
	room.file[n > 0 ? n : 0] = '\0';
	pthread_mutex_lock(&b->lock);
	b->room = room;
	pthread_mutex_unlock(&b->lock);
	if (b->room_fd >= 0 && write(b->room_fd, &one, sizeof(one)) < 0)
		log_debug("disk: an eventfd fails");
}

static void look_at_room(struct virtio_blk *b)
{
	struct window_room w;
	uint64_t least, spare;
	bool full;

	window_room(b->windows, &w);
	least = b->full ? w.least + w.least / 2 : w.least;
	full = b->n_kept > 0 || w.free < least;
	spare = w.free > w.least ? w.free - w.least : 0;
	b->step = MIN_OF(MAX_OF(spare / 2, (uint64_t)BLK_ROOM_STEP_MIN), (uint64_t)BLK_ROOM_STEP);
	b->unlooked = 0;
	b->look_ns = now_mono_ns() + BLK_ROOM_MS * NS_PER_MS;
	if (full == b->full)
		return;
	b->full = full;
	tell_room(b, &w);
}

/* At the end of a round: looks when it is time to, and says when the next one is due. Others write
 * to the file system, too, so that a guest that writes little looks after some time. */
static void mind_room(struct virtio_blk *b)
{
	bool surprise = b->n_kept > 0 && !b->full;
	bool much = b->unlooked > 0 && b->unlooked >= b->step;

	if (surprise || much || ((b->unlooked > 0 || b->full) && now_mono_ns() >= b->look_ns))
		look_at_room(b);
	b->thread.again_ms = b->n_kept ? BLK_RETRY_MS : b->full ? BLK_ROOM_MS : -1;
}

/* ---- the thread ---- */

/* Requests that are kept may have lost their window by it: they are tried in this round. */
static void close_files(struct virtio_blk *b)
{
	unsigned n;
	int fd;

	do {
		fd = -1;
		pthread_mutex_lock(&b->lock);
		n = b->n_closing;
		if (n)
			fd = b->closing[--b->n_closing];
		pthread_mutex_unlock(&b->lock);
		if (n)
			b->retry_ns = 0;
		fd_close(&fd);
	} while (n > 1);
}

/* A round. True: there is more. */
static bool blk_work(void *arg)
{
	struct virtio_blk *b = arg;
	struct virtq *vq = &b->dev.queues[0];
	struct virtq_chain c;
	unsigned n = 0;
	size_t bytes = 0;
	bool more;

	close_files(b);
	b->thread.again_ms = -1;
	if (!b->dev.started)
		return false;
	virtq_disarm(vq);
	serve_kept(b, vq);
	do {
		while (n < ROUND_REQUESTS && bytes < ROUND_BYTES &&
		       !io_thread_pausing(&b->thread) && virtq_pop(vq, &c) > 0) {
			serve_new(b, vq, &c);
			bytes += (size_t)c.out_len + c.in_len;
			n++;
		}
		more = n >= ROUND_REQUESTS || bytes >= ROUND_BYTES || io_thread_pausing(&b->thread);
	} while (!more && virtq_arm(vq));
	virtio_flush(&b->dev, 0);
	mind_room(b);
	return more;
}

static void blk_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_blk *b = container_of(d, struct virtio_blk, dev);

	if (b->thread.runs) {
		io_thread_wake(&b->thread);
		return;
	}
	while (blk_work(b))
		;
}

static void blk_hold(struct virtio_dev *d)
{
	io_thread_hold(&container_of(d, struct virtio_blk, dev)->thread);
}

static void blk_release(struct virtio_dev *d)
{
	io_thread_release(&container_of(d, struct virtio_blk, dev)->thread);
}

static bool blk_watch(struct virtio_dev *d, unsigned queue, int kick)
{
	struct virtio_blk *b = container_of(d, struct virtio_blk, dev);

	if (b->thread.runs && queue == 0)
		io_thread_watch(&b->thread, queue, kick);
	return b->thread.runs && queue == 0;
}

void virtio_blk_close(struct virtio_blk *b, int fd)
{
	bool later;

	pthread_mutex_lock(&b->lock);
	later = b->thread.runs && b->n_closing < ARRAY_SIZE(b->closing);
	if (later)
		b->closing[b->n_closing++] = fd;
	pthread_mutex_unlock(&b->lock);
	if (later) {
		io_thread_wake(&b->thread);
		return;
	}
	io_thread_hold(&b->thread);
	b->retry_ns = 0;
	fd_close(&fd);
	io_thread_release(&b->thread);
}

/* ---- the device ---- */

static void blk_config_read(const struct virtio_dev *d, size_t off, void *buf, size_t len)
{
	static const struct blk_config config = {
		.capacity = VM_DISK_SECTORS,
		.size_max = BLK_SEG_BYTES_MAX,
		.seg_max = BLK_SEGS_MAX,
		.blk_size = VM_SECTOR_SIZE,
		.num_queues = 1,
		.max_discard_sectors = BLK_DISCARD_SECTORS_MAX,
		.max_discard_seg = BLK_RANGES_MAX,
		.discard_sector_alignment = VM_DISK_ALIGN,
		.max_write_zeroes_sectors = BLK_WRITE_ZEROES_SECTORS_MAX,
		.max_write_zeroes_seg = BLK_RANGES_MAX,
		.write_zeroes_may_unmap = 1,
	};

	memcpy(buf, (const uint8_t *)&config + off, len);
}

static const struct virtio_dev_ops blk_ops = {
	.id = VIRTIO_ID_BLOCK,
	.name = "blk",
	.n_queues = 1,
	.queue_max = { BLK_QUEUE_SIZE },
	.features = BLK_F_SIZE_MAX | BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_DISCARD |
		    BLK_F_WRITE_ZEROES,
	.config_len = sizeof(struct blk_config),
	.config_read = blk_config_read,
	.notify = blk_notify,
	.hold = blk_hold,
	.release = blk_release,
	.watch = blk_watch,
};

void virtio_blk_init(struct virtio_blk *b, struct window_table *windows)
{
	b->dev = (struct virtio_dev){ .ops = &blk_ops };
	b->windows = windows;
	b->thread = (struct io_thread){ 0 };
	b->n_kept = 0;
	b->unlooked = b->step = b->look_ns = 0;
	b->full = false;
	b->room_fd = -1;
	b->room = (struct blk_room){ 0 };
	b->n_closing = 0;
	pthread_mutex_init(&b->lock, NULL); /* default attributes: cannot fail on Linux */
}

int virtio_blk_start(struct virtio_blk *b, struct err *err)
{
	if (b->room_fd < 0)
		b->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->room_fd < 0)
		return err_errno(err, -errno, "disk");
	return b->thread.runs ? 0 : io_thread_start(&b->thread, "blk", blk_work, b, err);
}

void virtio_blk_room(struct virtio_blk *b, struct blk_room *ret)
{
	uint64_t n;

	if (b->room_fd >= 0 && read(b->room_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_debug("disk: an eventfd fails");
	pthread_mutex_lock(&b->lock);
	*ret = b->room;
	pthread_mutex_unlock(&b->lock);
}

void virtio_blk_fini(struct virtio_blk *b)
{
	io_thread_stop(&b->thread);
	close_files(b);
	fd_close(&b->room_fd);
	pthread_mutex_destroy(&b->lock);
}
