/*
 * Blobs: what registries keep under a digest (layers as they travel, manifests, indexes,
 * configurations), kept for push, save and repair, and to resume a download after a crash. Inside
 * of image/, loop thread only.
 *
 * <dir>/ingest/sha256/<hex>       coming in; bytes are appended, nothing is synced
 * <dir>/blobs/sha256/<hex>       complete
 *
 * Becoming complete: sync of the file, rename, sync of the directory, row. So a file in blobs/ is
 * whole, even after a loss of power. A file in ingest/ can hold anything: a download that resumes
 * it hashes what is there first. The digest of a complete blob was checked by its writer (for
 * layers a confined process, which could lie); readers that pass it on check it again.
 */
#ifndef HUSK_IMAGE_STORE_BLOBS_H
#define HUSK_IMAGE_STORE_BLOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* An ingest file that nobody has opened for so long is removed: when the store opens, and by each
 * collection. */
#define INGEST_KEEP_S (24 * 3600)

struct store;
struct ingest;

/* ---- coming in ---- */

/*
 * The ingest file of `digest`, made when missing. It belongs to the caller until ingest_commit,
 * ingest_keep or ingest_drop. -EBUSY: another job of this process has it, or a worker that got its
 * descriptor from an earlier owner is still alive (ingest_wait.h). -EEXIST: the blob is complete
 * (blob_open).
 */
int ingest_open(struct store *s, const char *digest, struct ingest **ret,
		struct err *err) must_check;
/* O_RDWR | O_APPEND; borrowed. */
int ingest_fd(const struct ingest *i);
/* Bytes that were there when it was opened (0 after ingest_reset). */
uint64_t ingest_had(const struct ingest *i);
/* Throws the bytes away: they are not the beginning of the blob. */
int ingest_reset(struct ingest *i, struct err *err) must_check;
/*
 * All bytes are there and have the digest: it becomes a complete blob, and blob_open finds it from
 * now on. It is synced off the loop; if that fails, the blob is dropped, and fetched again when it
 * is needed. Frees the handle.
 */
void ingest_commit(struct ingest *i);
/* Gives it back; the bytes stay, for the next owner to resume. NULL is fine. */
void ingest_keep(struct ingest *i);
/* Gives it back and removes the bytes. NULL is fine. */
void ingest_drop(struct ingest *i);

/* ---- complete ---- */

/* *ret_fd: read-only, from the start. ret_size may be NULL. -ENOENT: there is none. */
int blob_open(struct store *s, const char *digest, int *ret_fd, uint64_t *ret_size,
	      struct err *err) must_check;
/* 1 when it is there, 0 when not. */
int blob_has(struct store *s, const char *digest, struct err *err) must_check;
/* Keeps a document (at most IMAGE_MAX_DOCUMENT bytes), synced off the loop like ingest_commit;
 * *ret_digest (may be NULL) is its name. There already = 0. */
int blob_put(struct store *s, const void *data, size_t len, char *ret_digest,
	     struct err *err) must_check;
/* Reads a whole document; NUL after the end. The caller frees. -ENOENT, -EFBIG, and -EBADMSG when
 * the bytes do not have the digest any more. */
int blob_read(struct store *s, const char *digest, char **ret, size_t *ret_len,
	      struct err *err) must_check;
/* Row, then file. Not there = 0. */
int blob_delete(struct store *s, const char *digest, struct err *err) must_check;

/* Digests of all blobs, or (id) of those that the image is made of. strv, the caller frees. */
int blobs_list(struct store *s, const char *id, char ***ret, struct err *err) must_check;

/* ---- the store's own ---- */

/* Has a job of this process the ingest file in its hands? */
bool ingest_is_open(const struct store *s, const char *digest);
/* A blob (NULL: any) that is becoming complete need not be kept for later pulls. */
void ingest_forget(struct store *s, const char *digest);
/* Removes ingest files that are not open and too old. */
int ingest_expire(struct store *s, struct err *err) must_check;
/* Removes all ingest files that are not open. */
int ingest_drop_unowned(struct store *s, struct err *err) must_check;
/* Allocated bytes of the ingest files that are open. */
uint64_t ingest_owned_bytes(const struct store *s);
/* Makes the directories, removes what dead processes left. */
int blobs_open(struct store *s, struct err *err) must_check;
void blobs_close(struct store *s);

#endif
