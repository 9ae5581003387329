/*
 * Images of the store: how they come in, how they are found, how they go. The public contracts are
 * those of image.h. Inside of image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_IMAGES_H
#define HUSK_IMAGE_STORE_IMAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/digest.h"
#include "image/reference.h"

struct image_info;
struct manifest;
struct store;

/* What a pull (a load) has found and verified. */
struct image_commit {
	const char *id;
	const void *config;
	size_t config_len;
	const struct reference *ref; /* NULL: it does not come by a name */
	char *const *names;    /* in full, without digest, that it gets as well; may be NULL */
	const char *digest;    /* of what the reference named: index or manifest */
	char *const *diff_ids; /* one for each layer */
	char *const *disks; /* ids of layer disks, in place of diff_ids where layers are merged */
	/* The image's manifest; NULL = not known. */
	const struct manifest *manifest;
	const char *manifest_digest;
	size_t manifest_size;
};

/* All layers must be there. The image is visible when this returns 0. */
int images_add(struct store *s, const struct image_commit *c, struct err *err) must_check;
/* The id that `ref` means, and (ret_name, may be NULL) the name in full when somebody gave it, else
 * "": an id, or a name@digest that follows from a tag.
 * -ENOENT: nothing has that name; -EINVAL: it cannot be a name of anything, or fits several ids. */
int images_resolve(struct store *s, const char *ref, char id[DIGEST_LEN + 1],
		   char ret_name[REFERENCE_MAX + 1], struct err *err) must_check;
int images_get(struct store *s, const char *ref, struct image_info **ret,
	       struct err *err) must_check;
int images_list(struct store *s, const char *ref, struct image_info ***ret, size_t *ret_n,
		struct err *err) must_check;
int images_remove(struct store *s, const char *ref, struct err *err) must_check;
int images_pin(struct store *s, const char *ref, bool pinned, struct err *err) must_check;
/* Ids of the images that a layer's disk or a blob is part of. strv, the caller frees. */
int images_with_layer(struct store *s, const char *diff_id, char ***ret,
		      struct err *err) must_check;
int images_with_blob(struct store *s, const char *digest, char ***ret, struct err *err) must_check;

/* ---- the store's own ---- */

/* 1 when there is such an image, also one that only its holders still see; 0; -errno. */
int images_exists(struct store *s, const char *id, struct err *err) must_check;
/* In a transaction; collects nothing. Held: it stays for its holders. */
int images_remove_rows(struct store *s, const char *id, struct err *err) must_check;

#endif
