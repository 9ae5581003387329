/*
 * Memory that only grows, in chunks of 1 MiB, and is freed as a whole. The first chunks are
 * anonymous; later ones are mapped from a file of the owner, so that the kernel can write them
 * back: arena_trim() drops their pages from memory, and pointers stay valid. One thread.
 */
#ifndef HUSK_IMAGE_EXT4_ARENA_H
#define HUSK_IMAGE_EXT4_ARENA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/util.h"

#define ARENA_CHUNK (1 * MIB)
#define ARENA_MAX_CHUNKS 512u
#define ARENA_ANONYMOUS 12u  /* chunks before the file is used */
#define ARENA_TRIM_CHUNKS 4u /* new chunks of the file between two trims */

struct arena {
	char *base;	     /* one range of addresses for all chunks */
	unsigned n, trimmed; /* chunks: now, and at the last trim */
	char *current;	     /* the chunk that arena_alloc takes from */
	size_t used;
	int fd; /* borrowed; -1 = anonymous memory only */
	uint64_t offset;
};

void arena_init(struct arena *a);
void arena_fini(struct arena *a);
/* From now on, chunks beyond ARENA_ANONYMOUS lie in the file, from `offset` (of whole pages) on. */
void arena_spool(struct arena *a, int fd, uint64_t offset);
/* A whole chunk, of zeros. -ENOMEM, -EFBIG: ARENA_MAX_CHUNKS; errors of fallocate(). */
int arena_chunk(struct arena *a, void **ret) must_check;
/* n <= ARENA_CHUNK bytes, aligned to 8; NULL: as above, see *ret_code. Contents: zeros. */
void *arena_alloc(struct arena *a, size_t n, int *ret_code) must_check;
/* Drops the pages of the file from memory; they come back when they are used. */
void arena_trim(struct arena *a);
/* Has it chunks in the file? */
static inline bool arena_spooled(const struct arena *a)
{
	return a->fd >= 0 && a->n > ARENA_ANONYMOUS;
}

#endif
