#include "test/lib/unit.h"

#include <errno.h>

#include "base/err.h"
#include "base/utf8.h"

static void set_and_text(void **state)
{
	struct err e = { 0 };

	assert_string_equal(err_text(&e), "no error");
	assert_int_equal(err_set(&e, -ENOENT, "pod %d", 7), -ENOENT);
	assert_int_equal(e.code, -ENOENT);
	assert_string_equal(err_text(&e), "pod 7");
	assert_int_equal(err_errno(&e, -EACCES, "open %s", "/x"), -EACCES);
	assert_string_equal(err_text(&e), "open /x: Permission denied");
	e = (struct err){ .code = -ENOENT };
	assert_string_equal(err_text(&e), "No such file or directory");
}

static void wrap(void **state)
{
	struct err e = { 0 };

	(void)err_set(&e, -ECONNREFUSED, "connect x.sock");
	assert_int_equal(err_wrap(&e, -EIO, "stop pod %s", "4f2a"), -EIO);
	assert_int_equal(e.code, -EIO);
	assert_string_equal(err_text(&e), "stop pod 4f2a: connect x.sock");
	/* What failed inside gave no text. */
	e = (struct err){ 0 };
	(void)err_wrap(&e, -ENOENT, "stop");
	assert_string_equal(err_text(&e), "stop: No such file or directory");
}

static void out_of_memory(void **state)
{
	struct err e = { 0 };

	assert_int_equal(err_nomem(&e), -ENOMEM);
	assert_int_equal(e.code, -ENOMEM);
	assert_string_equal(err_text(&e), "out of memory");
	assert_int_equal(err_nomem(NULL), -ENOMEM);
}

static void without_object(void **state)
{
	assert_int_equal(err_set(NULL, -1, "x"), -1);
	assert_int_equal(err_errno(NULL, -2, "x"), -2);
	assert_int_equal(err_wrap(NULL, -3, "x"), -3);
}

static void long_texts_are_cut(void **state)
{
	struct err e = { 0 };
	char big[2000];

	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	(void)err_set(&e, -EIO, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	(void)err_wrap(&e, -EIO, "outer");
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	assert_int_equal(strncmp(e.msg, "outer: aaa", 10), 0);
	(void)err_errno(&e, -EIO, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
	(void)err_wrap(&e, -EIO, "%s", big);
	assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
}

/* A cut takes no half of a character along. */
static void cut_at_a_character(void **state)
{
	struct err e = { 0 };
	char big[2000];

	for (size_t shift = 0; shift < 3; shift++) {
		memset(big, 'a', shift);
		for (size_t i = shift; i + 3 < sizeof(big); i += 3)
			(void)snprintf(big + i, 4, "\xe2\x82\xac");
		(void)err_set(&e, -EIO, "%s", big);
		assert_true(utf8_valid(e.msg));
		(void)err_wrap(&e, -EIO, "%s", "outer");
		assert_true(utf8_valid(e.msg));
	}
}

static void text_of_itself(void **state)
{
	struct err e = { 0 };

	(void)err_set(&e, -EIO, "inner");
	(void)err_set(&e, -EIO, "a longer outer text, then %s", err_text(&e));
	assert_string_equal(err_text(&e), "a longer outer text, then inner");
	(void)err_wrap(&e, -EIO, "%s again", e.msg);
	assert_text(err_text(&e), "inner again: a longer outer text");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_and_text),	      cmocka_unit_test(wrap),
		cmocka_unit_test(without_object),     cmocka_unit_test(long_texts_are_cut),
		cmocka_unit_test(cut_at_a_character), cmocka_unit_test(text_of_itself),
		cmocka_unit_test(out_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
