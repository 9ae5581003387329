/*
 * Images of many layers: neighbours form groups, and each group becomes one disk, so that no image
 * has more than MERGE_MAX_DISKS. The sizes of the blobs alone decide which ones. Loop thread only.
 */
#ifndef HUSK_IMAGE_JOB_MERGE_H
#define HUSK_IMAGE_JOB_MERGE_H

#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/digest.h"

#define MERGE_MAX_DISKS 16u

struct jobs;
struct manifest_layer;
struct merge;

/* Layers first .. first + n - 1 of an image, lowest first, are one disk; most groups have one
 * layer. */
struct layer_group {
	size_t first, n;
	/* One layer: its diff id. Several: SHA-256 over all that the disk depends on, which is the
	 * diff ids and whether layers lie below. */
	char id[DIGEST_LEN + 1];
};

/* Divides all layers, in order, into one group for each disk. -ENOMEM. */
int merge_plan(const struct manifest_layer *layers, char *const *diff_ids, size_t n,
	       struct layer_group groups[MERGE_MAX_DISKS], size_t *ret_n) must_check;

/* code == 0: the disk is in the store. May call merge_free. */
typedef void (*merge_done_fn)(void *arg, int code, const struct err *err);

/* Makes the disk of a group of several from their blobs, which must all be in the store. layers and
 * diff_ids are those of the whole image; nothing is kept of them. */
int merge_start(struct jobs *js, const struct layer_group *group,
		const struct manifest_layer *layers, char *const *diff_ids, merge_done_fn done,
		void *arg, struct merge **ret, struct err *err) must_check;
/* The file that is being made; borrowed. */
const char *merge_path(const struct merge *m);
void merge_free(struct merge *m); /* kills the process; NULL is fine */

#endif
