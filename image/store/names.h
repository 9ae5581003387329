/*
 * Names of images: those that users give and take away. The public contracts are those of
 * image_untag and image_tag (image.h). Inside of image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_NAMES_H
#define HUSK_IMAGE_STORE_NAMES_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct image_untagged;
struct store;

int names_untag(struct store *s, const char *ref, bool force, struct image_untagged *ret,
		struct err *err) must_check;
int names_tag(struct store *s, const char *ref, const char *name, char **ret_name,
	      struct err *err) must_check;

/* For pushes. `name` (host/path@digest) is known of the registry from now on: it has the image `id`
 * with the manifest `digest`. */
int names_add_pushed(struct store *s, const char *name, const char *id, const char *digest,
		     struct err *err) must_check;
/* Some names with a digest, and so from a registry, on `host` whose images have the layer blob
 * `digest`. strv, the caller frees. */
int names_with_blob(struct store *s, const char *host, const char *digest, char ***ret,
		    struct err *err) must_check;

#endif
