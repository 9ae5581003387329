/*
 * The engine behind image.h: one store, the jobs that run on it, and their worker processes. It is
 * the top of image/ (engine -> job -> store -> ext4's scratch disk); huskd sees image.h only. Loop
 * thread only.
 *
 * What takes a `struct image_store` is defined in engine.c, most of it in one line; what takes a
 * job's handle, an image_info or another value, in the file that makes it.
 */
#ifndef HUSK_IMAGE_ENGINE_H
#define HUSK_IMAGE_ENGINE_H

#include "image/image.h"
#include "image/job/jobs.h"

#define ENGINE_LAYERS_AT_ONCE 3u      /* of one pull, unless the options say otherwise */
#define ENGINE_LAYERS_AT_ONCE_MAX 16u /* whatever the options say */
#define ENGINE_LAYERS_IN_ALL 8u	      /* of all pulls, unless the options say otherwise */

struct image_store {
	struct store *store;
	struct jobs jobs;
};

#endif
