/*
 * The windows of the one disk: which sectors show which file. A sorted table; a request that
 * crosses windows is split. Sectors without a window, and those past a file's end, read as zeros;
 * writes without a window or to a read-only one fail with -EIO. Data moves straight between the
 * files and guest memory.
 *
 * A write for which the file system has no room (-ENOSPC) may be tried again later as a whole; it
 * may have written a part. A file that is full by itself, a block device, gives -EIO instead.
 *
 * Windows are mapped and unmapped on the main loop; one other thread may read and write meanwhile.
 * Unmapping takes a window from the table and gives its file to the caller, who closes it when that
 * thread is through with what it has in hand.
 */
#ifndef HUSK_VMM_WINDOW_H
#define HUSK_VMM_WINDOW_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/limits.h"

#define WINDOWS_MAX 1024u

struct window {
	uint64_t first;	  /* sector */
	uint64_t sectors; /* > 0 */
	int fd;		  /* owned */
	bool readonly;
	bool regular; /* a file, not a block device */
	dev_t dev;    /* where the file is */
};

struct window_table {
	pthread_mutex_t lock; /* of the table, not held while a file is used */
	unsigned n;
	struct window w[WINDOWS_MAX]; /* by first sector; never overlapping */
};

void window_init(struct window_table *t);
void window_fini(struct window_table *t); /* closes the files */

/* Takes fd over on success. -EINVAL: range, or not a regular file or block device that is open for
 * what is asked; -EEXIST: overlaps; -ENOSPC: too many. */
int window_map(struct window_table *t, uint64_t first, uint64_t sectors, int fd, bool readonly,
	       struct err *err) must_check;
/* *ret_fd: the file, for the caller. -ENOENT: no window begins there. */
int window_unmap(struct window_table *t, uint64_t first, int *ret_fd, struct err *err) must_check;

/* The caller has checked that the range is on the disk; `len` is the sum of iov (at most
 * IOV_ENTRIES_MAX of them), a multiple of VM_SECTOR_SIZE. -EIO, or -errno of the file. */
int window_read(struct window_table *t, uint64_t sector, const struct iovec *iov, unsigned n,
		size_t len) must_check;
int window_write(struct window_table *t, uint64_t sector, const struct iovec *iov, unsigned n,
		 size_t len) must_check;
/* Punches holes; `zero`: the range must read as zeros after it, otherwise that is only wished. */
int window_discard(struct window_table *t, uint64_t sector, uint64_t sectors, bool zero) must_check;

/* Of the file systems that have writable windows' files: the one with the least to spare. */
struct window_room {
	uint64_t free;	/* bytes; UINT64_MAX = there is no such file system */
	uint64_t least; /* that should stay free: half of what new pods leave (disk_reserve) */
	int fd;		/* a file there, the table's; -1 = none */
};
/* On the thread that reads and writes. */
void window_room(struct window_table *t, struct window_room *ret);

#endif
