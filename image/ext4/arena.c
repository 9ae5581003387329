#include "image/ext4/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"

void arena_init(struct arena *a)
{
	*a = (struct arena){ .fd = -1 };
}

void arena_fini(struct arena *a)
{
	if (a->base)
		munmap(a->base, ARENA_MAX_CHUNKS * ARENA_CHUNK);
	arena_init(a);
}

void arena_spool(struct arena *a, int fd, uint64_t offset)
{
	a->fd = fd;
	a->offset = offset;
}

/* Allocates the space of a chunk, so that no later access to it can find the disk full. */
static int reserve(struct arena *a)
{
	char zeros[4096] = { 0 };
	size_t done = 0;

	if (fallocate(a->fd, 0, (off_t)a->offset, ARENA_CHUNK) == 0)
		return 0;
	if (errno != EOPNOTSUPP)
		return -errno;
	while (done < ARENA_CHUNK) {
		ssize_t r = pwrite(a->fd, zeros, sizeof(zeros), (off_t)(a->offset + done));

		if (r < 0 && errno != EINTR)
			return -errno;
		done += r > 0 ? (size_t)r : 0;
	}
	return 0;
}

static int map(struct arena *a, char *at)
{
	int r;

	if (a->fd < 0 || a->n < ARENA_ANONYMOUS)
		return mprotect(at, ARENA_CHUNK, PROT_READ | PROT_WRITE) < 0 ? -errno : 0;
	r = reserve(a);
	if (r < 0)
		return r;
	if (mmap(at, ARENA_CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->fd,
		 (off_t)a->offset) == MAP_FAILED)
		return -errno;
	a->offset += ARENA_CHUNK;
	return 0;
}

int arena_chunk(struct arena *a, void **ret)
{
	char *at;
	int r;

	if (!a->base) {
		void *p = mmap(NULL, ARENA_MAX_CHUNKS * ARENA_CHUNK, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return -errno;
		a->base = p;
	}
	if (a->n == ARENA_MAX_CHUNKS)
		return -EFBIG;
	at = a->base + (size_t)a->n * ARENA_CHUNK;
	r = map(a, at);
	if (r < 0)
		return r;
	a->n++;
	if (a->n >= a->trimmed + ARENA_TRIM_CHUNKS)
		arena_trim(a);
	*ret = at;
	return 0;
}

void *arena_alloc(struct arena *a, size_t n, int *ret_code)
{
	check(n <= ARENA_CHUNK);
	n = (n + 7) & ~(size_t)7;
	if (!a->current || ARENA_CHUNK - a->used < n) {
		void *p;

		*ret_code = arena_chunk(a, &p);
		if (*ret_code < 0)
			return NULL;
		a->current = p;
		a->used = 0;
	}
	*ret_code = 0;
	a->used += n;
	return a->current + a->used - n;
}

void arena_trim(struct arena *a)
{
	/* What was written to pages of a shared mapping stays in the page cache. */
	if (arena_spooled(a))
		(void)madvise(a->base + ARENA_ANONYMOUS * ARENA_CHUNK,
			      (a->n - ARENA_ANONYMOUS) * ARENA_CHUNK, MADV_DONTNEED);
	a->trimmed = a->n;
}
