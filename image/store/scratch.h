/*
 * The writable disk of a container: a sparse ext4 template, made once per store, copied as it is.
 * Inside of image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_SCRATCH_H
#define HUSK_IMAGE_STORE_SCRATCH_H

#include "base/compiler.h"
#include "base/err.h"

struct store;

/* When the store opens: the template, if it is not there. */
int scratch_prepare(struct store *s, struct err *err) must_check;
/* Makes `path` (must not exist) a disk of IMAGE_SCRATCH_SIZE. About a millisecond. */
int scratch_create(struct store *s, const char *path, struct err *err) must_check;

#endif
