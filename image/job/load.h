/*
 * Load: the archive is spooled into a file without a name, a confined process tells what is in it,
 * and each image is pulled out of it as from a registry: same checks, same unpacking. The contract
 * is that of image_load_new (image.h). Loop thread only.
 */
#ifndef HUSK_IMAGE_JOB_LOAD_H
#define HUSK_IMAGE_JOB_LOAD_H

#include "image/image.h"

struct jobs;

int load_new(struct jobs *js, const char *name, const struct image_load_ops *ops, void *arg,
	     struct image_load **ret, struct err *err) must_check;

#endif
