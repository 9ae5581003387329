#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "image/credentials.h"
#include "image/hosts.h"
#include "image/proxy.h"
#include "test/lib/torture.h"

#define PEM "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"

static char dir[] = "/tmp/test_hosts.XXXXXX";

static void put(const char *name, const char *text)
{
	cleanup_free char *path = str_fmt("%s/%s", dir, name);
	cleanup_free char *parent = strndup(path, (size_t)(strrchr(path, '/') - path));

	assert_int_equal(mkdir_p(parent, 0700, NULL), 0);
	assert_int_equal(write_file_atomic(path, text, strlen(text), 0600, false, NULL), 0);
}

static struct hosts load(const char *host)
{
	struct hosts h = { 0 };
	struct err err = { 0 };

	if (hosts_load(dir, host, &h, &err) < 0)
		fail_msg("%s", err_text(&err));
	return h;
}

static void refused(const char *text, const char *why)
{
	struct hosts h;
	struct err err = { 0 };

	assert_int_equal(hosts_parse(text, strlen(text), "f", dir, "r.example", &h, &err), -EINVAL);
	if (!strstr(err_text(&err), why))
		fail_msg("\"%s\" is not about \"%s\"", err_text(&err), why);
}

static void defaults(void **state)
{
	static const char *const cases[][2] = {
		{ "docker.io", "https://registry-1.docker.io/v2" },
		{ "r.example:5000", "https://r.example:5000/v2" },
		{ "127.0.0.1:5000", "http://127.0.0.1:5000/v2" },
		{ "localhost", "http://localhost/v2" },
		{ "[::1]:5000", "http://[::1]:5000/v2" },
		{ "[2001:db8::1]", "https://[2001:db8::1]/v2" },
	};

	for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
		struct hosts h = { 0 };

		assert_int_equal(hosts_load(NULL, cases[k][0], &h, NULL), 0);
		assert_int_equal(h.n, 1);
		assert_string_equal(h.v[0].url, cases[k][1]);
		assert_int_equal(h.v[0].capabilities, HOST_ALL);
		assert_false(h.v[0].mirror || h.v[0].ns || h.v[0].skip_verify);
		hosts_fini(&h);
	}
}

static void everything(void **state)
{
	struct hosts h;

	put("ca.crt", PEM);
	put("r.example_5000_/own.crt", PEM);
	put("r.example_5000_/hosts.toml",
	    "server = \"https://other.example/\"\n"
	    "skip_verify = true\n"
	    "ca = \"../ca.crt\"\n"
	    "dial_timeout = \"3s\"\n" /* known to containerd, not to us */
	    "[host.\"m1.example:5000//a//b/\"]\n"
	    "  capabilities = [\"pull\"]\n"
	    "  ca = [\"own.crt\", \"../ca.crt\"]\n"
	    "  client = [[\"own.crt\", \"../ca.crt\"]]\n"
	    "  [host.\"m1.example:5000//a//b/\".header]\n"
	    "    X-One = \"1\"\n"
	    "    X-Two = [\"a\", \"b\"]\n"
	    "[host.\"http://m2.example/v2\"]\n"
	    "  override_path = true\n"
	    "  client = \"own.crt\"\n"
	    "[host.\"https://R.example:5000\"]\n");
	h = load("r.example:5000");
	assert_non_null(strstr(h.file, "/r.example_5000_/hosts.toml"));
	assert_int_equal(h.n, 4);
	assert_string_equal(h.v[0].url, "https://m1.example:5000/a/b/v2");
	assert_int_equal(h.v[0].capabilities, HOST_PULL);
	assert_true(h.v[0].mirror && h.v[0].ns);
	assert_int_equal(strlen(h.v[0].ca), 2 * (strlen(PEM) + 1));
	assert_non_null(h.v[0].cert);
	assert_non_null(h.v[0].key);
	assert_string_equal(h.v[0].headers[0], "X-One: 1");
	assert_string_equal(h.v[0].headers[2], "X-Two: b");
	assert_string_equal(h.v[1].url, "http://m2.example/v2");
	assert_non_null(h.v[1].cert);
	assert_null(h.v[1].key);
	assert_true(h.v[2].mirror && !h.v[2].ns);
	assert_string_equal(h.v[3].url, "https://other.example/v2");
	assert_true(!h.v[3].mirror && h.v[3].ns && h.v[3].skip_verify);
	assert_non_null(h.v[3].ca);
	hosts_fini(&h);
}

