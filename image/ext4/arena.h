/*
 * Memory that only grows, in chunks of 1 MiB, and is given back as a whole. The first chunks are
 * anonymous; further ones are a mapping of a file that the owner has at hand, so that the kernel
 * can put them away: arena_trim() lets go of their pages, and pointers stay valid. One thread.
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
#define ARENA_TRIM_CHUNKS 4u /* new ones of the file, before their pages are let go */

struct arena {
	char *base;	     /* one range of addresses for all chunks */
	unsigned n, trimmed; /* chunks; those that there were at the last trim */
	char *current;	     /* that arena_alloc takes from */
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
/* The pages of the file are not needed for the moment. */
void arena_trim(struct arena *a);
/* Is there anything that can be trimmed? */
static inline bool arena_spooled(const struct arena *a)
{
	return a->fd >= 0 && a->n > ARENA_ANONYMOUS;
}

#endif
