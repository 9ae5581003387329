/*
 * Images as one tar, made while it is read: an OCI layout, or the same with the manifest.json that
 * `docker load` wants. Layers go out compressed, as the registry had them. Loop thread only.
 */
#ifndef HUSK_IMAGE_JOB_SAVE_H
#define HUSK_IMAGE_JOB_SAVE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "image/image.h"

struct store;

/* As image_save_open, whose handle it makes. */
int save_new(struct store *s, char *const *refs, size_t n, enum image_archive format,
	     struct image_save **ret, struct err *err) must_check;

#define ARCHIVE_BLOCK 512u

/* A header of a regular file, mode 0444, no time and no owner. `name` has less than 100 bytes. */
void archive_header(uint8_t out[ARCHIVE_BLOCK], const char *name, uint64_t size);

#endif
