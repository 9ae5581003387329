/* hosts.toml and the TOML below it: an administrator's file, but one that is read for every pull.
 */
#include <string.h>

#include "base/util.h"
#include "image/hosts.h"
#include "image/toml.h"
#include "test/fuzz/fuzz.h"

static void check(const struct toml *t, unsigned depth)
{
	fuzz_assert(depth < 1000);
	for (const struct toml *c = t->first; c; c = c->next) {
		fuzz_assert(t->kind == TOML_TABLE ? c->key != NULL : t->kind == TOML_ARRAY);
		fuzz_assert((c->kind == TOML_STRING) == (c->text != NULL));
		fuzz_assert(t->kind != TOML_TABLE || toml_get(t, c->key) == c);
		check(c, depth + 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct toml *t = NULL;
	struct hosts h;

	if (toml_parse((const char *)data, size, "fuzz", &t, NULL) == 0)
		check(t, 0);
	toml_free(t);
	/* Certificates are looked for where there are none. */
	if (hosts_parse((const char *)data, size, "fuzz", "/nonexistent", "r.example:5000", &h,
			NULL) == 0) {
		fuzz_assert(h.n >= 1 && h.n <= HOSTS_MAX);
		for (size_t k = 0; k < h.n; k++) {
			fuzz_assert(str_starts(h.v[k].url, "http"));
			fuzz_assert(!str_ends(h.v[k].url, "/"));
			fuzz_assert(h.v[k].capabilities && h.v[k].capabilities <= HOST_ALL);
		}
		hosts_fini(&h);
	}
	return 0;
}
