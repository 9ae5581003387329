/* The reader of CRI logs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>

#include "cli/follow.h"

static int parse(const char *s, struct follow_line *l)
{
	return follow_parse(s, strlen(s), l);
}

static void test_full_line(void **state)
{
	struct follow_line l;

	assert_int_equal(parse("2026-11-21T10:00:00.123456789Z stdout F hello world", &l), 0);
	assert_false(l.is_stderr);
	assert_false(l.partial);
	assert_int_equal(l.len, 11);
	assert_memory_equal(l.content, "hello world", 11);
}

static void test_partial_stderr_empty(void **state)
{
	struct follow_line l;

	assert_int_equal(parse("t stderr P:x a", &l), 0);
	assert_true(l.is_stderr);
	assert_true(l.partial);
	assert_int_equal(parse("t stdout F ", &l), 0);
	assert_int_equal(l.len, 0);
}

static void test_refused(void **state)
{
	static const char *const bad[] = { "",
					   "t",
					   "t stdout",
					   "t stdout F",
					   "t stdxxx F a",
					   "t stdout X a",
					   " stdout F a",
					   "t stdout FX a" };
	struct follow_line l;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse(bad[i], &l), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_line),
		cmocka_unit_test(test_partial_stderr_empty),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
