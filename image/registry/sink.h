/*
 * Where the bytes of one layer go: into the hash, the file that keeps them, and the pipe to the
 * unpacker, in this order. The pipe sets the pace: when it is full, the rest of a delivery waits in
 * the stash, and the sink takes no more until that is written. Knows no network. One thread.
 */
#ifndef HUSK_IMAGE_REGISTRY_SINK_H
#define HUSK_IMAGE_REGISTRY_SINK_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/util.h"
#include "image/digest.h"

#define SINK_MAX_STASH (1 * MIB) /* the part of one delivery that a full pipe could not take */

struct sink {
	int file_fd, pipe_fd; /* owned; -1 = none */
	char digest[DIGEST_LEN + 1];
	uint64_t size;
	uint64_t have;	   /* bytes that were in the file before */
	uint64_t done;	   /* bytes of the blob so far, with those from before */
	uint64_t replayed; /* of those from before */
	EVP_MD_CTX *sha;
	struct buf stash;
};

/* Takes over the descriptors also on failure. */
int sink_init(struct sink *s, const char *digest, uint64_t size, int file_fd, int pipe_fd,
	      uint64_t have, struct err *err) must_check;
void sink_fini(struct sink *s); /* also of a zeroed one with descriptors -1 */
/* Bytes from before that still have to be read again. */
static inline bool sink_replays(const struct sink *s)
{
	return s->replayed < s->have;
}
/* Reads one piece of them. 1: the pipe is full; 0: there may be more; < 0. */
int sink_replay(struct sink *s, struct err *err) must_check;
/* Is something in the stash? */
static inline bool sink_full(const struct sink *s)
{
	return buf_len(&s->stash) != 0;
}
/* Bytes from the registry; not to be called while sink_full. -EBADMSG: more than `size`. -EPIPE:
 * the pipe has no reader. */
int sink_put(struct sink *s, const void *data, size_t len, struct err *err) must_check;
/* Writes the stash to the pipe. 1: some is left; 0: all is written; < 0. */
int sink_flush(struct sink *s, struct err *err) must_check;
/* All `size` bytes are there: -EBADMSG when they do not have the digest. */
int sink_verify(struct sink *s, struct err *err) must_check;

#endif
