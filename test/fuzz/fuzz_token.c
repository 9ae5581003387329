/* What a token service answers. What is taken becomes a part of a header, for a bounded time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/registry/auth.h"
#include "test/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *value = NULL;
	uint64_t s = 0;
	int r = auth_token_parse(data, size, &value, &s);

	fuzz_assert(r == 0 || r == -EPROTO);
	fuzz_assert((r == 0) == (value != NULL));
	if (r < 0)
		return 0;
	fuzz_assert(s >= 1 && s <= AUTH_MAX_LIFE_S);
	fuzz_assert(*value);
	for (const char *c = value; *c; c++)
		fuzz_assert(*c > 0x20 && *c < 0x7f);
	free(value);
	return 0;
}
