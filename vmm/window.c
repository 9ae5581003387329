#include "vmm/window.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/check.h"
#include "base/util.h"
#include "vmm/iov.h"

#define ZERO_CHUNK (64 * KIB)
#define ROOM_FS_MAX 8 /* file systems that are looked at; one is usual */

void window_init(struct window_table *t)
{
	t->n = 0;
	pthread_mutex_init(&t->lock, NULL); /* default attributes: cannot fail on Linux */
}

void window_fini(struct window_table *t)
{
	for (unsigned i = 0; i < t->n; i++)
		fd_close(&t->w[i].fd);
	t->n = 0;
	pthread_mutex_destroy(&t->lock);
}

/* Index of the first window that ends after `sector`; t->n when there is none. */
static unsigned find_window(const struct window_table *t, uint64_t sector)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (t->w[mid].first + t->w[mid].sectors <= sector)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int check_file(int fd, bool readonly, struct stat *ret, struct err *err)
{
	int flags;

	if (fstat(fd, ret) < 0)
		return err_errno(err, -errno, "window's file");
	if (!S_ISREG(ret->st_mode) && !S_ISBLK(ret->st_mode))
		return err_set(err, -EINVAL, "a window needs a regular file or a block device");
	flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return err_errno(err, -errno, "window's file");
	if ((flags & O_PATH) || (flags & O_ACCMODE) == O_WRONLY)
		return err_set(err, -EINVAL, "the window's file is not open for reading");
	/* With O_APPEND pwrite would ignore the offset. */
	if (!readonly && ((flags & O_ACCMODE) != O_RDWR || (flags & O_APPEND)))
		return err_set(err, -EINVAL, "the window's file is not open for writing");
	return 0;
}

int window_map(struct window_table *t, uint64_t first, uint64_t sectors, int fd, bool readonly,
	       struct err *err)
{
	struct stat st;
	unsigned i;
	int r;

	if (sectors == 0 || first % VM_DISK_ALIGN != 0 || sectors % VM_DISK_ALIGN != 0)
		return err_set(err, -EINVAL, "a window's sectors must be multiples of %u, not 0",
			       VM_DISK_ALIGN);
	if (first >= VM_DISK_SECTORS || sectors > VM_DISK_SECTORS - first)
		return err_set(err, -EINVAL, "window past the end of the disk");
	i = find_window(t, first);
	if (i < t->n && t->w[i].first < first + sectors)
		return err_set(err, -EEXIST, "the window overlaps the one at sector %llu",
			       (unsigned long long)t->w[i].first);
	if (t->n == WINDOWS_MAX)
		return err_set(err, -ENOSPC, "more than %u windows", WINDOWS_MAX);
	r = check_file(fd, readonly, &st, err);
	if (r < 0)
		return r;
	check(i == 0 || t->w[i - 1].first + t->w[i - 1].sectors <= first);
	pthread_mutex_lock(&t->lock);
	memmove(&t->w[i + 1], &t->w[i], (t->n - i) * sizeof(t->w[0]));
	t->w[i] = (struct window){
		.first = first,
		.sectors = sectors,
		.fd = fd,
		.readonly = readonly,
		.regular = S_ISREG(st.st_mode),
		.dev = st.st_dev,
	};
	t->n++;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

int window_unmap(struct window_table *t, uint64_t first, int *ret_fd, struct err *err)
{
	unsigned i = find_window(t, first);

	if (i == t->n || t->w[i].first != first)
		return err_set(err, -ENOENT, "no window at sector %llu", (unsigned long long)first);
	pthread_mutex_lock(&t->lock);
	*ret_fd = t->w[i].fd;
	t->n--;
	memmove(&t->w[i], &t->w[i + 1], (t->n - i) * sizeof(t->w[0]));
	pthread_mutex_unlock(&t->lock);
	return 0;
}

/* A piece of a request: bytes that lie in one window, or in none (fd -1). */
struct piece {
	int fd;
	bool readonly, regular;
	off_t off; /* in the window's file */
	uint64_t len;
};

/* The table may change when it returns; the file is not closed before the request is over. */
static struct piece piece_at(struct window_table *t, uint64_t sector, uint64_t len)
{
	struct piece p = { .fd = -1, .readonly = true, .len = len };
	const struct window *w;
	unsigned i;

