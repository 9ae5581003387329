/*
 * The writable disk of a container: a sparse ext4 template, made once per store, copied as it is by
 * the thread for files. Inside of image/, loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_SCRATCH_H
#define HUSK_IMAGE_STORE_SCRATCH_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/waits.h"

struct store;

/* When the store opens: the template, if it is not there. */
int scratch_prepare(struct store *s, struct err *err) must_check;
/* image_scratch_create */
int scratch_create(struct store *s, const char *path, wait_fn done, void *arg,
		   struct err *err) must_check;
/* image_discard */
void scratch_discard(struct store *s, const char *path);

#endif
