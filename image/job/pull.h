/*
 * A pull, as a machine driven by its children: *  MANIFEST        what the reference names: an
 * index or a manifest *      PLATFORM        the manifest that the index has for us (left out
 * without an index) *    CONFIG          the configuration, which is the image's identity and has
 * the diff ids * LAYERS          each layer: shared when it is there; else, one of all pulls
 * fetches and *                       unpacks it. Layers that are to be one disk (merge.h) are
 * fetched first, and *                   unpacked together
 *
 * Who verifies what: huskd hashes the documents (digest of the reference -> manifest ->
 * configuration -> diff ids). The fetch process hashes each blob. The decoder hashes each tar, and
 * huskd compares with the diff id. A layer gets its name only when all agree, so a process that
 * lies can spoil but not forge.
 *
 * The contract is that of image_pull (image.h). Loop thread only. Files: pull.c (its life, the
 * documents), pull_layers.c (one layer), pull_groups.c (several that become one disk), pull_room.c
 * (is there room).
 */
#ifndef HUSK_IMAGE_JOB_PULL_H
#define HUSK_IMAGE_JOB_PULL_H

#include "image/image.h"

struct jobs;

int pull_new(struct jobs *js, const char *ref, const struct image_auth *auth,
	     image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
	     struct err *err) must_check;
/*
 * The same out of an archive (a descriptor, borrowed), of the image whose manifest or index has
 * this digest. names: that it gets, in full, without digest; a vector with NULL at its end, which
 * is borrowed as long as the pull runs.
 */
int pull_archive(struct jobs *js, int archive_fd, const char *digest, char *const *names,
		 image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
		 struct err *err) must_check;

#endif
