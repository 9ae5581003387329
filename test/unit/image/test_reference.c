#include "test/lib/unit.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "image/address.h"
#include "image/reference.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void normalise(void **state)
{
	static const struct {
		const char *in, *want;
	} good[] = {
		{ "busybox", "docker.io/library/busybox:latest" },
		{ "busybox:1.36", "docker.io/library/busybox:1.36" },
		{ "user/app", "docker.io/user/app:latest" },
		{ "docker.io/busybox", "docker.io/library/busybox:latest" },
		{ "index.docker.io/library/busybox", "docker.io/library/busybox:latest" },
		{ "registry.example/a/b/c:t", "registry.example/a/b/c:t" },
		{ "registry.example:443/a", "registry.example:443/a:latest" },
		{ "localhost/a", "localhost/a:latest" },
		{ "localhost:5000/a:b", "localhost:5000/a:b" },
		{ "127.0.0.1:5000/library/busybox", "127.0.0.1:5000/library/busybox:latest" },
		{ "[::1]:5000/a", "[::1]:5000/a:latest" },
		{ "[fe80::1]/a", "[fe80::1]/a:latest" },
		{ "Registry/a", "Registry/a:latest" },
		{ "a@sha256:" HEX, "docker.io/library/a@sha256:" HEX },
		{ "a:tag@sha256:" HEX, "docker.io/library/a@sha256:" HEX },
		{ "a-b.c_d__e---f", "docker.io/library/a-b.c_d__e---f:latest" },
		{ "a:A_b.c-9", "docker.io/library/a:A_b.c-9" },
	};
	char out[REFERENCE_MAX + 1];
	struct reference r, again;

	for (size_t k = 0; k < ARRAY_SIZE(good); k++) {
		assert_int_equal(reference_parse(good[k].in, &r, NULL), 0);
		reference_canonical(&r, out);
		assert_string_equal(out, good[k].want);
		/* The normalised form is its own normalised form. */
		assert_int_equal(reference_parse(out, &again, NULL), 0);
		reference_canonical(&again, out);
		assert_string_equal(out, good[k].want);
	}
}

static void refuse(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		"@",
		"a:",
		"a@",
		"a@sha256:12",
		"a@md5:" HEX,
		"a@sha256:" HEX "0",
		"A",
		"lib/A",
		"a//b",
		"a/",
		"/a",
		"-a",
		"a-",
		"a..b",
		"a___b",
		"a b",
		"a:-t",
		"a:.t",
		"a:t t",
		"host.example:0/a",
		"host.example:99999/a",
		"host.example:5x/a",
		"-h.example/a",
		"h..example/a",
		"[::1/a",
		"[zz]/a",
		"[::1]x/a",
		"a:\xff",
		"h.example/",
		"a:b:c",
		"../etc",
		"a/../b",
		"http://h.example/a",
		X50 X50 X50 X50 X50 X50, /* 300 bytes */
		"a:" X50 X50 X50,	 /* tag of 150 */
	};
	struct reference r;
	struct err err = { 0 };

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		if (reference_parse(bad[k], &r, &err) != -EINVAL)
			fail_msg("accepted \"%s\"", bad[k]);
		assert_true(err.msg[0]);
	}
}

static void parts(void **state)
{
	char out[REFERENCE_MAX + 1];
	struct reference r;

	assert_int_equal(reference_parse("h.example:1/p/q:t@sha256:" HEX, &r, NULL), 0);
	assert_string_equal(r.host, "h.example:1");
	assert_string_equal(r.path, "p/q");
	assert_string_equal(r.tag, "t");
	assert_string_equal(r.digest, "sha256:" HEX);
	reference_name(&r, out);
	assert_string_equal(out, "h.example:1/p/q");
	reference_with_tag(&r, out);
	assert_string_equal(out, "h.example:1/p/q:t");
}

static void local_hosts(void **state)
{
	static const char *const here[] = { "localhost",   "localhost:5000", "a.localhost",
					    "127.0.0.1:1", "127.9.8.7",	     "[::1]:5000",
					    "[::1]" };
	static const char *const elsewhere[] = { "registry.example",  "10.0.0.1:5000",
						 "localhost.example", "[2001:db8::1]:1",
						 "127.example",	      "" };

	for (size_t k = 0; k < ARRAY_SIZE(here); k++)
		assert_true(host_is_loopback(here[k]));
	for (size_t k = 0; k < ARRAY_SIZE(elsewhere); k++)
		assert_false(host_is_loopback(elsewhere[k]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(normalise),
		cmocka_unit_test(refuse),
		cmocka_unit_test(parts),
		cmocka_unit_test(local_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
