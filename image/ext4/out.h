/*
 * The stream of blocks that becomes a layer's file: blocks are taken in order, filled at once and
 * go to the file 1 MiB at a time. Blocks of the stream can be read and changed later, wherever they
 * are by then. Belongs to one ext4_writer; one thread; blocking I/O.
 */
#ifndef HUSK_IMAGE_EXT4_OUT_H
#define HUSK_IMAGE_EXT4_OUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define OUT_BLOCKS 256u /* in memory at most */

struct out {
	int fd; /* borrowed */
	/* blocks [first, first + n) are in buf, all before are in the file */
	uint8_t *buf;
	uint32_t first, n;
};

/* `first`: number of the first block of the stream. -ENOMEM. */
int out_init(struct out *o, int fd, uint32_t first) must_check;
void out_fini(struct out *o);
/* The next block, to be filled at once (EXT4_BLOCK bytes, not cleared); valid until the next call.
 * ret_number may be NULL. -EFBIG: more than EXT4_MAX_BLOCKS; errors of write(). */
int out_block(struct out *o, uint8_t **ret, uint32_t *ret_number, struct err *err) must_check;
/* Number of the block that comes next. */
static inline uint32_t out_next(const struct out *o)
{
	return o->first + o->n;
}
/* All blocks into the file. */
int out_flush(struct out *o, struct err *err) must_check;
/* A block of the stream (number < out_next), EXT4_BLOCK bytes. */
int out_read(struct out *o, uint32_t number, void *to, struct err *err) must_check;
int out_rewrite(struct out *o, uint32_t number, const void *from, struct err *err) must_check;
/* Bytes at an offset (in bytes) of any file, past the stream. */
int out_write_at(int fd, const void *data, size_t len, uint64_t offset, struct err *err) must_check;

#endif
