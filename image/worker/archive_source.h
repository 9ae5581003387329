/*
 * Images in an archive: an OCI layout, or what `docker save` writes (manifest.json). Says which
 * images and names there are, and where the bytes of each digest are. The archive is not trusted:
 * whoever uses the bytes verifies them. Pure but for the caller's read function; one thread of the
 * confined process.
 */
#ifndef HUSK_IMAGE_WORKER_ARCHIVE_SOURCE_H
#define HUSK_IMAGE_WORKER_ARCHIVE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/digest.h"
#include "image/limits.h"
#include "image/worker/archive_index.h"

struct archive;

struct archive_image {
	char digest[DIGEST_LEN + 1]; /* of its manifest, or of an index */
	char **names;		     /* as they are written; may be empty */
};

/* -EPROTO: neither of the two, or damaged; -EBADMSG; -EFBIG; -ENOMEM. */
int archive_open(archive_read_fn read, void *arg, uint64_t size, struct archive **ret,
		 struct err *err) must_check;
void archive_close(struct archive *a); /* NULL is fine */
const struct archive_image *archive_images(const struct archive *a, size_t *ret_n);

/* Bytes of a blob: in memory (`bytes`), or in the tar. */
struct archive_blob {
	const void *bytes;
	uint64_t offset, size;
};
/* -ENOENT: it is not in the archive. */
int archive_blob(const struct archive *a, const char *digest, struct archive_blob *ret,
		 struct err *err) must_check;

#endif
