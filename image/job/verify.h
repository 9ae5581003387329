/*
 * Verification: what is stored is read again by a confined process, and compared with its digest
 * (blobs) or its baseline (layers). The contract is that of image_verify (image.h). Loop thread
 * only.
 */
#ifndef HUSK_IMAGE_JOB_VERIFY_H
#define HUSK_IMAGE_JOB_VERIFY_H

#include "image/image.h"

struct jobs;

int verify_new(struct jobs *js, char *const *refs, image_verify_fn fn, image_verify_done_fn done,
	       void *arg, struct image_verify **ret, struct err *err) must_check;

#endif
