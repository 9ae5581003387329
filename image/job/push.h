/*
 * A push, as a machine driven by one fetch process: the blobs, some at a time, then the manifest,
 * so that the name in the registry never stands for something that is not whole. The contract is
 * that of image_push (image.h). Loop thread only.
 */
#ifndef HUSK_IMAGE_JOB_PUSH_H
#define HUSK_IMAGE_JOB_PUSH_H

#include "image/image.h"

struct jobs;

int push_new(struct jobs *js, const char *ref, const struct image_auth *auth,
	     image_push_progress_fn progress, image_push_done_fn done, void *arg,
	     struct image_push **ret, struct err *err) must_check;

#endif