static void places(void **state)
{
	struct hosts h;

	put("_default/hosts.toml", "[host.\"https://all.example\"]\n");
	h = load("any.example");
	assert_int_equal(h.n, 2);
	assert_string_equal(h.v[0].url, "https://all.example/v2");
	assert_string_equal(h.v[1].url, "https://any.example/v2");
	hosts_fini(&h);
	/* by its own name, with a colon; the server that is a host, too, is there once */
	put("c.example:1/hosts.toml",
	    "server = \"https://c.example:1\"\n"
	    "[host.\"https://c.example:1\"]\n");
	h = load("c.example:1");
	assert_int_equal(h.n, 1);
	assert_false(h.v[0].mirror);
	hosts_fini(&h);
	/* Docker's way */
	put("127.0.0.1:7/a.crt", PEM);
	put("127.0.0.1:7/b.crt", PEM);
	put("127.0.0.1:7/c.cert", PEM);
	put("127.0.0.1:7/c.key", PEM);
	h = load("127.0.0.1:7");
	assert_int_equal(h.n, 1);
	assert_string_equal(h.v[0].url, "https://127.0.0.1:7/v2");
	assert_int_equal(strlen(h.v[0].ca), 2 * (strlen(PEM) + 1));
	assert_true(h.v[0].cert && h.v[0].key);
	hosts_fini(&h);
	put("docker.io/hosts.toml", "server = \"https://docker.io\"\n");
	h = load("docker.io");
	assert_string_equal(h.v[0].url, "https://registry-1.docker.io/v2");
	assert_false(h.v[0].ns);
	hosts_fini(&h);
}

static void mistakes(void **state)
{
	put("text", "no PEM");
	refused("server = 1", "f:1: server is no text");
	refused("host = 1", "host is no table");
	refused("[host]\nx = 1", "a host that is no table");
	refused("[host.\"ftp://x\"]", "bad address");
	refused("[host.\"https://\"]", "bad address");
	refused("[host.\"https://u:p@x\"]", "bad address");
	refused("[host.\"https://x/?q\"]", "bad address");
	refused("[host.\"https://x/../y\"]", "bad address");
	refused("[host.\"https://x y\"]", "bad address");
	refused("capabilities = \"pull\"", "no list");
	refused("capabilities = [\"run\"]", "capabilities are");
	refused("skip_verify = \"yes\"", "skip_verify is neither");
	refused("ca = \"missing\"", "missing");
	refused("ca = \"text\"", "no PEM file");
	refused("ca = 1", "no file name");
	refused("ca = [1]", "no file name");
	refused("client = [\"a\", \"b\"]", "more than one");
	refused("client = [[\"a\", \"b\", \"c\"]]", "no pair");
	refused("header = 1", "header is no table");
	refused("[header]\n\"a b\" = \"c\"", "no header");
	refused("[header]\na = \"b\\nc\"", "no header");
	refused("[host", "f:1");
}

static void too_many(void **state)
{
	char text[4096] = "";
	size_t n = 0;

	for (int k = 0; k <= HOSTS_MAX; k++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "[host.\"https://m%d\"]\n", k);
	refused(text, "more than");
}

/* ---- credentials ---- */

static struct hosts three(void)
{
	struct hosts h;

	put("l.example/hosts.toml",
	    "[host.\"https://m.example\"]\n[host.\"https://n.example:1\"]\n");
	h = load("l.example");
	assert_int_equal(h.n, 3);
	return h;
}

static void logins(void **state)
{
	static const struct {
		const char *server;
		bool m, n, own;
	} cases[] = {
		{ NULL, false, false, true },
		{ "", false, false, true },
		{ "l.example", false, false, true },
		{ "https://L.example/v1/", false, false, true },
		{ "https://m.example", true, false, false },
		{ "n.example:1", false, true, false },
		{ "n.example", false, false, false },
		{ "elsewhere.example", false, false, false },
	};

	for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
		struct image_auth a = { .username = "u", .server_address = cases[k].server };
		struct hosts h = three();
		struct credentials c;

		assert_int_equal(credentials_set(&c, &a, NULL), 0);
		credentials_mark(&c, "l.example", &h);
		assert_int_equal(h.v[0].login, cases[k].m);
		assert_int_equal(h.v[1].login, cases[k].n);
		assert_int_equal(h.v[2].login, cases[k].own);
		credentials_fini(&c);
		hosts_fini(&h);
	}
}

