/* "sha256:<64 hex digits>": the only digests Husk takes. Leaf functions, any thread. */
#ifndef HUSK_IMAGE_DIGEST_H
#define HUSK_IMAGE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define DIGEST_LEN 71u /* without the NUL */

bool digest_valid(const char *s);
/* -EINVAL when it is not one. */
int digest_to_sha256(const char *s, uint8_t sha256[32]) must_check;
/* A UUID that follows from a digest (version 8: of one's own content). -EINVAL as above. */
int digest_to_uuid(const char *s, uint8_t uuid[16]) must_check;
void digest_from_sha256(const uint8_t sha256[32], char out[DIGEST_LEN + 1]);
/* Digest of bytes in memory. -ENOMEM. */
int digest_of(const void *data, size_t len, char out[DIGEST_LEN + 1]) must_check;

#endif
