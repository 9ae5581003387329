/* What a registry writes into WWW-Authenticate: one header, then more of them, a line each. */
#include <string.h>

#include "base/util.h"
#include "image/registry/auth.h"
#include "test/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct auth_challenge c;
	const char *p = (const char *)data, *end = p + size;
	enum auth_scheme best = AUTH_NONE;

	memset(&c, 0, sizeof(c));
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((nl ? nl : end) - p);

		(void)!auth_challenge_parse(p, n, &c);
		fuzz_assert(c.scheme >= best);
		fuzz_assert(c.scheme != AUTH_BEARER || *c.realm);
		fuzz_assert(strlen(c.realm) <= AUTH_MAX_VALUE);
		/* They become parts of URLs and headers. */
		fuzz_assert(!strpbrk(c.realm, "\r\n") && !strpbrk(c.service, "\r\n") &&
			    !strpbrk(c.scope, "\r\n"));
		best = c.scheme;
		p += n + (nl != NULL);
	}
	return 0;
}