static void secrets(void **state)
{
	struct image_auth a = { .auth = "dXNlcjpwYTpzcw==" };
	struct credentials c;
	struct err err = { 0 };
	char *big;

	assert_int_equal(credentials_set(&c, &a, NULL), 0);
	assert_string_equal(c.user, "user");
	assert_string_equal(c.password, "pa:ss");
	credentials_fini(&c);
	a = (struct image_auth){ .username = "u", .auth = "dTpw", .identity_token = "refresh" };
	assert_int_equal(credentials_set(&c, &a, NULL), 0);
	assert_string_equal(c.identity_token, "refresh");
	assert_null(c.password);
	credentials_fini(&c);
	a.registry_token = "bearer";
	assert_int_equal(credentials_set(&c, &a, NULL), 0);
	assert_string_equal(c.token, "bearer");
	assert_null(c.identity_token);
	credentials_fini(&c);
	a = (struct image_auth){ .auth = "bm9jb2xvbg==" };
	assert_int_equal(credentials_set(&c, &a, &err), -EINVAL);
	credentials_fini(&c);
	a.auth = "%%%";
	assert_int_equal(credentials_set(&c, &a, &err), -EINVAL);
	credentials_fini(&c);
	big = malloc(CREDENTIALS_MAX + 2);
	memset(big, 'x', CREDENTIALS_MAX + 1);
	big[CREDENTIALS_MAX + 1] = 0;
	a = (struct image_auth){ .username = "u", .password = big };
	assert_int_equal(credentials_set(&c, &a, &err), -EINVAL);
	credentials_fini(&c);
	free(big);
	assert_int_equal(credentials_set(&c, NULL, NULL), 0);
	assert_null(c.user);
}

/* ---- every allocation fails once ---- */

static int all_of_it(void *arg)
{
	struct image_auth a = { .auth = "dXNlcjpwYTpzcw==",
				.server_address = "https://m1.example" };
	struct credentials c;
	struct hosts h = { 0 };
	struct host copy = { 0 };
	int r = hosts_load(dir, arg, &h, NULL);

	if (r >= 0)
		r = credentials_set(&c, &a, NULL);
	else
		return r;
	if (r >= 0)
		credentials_mark(&c, "r.example", &h);
	if (r >= 0)
		r = host_copy(&h.v[0], &copy);
	if (r >= 0 && !torture_failed())
		assert_string_equal(copy.url, h.v[0].url);
	host_fini(&copy);
	credentials_fini(&c);
	hosts_fini(&h);
	return r;
}

static void no_memory(void **state)
{
	assert_true(torture(all_of_it, (void *)"r.example:5000", true, 500) > 50);
	/* scandir's blocks are the C library's, and freed by us */
	assert_true(torture(all_of_it, (void *)"127.0.0.1:7", false, 500) > 10);
	assert_true(torture(all_of_it, (void *)"any.example", true, 500) > 10);
}

/* ---- proxies ---- */

static void proxies(void **state)
{
	static const struct {
		const char *no_proxy, *host;
		bool bypassed;
	} cases[] = {
		{ NULL, "r.example", false },
		{ "", "r.example", false },
		{ NULL, "localhost", true },
		{ NULL, "127.1.2.3", true },
		{ NULL, "::1", true },
		{ "*", "r.example", true },
		{ "r.example", "r.example", true },
		{ "R.Example", "r.example", true },
		{ "example", "r.example", true },
		{ "r.example", "xr.example", false },
		{ ".example", "r.example", true },
		{ ".example", "example", false },
		{ "*.example", "r.example", true },
		{ "a, b ,r.example:443", "r.example", true },
		{ "r.example:444", "r.example", false },
		{ "10.0.0.0/8", "10.200.1.1", true },
		{ "10.0.0.0/8", "11.0.0.1", false },
		{ "10.1.0.0/15", "10.0.0.1", true },
		{ "10.0.0.0/33", "10.0.0.1", false },
		{ "10.0.0.0/8", "r.example", false },
		{ "0.0.0.0/0", "2001:db8::1", false },
		{ "2001:db8::/32", "2001:db8::1", true },
		{ "[2001:db8::1]:443", "2001:db8::1", true },
		{ "2001:db8::1", "2001:db8:0::1", true },
		{ "[2001", "2001:db8::1", false },
		{ "192.0.2.1", "192.0.2.1", true },
		{ "/", "r.example", false },
		{ ",,  ,", "r.example", false },
	};

	for (size_t k = 0; k < ARRAY_SIZE(cases); k++)
		if (proxy_bypassed(cases[k].no_proxy, cases[k].host, 443) != cases[k].bypassed)
			fail_msg("NO_PROXY=%s and %s", cases[k].no_proxy, cases[k].host);
}

static int make_dir(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	return remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),  cmocka_unit_test(everything),
		cmocka_unit_test(mistakes),  cmocka_unit_test(too_many),
		cmocka_unit_test(logins),    cmocka_unit_test(places),
		cmocka_unit_test(secrets),   cmocka_unit_test(proxies),
		cmocka_unit_test(no_memory),
	};

	return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
