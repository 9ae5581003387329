/*
 * Names of images, by the grammar that Docker made ("distribution reference"):
 *	[host[:port]/]path[:tag][@sha256:HEX]
 * normalised: no host = docker.io, one path component there = library/..., no tag and no digest =
 * latest. Pure functions on foreign text; any thread.
 */
#ifndef HUSK_IMAGE_REFERENCE_H
#define HUSK_IMAGE_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/digest.h"

#define REFERENCE_MAX_NAME 255u /* host and path */
#define REFERENCE_MAX_TAG 128u
/* A normalised name in any form; what is given is not longer either. */
#define REFERENCE_MAX (2 * REFERENCE_MAX_NAME + 2 + REFERENCE_MAX_TAG)

struct reference {
	char host[REFERENCE_MAX_NAME + 1]; /* "docker.io", "127.0.0.1:5000", "[::1]:5000" */
	char path[REFERENCE_MAX_NAME + 1]; /* "library/busybox" */
	char tag[REFERENCE_MAX_TAG + 1];   /* "" when only a digest was given */
	char digest[DIGEST_LEN + 1];	   /* "" when none was given */
};

/* -EINVAL with the reason. */
int reference_parse(const char *s, struct reference *ret, struct err *err) must_check;
/* In full ("busybox" -> "docker.io/library/busybox:latest"); the caller frees. -EINVAL. */
int reference_normalize(const char *s, char **ret, struct err *err) must_check;
/* host/path, host/path:tag, host/path@digest. */
void reference_name(const struct reference *r, char out[REFERENCE_MAX + 1]);
void reference_with_tag(const struct reference *r, char out[REFERENCE_MAX + 1]);
void reference_with_digest(const struct reference *r, const char *digest,
			   char out[REFERENCE_MAX + 1]);
/* The key in the store: with the digest when there is one, else with the tag. */
void reference_canonical(const struct reference *r, char out[REFERENCE_MAX + 1]);

#endif
