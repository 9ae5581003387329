/*
 * What the store takes of the disk, and pruning. The contracts are those of image.h. Inside of
 * image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_USAGE_H
#define HUSK_IMAGE_STORE_USAGE_H

#include "base/compiler.h"
#include "base/err.h"
#include "image/image.h"

struct store;

int usage_get(struct store *s, struct image_use ret[IMAGE_USE_KINDS], struct err *err) must_check;
int usage_fs_info(struct store *s, struct image_fs_usage *ret, struct err *err) must_check;
int usage_prune(struct store *s, const struct image_prune_options *o, struct image_pruned *ret,
		struct err *err) must_check;

#endif
