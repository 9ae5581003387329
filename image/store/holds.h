/*
 * Holds: containers that use an image, each by its id. They are rows of the database and survive
 * huskd; what only a job of this process needs has a lease instead (gc.h). Inside of image/, loop
 * thread only. The contracts are those of image_hold, image_release, image_holders (image.h).
 */
#ifndef HUSK_IMAGE_STORE_HOLDS_H
#define HUSK_IMAGE_STORE_HOLDS_H

#include "base/compiler.h"
#include "base/err.h"

#define HOLDS_MAX_HOLDER 255u /* bytes of a holder's name */

struct store;

int holds_add(struct store *s, const char *id, const char *holder, struct err *err) must_check;
int holds_end(struct store *s, const char *holder, struct err *err) must_check;
int holds_list(struct store *s, char ***ret, struct err *err) must_check;

#endif
