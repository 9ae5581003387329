#include "test/lib/aborts.h"

#include <errno.h>
#include <stdlib.h>

#include "base/waits.h"

static char calls[32];
static struct waits list;
static char a[] = "a", b[] = "b", c[] = "c", d[] = "d";

static int set_up(void **state)
{
	calls[0] = '\0';
	list = (struct waits){ 0 };
	return 0;
}

static void called(void *arg, int code, const struct err *err)
{
	size_t n = strlen(calls);

	assert_non_null(err);
	(void)snprintf(calls + n, sizeof(calls) - n, "%s%d%.1s", (const char *)arg, -code,
		       err->msg);
}

static void add(char *arg)
{
	assert_int_equal(waits_add(&list, called, arg), 0);
}

static void oldest_first(void **state)
{
	struct err err = { .msg = "!" };

	assert_true(waits_empty(&list));
	waits_run(&list, 0, NULL);
	add(a);
	assert_false(waits_empty(&list));
	add(b);
	add(c);
	waits_run(&list, -5, &err);
	assert_string_equal(calls, "a5!b5!c5!");
	assert_true(waits_empty(&list));
	waits_run(&list, 0, NULL);
	assert_string_equal(calls, "a5!b5!c5!");
}

static void removal(void **state)
{
	add(a);
	add(b);
	add(c);
	add(b);
	waits_remove(&list, b);
	waits_remove(&list, a);
	/* The last one goes, and another comes. */
	waits_remove(&list, b);
	add(d);
	waits_run(&list, 0, NULL);
	assert_string_equal(calls, "c0d0");
	/* The only one goes, and another comes. */
	add(a);
	waits_remove(&list, a);
	assert_true(waits_empty(&list));
	add(b);
	waits_run(&list, 0, NULL);
	assert_string_equal(calls, "c0d0b0");
}

static void pops(void **state)
{
	assert_null(waits_pop(&list));
	assert_int_equal(waits_add(&list, NULL, a), 0);
	assert_int_equal(waits_add(&list, NULL, b), 0);
	assert_int_equal(waits_add(&list, NULL, c), 0);
	assert_ptr_equal(waits_pop(&list), a);
	waits_remove(&list, b);
	assert_ptr_equal(waits_pop(&list), c);
	assert_null(waits_pop(&list));
	add(d);
	assert_ptr_equal(waits_pop(&list), d);
	assert_true(waits_empty(&list));
}

static void again(void *arg, int code, const struct err *err)
{
	called(arg, code, err);
	assert_int_equal(waits_add(&list, called, arg), 0);
}

static void added_meanwhile(void **state)
{
	assert_int_equal(waits_add(&list, again, a), 0);
	add(b);
	waits_run(&list, 0, NULL);
	assert_string_equal(calls, "a0b0");
	waits_run(&list, 0, NULL);
	assert_string_equal(calls, "a0b0a0");
}

static void free_owner(void *arg, int code, const struct err *err)
{
	free(arg);
}

static void owner_freed_by_a_callback(void **state)
{
	struct waits *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	assert_int_equal(waits_add(w, free_owner, w), 0);
	assert_int_equal(waits_add(w, called, b), 0);
	waits_run(w, 0, NULL);
	assert_string_equal(calls, "b0");
}

static void remove_b(void *arg)
{
	waits_remove(&list, b);
}

static void remove_what_is_not_there(void **state)
{
	assert_aborts(remove_b, NULL, "waits_remove");
	add(a);
	assert_aborts(remove_b, NULL, "waits_remove");
	waits_run(&list, 0, NULL);
}

#define T(f) cmocka_unit_test_setup(f, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(oldest_first),
		T(removal),
		T(pops),
		T(added_meanwhile),
		T(owner_freed_by_a_callback),
		T(remove_what_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
