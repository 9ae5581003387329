/*
 * What huskd and its worker both refuse: of an image, and of an archive of images. Limits that one
 * module alone keeps stand in its own header.
 */
#ifndef HUSK_IMAGE_LIMITS_H
#define HUSK_IMAGE_LIMITS_H

#include "base/compiler.h"

#define IMAGE_MAX_LAYERS 128
#define IMAGE_MAX_DOCUMENT (4 * MIB) /* index, manifest, configuration */
#define IMAGE_MAX_LAYER (64 * GIB)   /* one layer, as a tar and as a file */

#define ARCHIVE_MAX_IMAGES 256u
#define ARCHIVE_MAX_NAMES 256u /* of one image */

#endif
