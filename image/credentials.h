/* Credentials out of CRI's AuthConfig, checked, and which hosts may get them. Pure; any thread. */
#ifndef HUSK_IMAGE_CREDENTIALS_H
#define HUSK_IMAGE_CREDENTIALS_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/image.h"

#define CREDENTIALS_MAX (64 * KIB) /* each of the texts; tokens can be long */

struct hosts;

/* Strings are NULL when there are none. */
struct credentials {
	char *user, *password;
	char *token;	      /* a Bearer token to use as it is */
	char *identity_token; /* a refresh token for the token service */
	char *server; /* "registry.example:5000" that they are for; NULL = the image's own */
};

/* `a` may be NULL: none. -EINVAL: too long, or `auth` is not base64 of user:password. */
int credentials_set(struct credentials *c, const struct image_auth *a, struct err *err) must_check;
void credentials_fini(struct credentials *c); /* wipes them */
/*
 * Marks the hosts that may see them: the server of images of `host`, unless they are for another
 * one by name. A mirror gets what is for the image's registry only when it is named.
 */
void credentials_mark(const struct credentials *c, const char *host, struct hosts *hosts);

#endif
