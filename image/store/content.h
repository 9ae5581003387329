/*
 * What an image is made of as registries have it: for push and save. Inside of image/, loop thread.
 */
#ifndef HUSK_IMAGE_STORE_CONTENT_H
#define HUSK_IMAGE_STORE_CONTENT_H

#include "image/digest.h"
#include "image/manifest.h"

struct store;
struct lease;

struct content {
	char id[DIGEST_LEN + 1]; /* of the image: digest of its configuration */
	char manifest_digest[DIGEST_LEN + 1];
	char *manifest_bytes; /* as it came */
	size_t manifest_len;
	struct manifest manifest; /* parsed: layers lowest first, configuration, media type */
	/* What the name stands for in the registry: an index, or the manifest. "" = unknown. */
	char target[DIGEST_LEN + 1];
	struct lease *lease; /* on all of it; more can be added */
};

/*
 * Of the image that `ref` means; of a name, the manifest that came with that name. Its blobs are
 * protected until content_free. Layers are opened with blob_open: -ENOENT for those that are not
 * kept (drop_blobs, prune). -ENOENT: no such image. -ENODATA: its manifest is not kept; the text
 * tells what to do.
 */
int content_open(struct store *s, const char *ref, struct content **ret,
		 struct err *err) must_check;
void content_free(struct content *c); /* NULL is fine */

#endif
