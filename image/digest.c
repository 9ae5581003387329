#include "image/digest.h"

#include <errno.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/util.h"

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int digest_to_sha256(const char *s, uint8_t sha256[32])
{
	uint8_t out[32];

	if (!s || strnlen(s, DIGEST_LEN + 1) != DIGEST_LEN || !str_starts(s, "sha256:"))
		return -EINVAL;
	s += 7;
	for (int k = 0; k < 32; k++) {
		int hi = nibble(s[2 * k]), lo = nibble(s[2 * k + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		out[k] = (uint8_t)(hi << 4 | lo);
	}
	memcpy(sha256, out, sizeof(out));
	return 0;
}

int digest_to_uuid(const char *s, uint8_t uuid[16])
{
	uint8_t sha256[32];

	if (digest_to_sha256(s, sha256) < 0)
		return -EINVAL;
	memcpy(uuid, sha256, 16);
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	return 0;
}

bool digest_valid(const char *s)
{
	uint8_t sha256[32];

	return digest_to_sha256(s, sha256) == 0;
}

void digest_from_sha256(const uint8_t sha256[32], char out[DIGEST_LEN + 1])
{
	memcpy(out, "sha256:", 7);
	hex_encode(sha256, 32, out + 7);
}

int digest_of(const void *data, size_t len, char out[DIGEST_LEN + 1])
{
	uint8_t sha[32];

	if (!EVP_Digest(data, len, sha, NULL, EVP_sha256(), NULL))
		return -ENOMEM;
	digest_from_sha256(sha, out);
	return 0;
}
