/*
 * From the bytes of a layer's blob to the bytes of its tar: gzip (one or more members), zstd (one
 * or more frames), or no compression; with the SHA-256 of the tar, which is the layer's diff id.
 * Which of the three it is, the first bytes decide: builders and registries label blobs wrongly,
 * and it is the digest that tells whether the content is right. Pure: bytes in, bytes out by a
 * callback. One thread of the confined decoder process.
 */
#ifndef HUSK_IMAGE_LAYER_DECODE_H
#define HUSK_IMAGE_LAYER_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/media.h"

/* Against bombs: a tar larger than DECODE_FREE may be at most so many times larger than its blob.
 * (gzip can reach 1032; real layers stay below 20.) */
#define DECODE_FREE (1 * GIB)
#define DECODE_MAX_RATIO 250u

struct decoder;

/* Takes bytes of the tar; 0 or -errno, which ends the decoding. */
typedef int (*decode_out_fn)(void *arg, const void *data, size_t len);

/* declared: counts only where there are too few bytes to tell. max: of the tar's bytes; more is
 * -EFBIG, and so is a bomb. -ENOMEM. */
int decoder_new(enum media_compression declared, uint64_t max, decode_out_fn out, void *arg,
		struct decoder **ret) must_check;
void decoder_free(struct decoder *d);
/* -EBADMSG: damaged; -EFBIG: also a zstd window of more than 32 MiB; or what `out` returned. */
int decoder_put(struct decoder *d, const void *data, size_t len, struct err *err) must_check;
/* At the end of the input: -EBADMSG when it is truncated. *ret_bytes: of the tar. */
int decoder_end(struct decoder *d, uint8_t sha256[32], uint64_t *ret_bytes,
		struct err *err) must_check;

#endif
