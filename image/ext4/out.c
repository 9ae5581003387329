#include "image/ext4/out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "image/ext4/writer.h"

int out_init(struct out *o, int fd, uint32_t first)
{
	*o = (struct out){ .fd = fd, .first = first };
	o->buf = aligned_alloc(EXT4_BLOCK, OUT_BLOCKS * EXT4_BLOCK);
	return o->buf ? 0 : -ENOMEM;
}

void out_fini(struct out *o)
{
	free(o->buf);
	o->buf = NULL;
}

int out_flush(struct out *o, struct err *err)
{
	uint64_t at = (uint64_t)o->first * EXT4_BLOCK;
	size_t n = (size_t)o->n * EXT4_BLOCK;
	int r = out_write_at(o->fd, o->buf, n, at, err);

	if (r < 0)
		return r;
	/* Starts the writing to disk now, so that the sync at the end finds little to do. */
	if (n)
		(void)sync_file_range(o->fd, (off_t)at, (off_t)n, SYNC_FILE_RANGE_WRITE);
	o->first += o->n;
	o->n = 0;
	return 0;
}

int out_block(struct out *o, uint8_t **ret, uint32_t *ret_number, struct err *err)
{
	int r = o->n == OUT_BLOCKS ? out_flush(o, err) : 0;

	if (r < 0)
		return r;
	if (out_next(o) >= EXT4_MAX_BLOCKS)
		return err_set(err, -EFBIG, "layer of more than %zu GiB",
			       (size_t)EXT4_MAX_BLOCKS * EXT4_BLOCK / GIB);
	*ret = o->buf + (size_t)o->n * EXT4_BLOCK;
	if (ret_number)
		*ret_number = out_next(o);
	o->n++;
	return 0;
}

/* A block that is still in memory. */
static uint8_t *in_memory(struct out *o, uint32_t number)
{
	check(number < out_next(o));
	return number < o->first ? NULL : o->buf + (size_t)(number - o->first) * EXT4_BLOCK;
}

int out_read(struct out *o, uint32_t number, void *to, struct err *err)
{
	const uint8_t *p = in_memory(o, number);
	ssize_t n;

	if (p) {
		memcpy(to, p, EXT4_BLOCK);
		return 0;
	}
	do
		n = pread(o->fd, to, EXT4_BLOCK, (off_t)number * EXT4_BLOCK);
	while (n < 0 && errno == EINTR);
	return n == EXT4_BLOCK ? 0 : err_errno(err, n < 0 ? -errno : -EIO, "read the layer's file");
}

int out_rewrite(struct out *o, uint32_t number, const void *from, struct err *err)
{
	uint8_t *p = in_memory(o, number);

	if (!p)
		return out_write_at(o->fd, from, EXT4_BLOCK, (uint64_t)number * EXT4_BLOCK, err);
	memcpy(p, from, EXT4_BLOCK);
	return 0;
}

int out_write_at(int fd, const void *data, size_t len, uint64_t offset, struct err *err)
{
	const char *p = data;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(err, -errno, "write the layer's file");
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}
