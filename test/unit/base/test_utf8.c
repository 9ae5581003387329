#include "test/lib/unit.h"

#include "base/compiler.h"
#include "base/utf8.h"

static void lengths(void **state)
{
	static const struct {
		const char *s;
		size_t len;
	} t[] = {
		{ "", 1 },
		{ "a", 1 },
		{ "\x7f", 1 },
		{ "\xc2\x80", 2 },
		{ "\xdf\xbf", 2 },
		{ "\xe0\xa0\x80", 3 },
		{ "\xed\x9f\xbf", 3 },
		{ "\xee\x80\x80", 3 },
		{ "\xef\xbf\xbf", 3 },
		{ "\xf0\x90\x80\x80", 4 },
		{ "\xf4\x8f\xbf\xbf", 4 },
		/* A byte of the middle, overlong forms, surrogates, above U+10FFFF, cut short. */
		{ "\x80", 0 },
		{ "\xbf", 0 },
		{ "\xc0\x80", 0 },
		{ "\xc1\xbf", 0 },
		{ "\xe0\x9f\xbf", 0 },
		{ "\xed\xa0\x80", 0 },
		{ "\xf0\x8f\xbf\xbf", 0 },
		{ "\xf4\x90\x80\x80", 0 },
		{ "\xf5\x80\x80\x80", 0 },
		{ "\xff", 0 },
		{ "\xc3", 0 },
		{ "\xe2\x82", 0 },
		{ "\xe2\x82z", 0 },
		{ "\xf0\x9f\x98", 0 },
		{ "\xf0\x9f\x98\xc0", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_int_equal(utf8_len(t[i].s), t[i].len);
		assert_int_equal(utf8_valid(t[i].s), t[i].len > 0);
	}
}

/* Every character there is, in its one form. */
static void all_characters(void **state)
{
	char s[5];

	for (unsigned c = 1; c <= 0x10ffff; c++) {
		size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

		memset(s, 0, sizeof(s));
		s[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xff) | c >> 6 * (n - 1));
		for (size_t i = 1; i < n; i++)
			s[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
		assert_int_equal(utf8_len(s), c >= 0xd800 && c < 0xe000 ? 0 : n);
	}
}

static void whole_texts(void **state)
{
	char text[] =
		"a\xff"
		"\xc3\xa4"
		"\xe2\x82z\xc3";

	assert_true(utf8_valid("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"));
	assert_false(utf8_valid("a\xc3"));
	assert_false(utf8_valid("\xc3 b"));
	utf8_repair(text);
	assert_true(utf8_valid(text));
	assert_string_equal(text,
			    "a?"
			    "\xc3\xa4"
			    "??z?");
}

static void trimmed(const char *text, const char *want)
{
	char s[32];

	(void)snprintf(s, sizeof(s), "%s", text);
	utf8_trim(s);
	assert_string_equal(s, want);
}

static void cut_texts(void **state)
{
	trimmed("", "");
	trimmed("abc", "abc");
	trimmed("a\xc3\xa4", "a\xc3\xa4");
	trimmed("a\xc3", "a");
	trimmed("a\xe2\x82\xac", "a\xe2\x82\xac");
	trimmed("a\xe2\x82", "a");
	trimmed("a\xe2", "a");
	trimmed("a\xf0\x9f\x98\x80", "a\xf0\x9f\x98\x80");
	trimmed("a\xf0\x9f\x98", "a");
	trimmed("\xf0", "");
	/* None that was cut: left for utf8_repair. */
	trimmed("\x80\x80\x80\x80", "\x80\x80\x80\x80");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths),
		cmocka_unit_test(all_characters),
		cmocka_unit_test(whole_texts),
		cmocka_unit_test(cut_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
