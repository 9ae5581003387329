#include "test/lib/aborts.h"

#include "base/check.h"

static int evaluated;

static bool holds(void)
{
	evaluated++;
	return true;
}

static void breaks(void *arg)
{
	const int *n = arg;

	check(*n == 1);
}

static void a_condition_that_holds(void **state)
{
	int one = 1;

	check(holds());
	assert_int_equal(evaluated, 1);
	breaks(&one);
	/* An expression: usable without braces. */
	if (one)
		check(one);
	else
		check(false);
}

static void a_broken_one(void **state)
{
	int two = 2;

	assert_aborts(breaks, &two, "check=\"*n == 1\"");
	assert_aborts(breaks, &two, "at=\"test_check.c:17 (breaks)\"");
	assert_aborts(breaks, &two, " error child: a bug in this program");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_condition_that_holds),
		cmocka_unit_test(a_broken_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
