/* The texts of a remote command: statuses for the client, sizes from it. */
#include "test/lib/unit.h"

#include <errno.h>

#include "base/util.h"
#include "cri/stream/remote.h"

static void statuses(void **state)
{
	static const struct {
		int code;
		bool plain;
		const char *text;
	} cases[] = {
		{ 0, false, "{\"metadata\":{},\"status\":\"Success\"}" },
		{ 3, false,
		  "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with "
		  "non-zero exit code: exit status 3\",\"reason\":\"NonZeroExitCode\",\"details\":"
		  "{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"3\"}]}}" },
		{ 0, true, "" },
		{ 137, true, "command terminated with non-zero exit code: exit status 137" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cleanup_free char *text = remote_exit_status(cases[i].code, cases[i].plain);

		assert_string_equal(text, cases[i].text);
	}
}

static void failures(void **state)
{
	cleanup_free char *plain = remote_failure("no such program", 0, true);
	cleanup_free char *json = remote_failure("no \"\xff\" here", 0, false);
	cleanup_free char *code = remote_failure("no such program", 127, false);

	assert_string_equal(plain,
			    "Internal error occurred: error executing command in container: "
			    "no such program");
	assert_text(json, "\"reason\":\"InternalError\"");
	assert_text(json, "\"code\":500");
	assert_null(strstr(json, "ExitCode"));
	assert_text(code, "\"reason\":\"InternalError\"");
	assert_text(code, "{\"reason\":\"ExitCode\",\"message\":\"127\"}");
	assert_text(json, "no \\\"?\\\" here"); /* bytes of a guest that are no UTF-8 */
}

static void channels(void **state)
{
	assert_int_equal(remote_channel("stdin"), CHANNEL_IN);
	assert_int_equal(remote_channel("error"), CHANNEL_STATUS);
	assert_int_equal(remote_channel("resize"), CHANNEL_RESIZE);
	assert_int_equal(remote_channel("Stdin"), CHANNELS);
	assert_int_equal(remote_channel(""), CHANNELS);
}

/* The sizes in a text, fed in pieces of `piece` bytes, as "WxH ..." into 256 bytes. */
static int sizes(const char *text, size_t piece, char *out)
{
	struct remote_sizes s = { 0 };
	size_t n = strlen(text), at = 0, len = 0;
	unsigned w, h;

	*out = '\0';
	while (at < n) {
		int r = remote_size(&s, (const uint8_t *)text + at, MIN_OF(piece, n - at), &w, &h);

		if (r < 0)
			return r;
		at += (size_t)r;
		if (w)
			len += (size_t)snprintf(out + len, 256 - len, "%ux%u ", w, h);
	}
	return 0;
}

static void resizing(void **state)
{
	static const char text[] =
		"{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":43}"
		"{\"Width\":0,\"Height\":24}{\"Width\":-1,\"Height\":24}"
		"{\"Width\":65536,\"Height\":24}nonsense}{\"Width\":\"80\"}"
		"{\"width\":1,\"height\":65535}";
	char out[256], *flood;

	for (size_t piece = 1; piece < sizeof(text); piece++) {
		assert_int_equal(sizes(text, piece, out), 0);
		assert_string_equal(out, "80x24 132x43 1x65535 ");
	}
	flood = test_malloc(REMOTE_RESIZE_MAX + 2);
	memset(flood, '{', REMOTE_RESIZE_MAX + 1);
	flood[REMOTE_RESIZE_MAX + 1] = '\0';
	assert_int_equal(sizes(flood, 7, out), -EMSGSIZE);
	test_free(flood);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statuses),
		cmocka_unit_test(failures),
		cmocka_unit_test(channels),
		cmocka_unit_test(resizing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
