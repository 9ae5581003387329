/* What an error code of image.h says about a registry: one table for retries, pulls and CRI.
 * Pure. */
#ifndef HUSK_IMAGE_FAILURE_H
#define HUSK_IMAGE_FAILURE_H

#include <stdbool.h>

/* Of a negative errno: the registry cannot be reached or fails itself, so that another try, or
 * another host, may help. */
bool failure_unavailable(int code);

#endif
