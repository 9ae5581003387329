/*
 * The disks of layers, <dir>/layers/sha256/<hex>.ext4, by diff id (or by a digest over several diff
 * ids, where layers are merged). Inside of image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_LAYERS_H
#define HUSK_IMAGE_STORE_LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/digest.h"

struct store;

/* What the layers above must know of one: directories that it has and does not name, without the
 * root, and whether it names that, and with other attributes than 0755 root:root. */
struct layer_facts {
	uint32_t implied;
	bool root_named, root_unusual;
};

/* 1 when the layer is there and not known to be damaged, 0 when not. `upper`: it is wanted on top
 * of others; then one of a version that kept no facts is not good enough: it is made anew. */
int layers_has(struct store *s, const char *diff_id, bool upper, struct err *err) must_check;
/* A synced file at `tmp` becomes the layer, also in place of another one. On failure the file is
 * still at `tmp` or gone. */
int layers_add(struct store *s, const char *diff_id, const char *tmp, const struct layer_facts *f,
	       struct err *err) must_check;
/* Do these disks, lowest first, need one on top that gives directories the attributes of lower
 * layers (job/merge.h)? 1, 0; -errno. */
int layers_inherit(struct store *s, const char *const *disks, size_t n, struct err *err) must_check;
/* *ret_fd: read-only, from the start. */
int layers_open(struct store *s, const char *diff_id, int *ret_fd, struct err *err) must_check;
/* Paths of the disks of the image `id`, lowest first (strv, the caller frees). -ENOENT. */
int layers_paths(struct store *s, const char *id, char ***ret, struct err *err) must_check;
/* Diff ids of the disks of the image `id` (lowest first), or (NULL) of all there are. strv. */
int layers_list(struct store *s, const char *id, char ***ret, struct err *err) must_check;

/*
 * The baseline of a layer is the digest of its file as it was first read, soon after it came. The
 * file has no checksum of its own: later readings are compared with this.
 */
/* "" = it was never read. */
int layers_baseline(struct store *s, const char *diff_id, char ret[DIGEST_LEN + 1],
		    struct err *err) must_check;
/* Does nothing when there is one. */
int layers_set_baseline(struct store *s, const char *diff_id, const char *baseline,
			struct err *err) must_check;
/* One of those that were never read. -ENOENT: there is none. */
int layers_without_baseline(struct store *s, char ret_diff_id[DIGEST_LEN + 1],
			    struct err *err) must_check;
/* It counts as missing from now on, and its images are shown as damaged. */
int layers_mark_damaged(struct store *s, const char *diff_id, struct err *err) must_check;

/* ---- the store's own ---- */

/* Rows without a file, when the store opens; the images that cannot do without go along. */
int layers_drop_rows(struct store *s, struct err *err) must_check;
/* Files without a row, when the store opens. */
int layers_remove_strays(struct store *s, struct err *err) must_check;
/* Row, then file. */
int layers_delete(struct store *s, const char *diff_id, struct err *err) must_check;

#endif
