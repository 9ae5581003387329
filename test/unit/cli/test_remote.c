/* What the client of exec and attach reads: URLs, and how a command ended. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/remote.h"

static void good_url(const char *url, const char *host, const char *port, const char *path)
{
	cleanup_free char *h = NULL, *p = NULL;
	const char *rest;

	assert_int_equal(remote_parse_url(url, &h, &p, &rest, NULL), 0);
	assert_string_equal(h, host);
	assert_string_equal(p, port);
	assert_string_equal(rest, path);
}

static void urls(void **state)
{
	static const char *const bad[] = { "",
					   "https://127.0.0.1:1/x",
					   "http://127.0.0.1/x",
					   "http://127.0.0.1:1",
					   "http://[::1/x",
					   "http://[::1]/x",
					   "http://127.0.0.1:1/x y",
					   "http://127.0.0.1:1/x\r\nHost: y" };
	char *h, *p;
	const char *rest;

	good_url("http://127.0.0.1:8080/exec/abc", "127.0.0.1", "8080", "/exec/abc");
	good_url("http://[::1]:80/attach/x", "::1", "80", "/attach/x");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(remote_parse_url(bad[i], &h, &p, &rest, NULL), -EINVAL);
}

static int status(const char *text, int *code, struct err *err)
{
	*code = -1;
	*err = (struct err){ 0 };
	return remote_parse_status(text, strlen(text), code, err);
}

static void statuses(void **state)
{
	struct err err;
	int code;

	assert_int_equal(status("{\"status\":\"Success\"}", &code, &err), 0);
	assert_int_equal(code, 0);
	assert_int_equal(
		status("{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\",\"details\":"
		       "{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"137\"}]}}",
		       &code, &err),
		0);
	assert_int_equal(code, 137);
	/* It could not be started, with a code for that or without. */
	assert_int_equal(
		status("{\"status\":\"Failure\",\"reason\":\"InternalError\",\"message\":\"m\","
		       "\"details\":{\"causes\":[{\"message\":\"m\"},"
		       "{\"reason\":\"ExitCode\",\"message\":\"127\"}]}}",
		       &code, &err),
		-EIO);
	assert_int_equal(code, 127);
	assert_string_equal(err.msg, "m");
	assert_int_equal(status("{\"status\":\"Failure\",\"message\":\"m\"}", &code, &err), -EIO);
	assert_int_equal(code, -1);
	/* Nothing, nonsense, and a code that is none. */
	assert_int_equal(status("", &code, &err), -EPROTO);
	assert_int_equal(status("[]", &code, &err), -EPROTO);
	assert_int_equal(
		status("{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\",\"details\":"
		       "{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"256\"}]}}",
		       &code, &err),
		-EIO);
	assert_int_equal(code, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls),
		cmocka_unit_test(statuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
