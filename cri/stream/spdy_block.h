/*
 * SPDY/3.1 header blocks (draft-mbelshe-httpbis-spdy-00, 2.6.10): name and value pairs in zlib
 * with a dictionary, one context a direction for the whole connection. So every block that comes
 * must be read, also of a stream that is refused. Bytes of a hostile client. No I/O.
 */
#ifndef HUSK_CRI_STREAM_SPDY_BLOCK_H
#define HUSK_CRI_STREAM_SPDY_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include <zlib.h>

#include "base/compiler.h"

#define SPDY_BLOCK_MAX (16 * KIB) /* compressed */
#define SPDY_PLAIN_MAX (32 * KIB) /* and unpacked; what unpacks to more is refused */
#define SPDY_PAIRS_MAX 64u
#define SPDY_DICTIONARY_LEN 1423u

struct spdy_pair {
	const uint8_t *name, *value; /* not terminated */
	uint32_t name_len, value_len;
};

struct spdy_pairs {
	struct spdy_pair pair[SPDY_PAIRS_MAX];
	uint32_t n;
};

struct spdy_reader {
	z_stream z;
	bool open;
	uint8_t *plain; /* SPDY_PLAIN_MAX */
};

/* -ENOMEM. */
int spdy_reader_init(struct spdy_reader *r) must_check;
void spdy_reader_fini(struct spdy_reader *r);
/* *ret points into the reader, until its next block. -EPROTO, -EMSGSIZE, -ENOMEM: the connection
 * cannot be read any more. */
int spdy_reader_block(struct spdy_reader *r, const uint8_t *data, size_t n,
		      struct spdy_pairs *ret) must_check;
/* Copies the value of a name (lower case). False: there is none, it is longer, or it has NULs,
 * which stand between several values. */
bool spdy_pairs_get(const struct spdy_pairs *p, const char *name, char *value, size_t size);

struct spdy_writer {
	z_stream z;
	bool open;
};

int spdy_writer_init(struct spdy_writer *w) must_check;
void spdy_writer_fini(struct spdy_writer *w);
/* A block without pairs, which is all that an answer needs. Its length, at most `size` (64 is
 * enough), or -ENOBUFS. */
int spdy_writer_empty(struct spdy_writer *w, uint8_t *out, size_t size) must_check;

/* The dictionary of the specification. */
void spdy_dictionary(uint8_t out[SPDY_DICTIONARY_LEN]);

#endif
