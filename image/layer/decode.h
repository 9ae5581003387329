/*
 * From the bytes of a layer's blob to the bytes of its tar: gzip (one or more members), zstd (one
 * or more frames), or as they are; with the SHA-256 of what comes out, which is the layer's diff
 * id. Pure: bytes in, bytes out by a callback. Runs in the confined decoder process.
 */
#ifndef HUSK_IMAGE_LAYER_DECODE_H
#define HUSK_IMAGE_LAYER_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/media.h"

/* A bomb: what is larger than this must not be so many times larger than the blob. (gzip does not
 * get beyond 1032; real layers stay below 20.) */
#define DECODE_FREE (1 * GIB)
#define DECODE_MAX_RATIO 250u

struct decoder;

/* Takes bytes of the tar; 0 or -errno, which ends the decoding. */
typedef int (*decode_out_fn)(void *arg, const void *data, size_t len);

/* max: of the tar's bytes; more gives -EFBIG, as does a bomb. */
int decoder_new(enum media_compression kind, uint64_t max, decode_out_fn out, void *arg,
		struct decoder **ret) must_check;
void decoder_free(struct decoder *d);
/* -EBADMSG: damaged. -EFBIG: also a zstd window of more than 32 MiB. What `out` returned. */
int decoder_put(struct decoder *d, const void *data, size_t len, struct err *err) must_check;
/* At the end of the input: -EBADMSG when it is truncated. *ret_bytes: of the tar. */
int decoder_end(struct decoder *d, uint8_t sha256[32], uint64_t *ret_bytes,
		struct err *err) must_check;

#endif
