/*
 * huskd's end of one unpack process (base/proto/image_worker.proto): the blobs of one or more
 * layers go in, an ext4 file comes out. Loop thread.
 */
#ifndef HUSK_IMAGE_JOB_UNPACKER_H
#define HUSK_IMAGE_JOB_UNPACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/media.h"

struct layer_facts;
struct procs;
struct unpacker;

/* `diff_id` is the digest of the tar as the process found it, when code == 0 (merged: the id that
 * was asked for, and all diff ids were as they should be). May call unpacker_free. */
typedef void (*unpacker_done_fn)(void *arg, int code, const char *diff_id, const struct err *err);

/* path: of the file to be made, which must not exist. reserve: -ENOSPC (done) when fewer bytes are
 * free on its disk. *ret_fd: where the blob's bytes go, owned by the caller. */
int unpacker_new(struct procs *ps, const char *path, enum media_compression compression,
		 const char *diff_id, uint64_t reserve, unpacker_done_fn done, void *arg,
		 struct unpacker **ret, int *ret_fd, struct err *err) must_check;
/* Layers that become one disk, lowest first. */
struct unpacker_layer {
	enum media_compression compression;
	const char *diff_id;
	int fd; /* the blob, from its start; borrowed, and free again when the function returns */
};
#define UNPACKER_MAX_LAYERS 128u

/* `bottom`: the lowest of them is the lowest of the image. -EBADMSG (done): wrong diff ids. */
int unpacker_new_merged(struct procs *ps, const char *path, const char *id,
			const struct unpacker_layer *l, size_t n, bool bottom, uint64_t reserve,
			unpacker_done_fn done, void *arg, struct unpacker **ret,
			struct err *err) must_check;
/* The disk that goes on top of those of an image (job/merge.h); fds: of these, lowest first,
 * borrowed. */
int unpacker_new_inherited(struct procs *ps, const char *path, const char *id, const int *fds,
			   size_t n, unpacker_done_fn done, void *arg, struct unpacker **ret,
			   struct err *err) must_check;
/* When done, with code < 0: `reserve` is why. */
bool unpacker_reserve_reached(const struct unpacker *u);
/* When done, with code == 0. */
const struct layer_facts *unpacker_facts(const struct unpacker *u);
uint32_t unpacker_entries(const struct unpacker *u);
/* The file it made. Owned by the unpacker, which removes it at its end if it is still there. */
const char *unpacker_path(const struct unpacker *u);
void unpacker_free(struct unpacker *u); /* kills the process; NULL is fine */

#endif
