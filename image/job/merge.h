/*
 * Disks that are made of several layers. Images of many layers: neighbours form groups, and each
 * group becomes one disk, so that no image has more than MERGE_MAX_DISKS; the sizes of the blobs
 * alone decide which ones. And one disk on top of all, for an image with directories that a layer
 * does not name (image/README.md): it gives them the attributes of the layers below. Loop thread
 * only.
 */
#ifndef HUSK_IMAGE_JOB_MERGE_H
#define HUSK_IMAGE_JOB_MERGE_H

#include <stdbool.h>
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
/* The id of the disk on top of these, lowest first. -ENOMEM. */
int merge_top_id(const char *const *disks, size_t n, char ret[DIGEST_LEN + 1]) must_check;
/* Makes it. disks: ids of all disks of the image, lowest first; nothing is kept of them. */
int merge_top_start(struct jobs *js, const char *const *disks, size_t n, const char *id,
		    merge_done_fn done, void *arg, struct merge **ret, struct err *err) must_check;
/* When done: there is nothing to be had of lower layers, so there is no such disk. */
bool merge_is_empty(const struct merge *m);
void merge_free(struct merge *m); /* kills the process; NULL is fine */

#endif
