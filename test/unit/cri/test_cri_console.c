/* What huskd makes of a pod's console: kept, found, shown by its last lines. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "cri/runtime/console.h"
#include "test/lib/tmpdir.h"

static void put(const char *name, const char *text)
{
	cleanup_free char *path = in_tmpdir(name);
	struct err err = { 0 };

	assert_ok(write_file_atomic(path, text, strlen(text), 0600, false, &err), &err);
}

static bool there(const char *name)
{
	cleanup_free char *path = in_tmpdir(name);

	return access(path, F_OK) == 0;
}

static void test_keep(void **state)
{
	cleanup_free char *bundle = in_tmpdir("pod"), *sub = in_tmpdir("pod/sub");
	struct err err = { 0 };

	assert_true(console_alone(bundle)); /* no bundle, nothing to undo */
	assert_ok(console_keep(bundle, &err), &err);
	assert_ok(mkdir_p(sub, 0700, &err), &err);
	put("pod/console.log", "b\n");
	put("pod/console.log.1", "a\n");
	put("pod/console.log.2", "not ours\n");
	put("pod/husk.pids", "shim 1 1\n");
	put("pod/sub/file", "");
	assert_false(console_alone(bundle));
	assert_ok(console_keep(bundle, &err), &err);
	assert_true(there("pod/console.log") && there("pod/console.log.1"));
	assert_false(there("pod/console.log.2") || there("pod/husk.pids") || there("pod/sub"));
	assert_true(console_alone(bundle));
}

static void check_lines(const char *text, const char *want)
{
	cleanup_free char *bundle = in_tmpdir("pod"), *got = NULL;
	json_t *info = json_object();

	put("pod/console.log", text);
	console_describe(bundle, info);
	assert_true(str_ends(json_string_value(json_object_get(info, "consoleLog")),
			     "/pod/console.log"));
	got = json_dumps(json_object_get(info, "console"), JSON_COMPACT);
	assert_string_equal(got, want);
	json_decref(info);
}

static void test_describe(void **state)
{
	static char many[3 * CONSOLE_SHOWN];
	cleanup_free char *nothing = in_tmpdir("none");
	json_t *info = json_object();

	check_lines("", "[]");
	check_lines("one\n\ntwo", "[\"one\",\"two\"]");
	/* Of a long one the end, in whole lines. */
	memset(many, 'x', sizeof(many) - 1);
	many[sizeof(many) - 10] = '\n';
	check_lines(many, "[\"xxxxxxxx\"]");
	/* No file: no word about it. */
	console_describe(nothing, info);
	assert_int_equal(json_object_size(info), 0);
	json_decref(info);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keep),
		cmocka_unit_test(test_describe),
	};

	return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