	pthread_mutex_lock(&t->lock);
	i = find_window(t, sector);
	w = &t->w[i];
	if (i < t->n && sector < w->first) {
		p.len = MIN_OF(len, (w->first - sector) * VM_SECTOR_SIZE);
	} else if (i < t->n) {
		p.fd = w->fd;
		p.readonly = w->readonly;
		p.regular = w->regular;
		p.off = (off_t)((sector - w->first) * VM_SECTOR_SIZE);
		p.len = MIN_OF(len, (w->first + w->sectors - sector) * VM_SECTOR_SIZE);
	}
	pthread_mutex_unlock(&t->lock);
	return p;
}

static void fill_zeros(const struct iovec *iov, unsigned n, size_t off)
{
	for (unsigned i = 0; i < n; i++) {
		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		memset((uint8_t *)iov[i].iov_base + off, 0, iov[i].iov_len - off);
		off = 0;
	}
}

static int window_read_piece(const struct piece *p, const struct iovec *iov, unsigned n)
{
	size_t done = 0;

	while (p->fd >= 0 && done < p->len) {
		struct iovec part[IOV_ENTRIES_MAX];
		unsigned k = iov_slice(iov, n, done, p->len - done, part, ARRAY_SIZE(part));
		ssize_t r = preadv(p->fd, part, (int)k, p->off + (off_t)done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	fill_zeros(iov, n, done);
	return 0;
}

/* What a failed write means for the guest. A project's or user's quota is room, too. */
static int write_error(const struct piece *p, int r)
{
	if (r == -EDQUOT)
		r = -ENOSPC;
	return r == -ENOSPC && !p->regular ? -EIO : r;
}

static int window_write_piece(const struct piece *p, const struct iovec *iov, unsigned n)
{
	if (p->readonly)
		return -EIO;
	for (size_t done = 0; done < p->len;) {
		struct iovec part[IOV_ENTRIES_MAX];
		unsigned k = iov_slice(iov, n, done, p->len - done, part, ARRAY_SIZE(part));
		ssize_t r = pwritev(p->fd, part, (int)k, p->off + (off_t)done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? write_error(p, -errno) : -EIO;
		done += (size_t)r;
	}
	return 0;
}

static int transfer(struct window_table *t, uint64_t sector, const struct iovec *iov, unsigned n,
		    size_t len,
		    int (*move)(const struct piece *p, const struct iovec *iov, unsigned n))
{
	check(n <= IOV_ENTRIES_MAX);
	for (size_t done = 0; done < len;) {
		struct piece p = piece_at(t, sector + done / VM_SECTOR_SIZE, len - done);
		struct iovec part[IOV_ENTRIES_MAX];
		unsigned k = iov_slice(iov, n, done, p.len, part, ARRAY_SIZE(part));
		int r = move(&p, part, k);

		if (r < 0)
			return r;
		done += p.len;
	}
	return 0;
}

int window_read(struct window_table *t, uint64_t sector, const struct iovec *iov, unsigned n,
		size_t len)
{
	return transfer(t, sector, iov, n, len, window_read_piece);
}

int window_write(struct window_table *t, uint64_t sector, const struct iovec *iov, unsigned n,
		 size_t len)
{
	return transfer(t, sector, iov, n, len, window_write_piece);
}

static int write_zeros(const struct piece *p)
{
	static const uint8_t zeros[ZERO_CHUNK];

	for (uint64_t done = 0; done < p->len;) {
		size_t n = MIN_OF(p->len - done, sizeof(zeros));
		ssize_t r = pwrite(p->fd, zeros, n, p->off + (off_t)done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? write_error(p, -errno) : -EIO;
		done += (uint64_t)r;
	}
	return 0;
}

int window_discard(struct window_table *t, uint64_t sector, uint64_t sectors, bool zero)
{
	uint64_t len = sectors * VM_SECTOR_SIZE;
	int r;

	for (uint64_t done = 0; done < len;) {
		struct piece p = piece_at(t, sector + done / VM_SECTOR_SIZE, len - done);

		if (p.readonly)
			return -EIO;
		r = fallocate(p.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, p.off,
			      (off_t)p.len);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && zero)
			r = write_zeros(&p);
		else if (r < 0) /* a hole may need room, too; it was only wished */
			r = errno == EOPNOTSUPP || errno == ENOSPC || errno == EDQUOT ? 0 : -errno;
		if (r < 0)
			return r;
		done += p.len;
	}
	return 0;
}

struct room_fs {
	dev_t dev;
	int fd;
};

/* One file of each file system; how many. */
static unsigned writable_fs(struct window_table *t, struct room_fs fs[ROOM_FS_MAX])
{
	unsigned n = 0, k;

	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < t->n && n < ROOM_FS_MAX; i++) {
		const struct window *w = &t->w[i];

		if (w->readonly || !w->regular)
			continue;
		for (k = 0; k < n && fs[k].dev != w->dev; k++)
			;
		if (k == n)
			fs[n++] = (struct room_fs){ .dev = w->dev, .fd = w->fd };
	}
	pthread_mutex_unlock(&t->lock);
	return n;
}

void window_room(struct window_table *t, struct window_room *ret)
{
	struct room_fs fs[ROOM_FS_MAX];
	unsigned n = writable_fs(t, fs);
	int64_t spare = INT64_MAX;
	struct statvfs st;

	*ret = (struct window_room){ .free = UINT64_MAX, .fd = -1 };
	for (unsigned i = 0; i < n; i++) {
		uint64_t free, least;

		/* One without a size has no end, either. */
		if (fstatvfs(fs[i].fd, &st) < 0 || st.f_blocks == 0)
			continue;
		free = (uint64_t)st.f_bavail * st.f_frsize;
		least = disk_reserve((uint64_t)st.f_blocks * st.f_frsize) / 2;
		if ((int64_t)(free - least) >= spare)
			continue;
		spare = (int64_t)(free - least);
		*ret = (struct window_room){ .free = free, .least = least, .fd = fs[i].fd };
	}
}
