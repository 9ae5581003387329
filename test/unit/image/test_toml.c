#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "image/toml.h"

static struct toml *parsed(const char *text)
{
	struct toml *t = NULL;
	struct err err = { 0 };

	if (toml_parse(text, strlen(text), "f", &t, &err) < 0)
		fail_msg("%s", err_text(&err));
	return t;
}

static void refused(const char *text, const char *why)
{
	struct toml *t = NULL;
	struct err err = { 0 };

	assert_true(toml_parse(text, strlen(text), "f", &t, &err) < 0);
	assert_null(t);
	if (!strstr(err_text(&err), why))
		fail_msg("\"%s\" is not about \"%s\"", err_text(&err), why);
}

static const char *text_at(const struct toml *t, const char *key)
{
	const struct toml *v = toml_get(t, key);

	assert_non_null(v);
	assert_int_equal(v->kind, TOML_STRING);
	return v->text;
}

static void values(void **state)
{
	cleanup_toml struct toml *t =
		parsed("# all kinds\n"
		       "a = 1\r\n"
		       "\tb=-17 # comment\n"
		       "hex = 0xFF_ff\noct = 0o17\nbin = 0b101\n"
		       "big = 9_223_372_036_854_775_807\n"
		       "f = 1.5e3\ng = -0.25\n"
		       "yes = true\nno = false\n"
		       "\"quoted key\" = 'x'\n'' = \"empty\"\n"
		       "list = [ 1, 'two', # three\n [3], ]\n"
		       "none = []");

	assert_int_equal(toml_get(t, "a")->integer, 1);
	assert_int_equal(toml_get(t, "b")->integer, -17);
	assert_int_equal(toml_get(t, "b")->line, 3);
	assert_int_equal(toml_get(t, "hex")->integer, 0xffff);
	assert_int_equal(toml_get(t, "oct")->integer, 15);
	assert_int_equal(toml_get(t, "bin")->integer, 5);
	assert_true(toml_get(t, "big")->integer == INT64_MAX);
	assert_true(toml_get(t, "f")->number == 1500);
	assert_true(toml_get(t, "g")->number == -0.25);
	assert_true(toml_get(t, "yes")->truth);
	assert_false(toml_get(t, "no")->truth);
	assert_string_equal(text_at(t, "quoted key"), "x");
	assert_string_equal(text_at(t, ""), "empty");
	assert_null(toml_get(t, "list")->first->key);
	assert_string_equal(toml_get(t, "list")->first->next->text, "two");
	assert_int_equal(toml_get(t, "list")->last->first->integer, 3);
	assert_null(toml_get(t, "none")->first);
	assert_null(toml_get(t, "missing"));
	assert_null(toml_get(toml_get(t, "a"), "x"));
}

static void strings(void **state)
{
	cleanup_toml struct toml *t =
		parsed("a = \"tab\\t quote\\\" \\u00e9 \\U0001F600\"\n"
		       "b = 'C:\\n'\n"
		       "c = \"\"\"\none\ntwo \\\n   \t\n  three\"\"\"\n"
		       "d = '''\n'a' ''b'''''\n"
		       "e = \"\"\"\"quoted\"\"\"\"\n"
		       "f = \"\"\n");

	assert_string_equal(text_at(t, "a"), "tab\t quote\" \xc3\xa9 \xf0\x9f\x98\x80");
	assert_string_equal(text_at(t, "b"), "C:\\n");
	assert_string_equal(text_at(t, "c"), "one\ntwo three");
	assert_string_equal(text_at(t, "d"), "'a' ''b''");
	assert_string_equal(text_at(t, "e"), "\"quoted\"");
	assert_string_equal(text_at(t, "f"), "");
}

static void tables(void **state)
{
	cleanup_toml struct toml *t =
		parsed("server = \"s\"\n"
		       "[host.\"https://b.example\"]\nca = 'x'\n"
		       "[host.\"https://a.example\"]\n"
		       "[host.\"https://b.example\".header]\nx-y = ['1', '2']\n"
		       "[d]\na.b.c = 1\na.b.d = 2\n"
		       "e = { x = 1, y.z = [ { w = 2 } ] }\n"
		       "[[arr]]\nn = 1\n[[arr]]\nn = 2\n[arr.sub]\nm = 3\n");
	const struct toml *host = toml_get(t, "host"), *d = toml_get(t, "d");

	/* in the order of the file */
	assert_string_equal(host->first->key, "https://b.example");
	assert_string_equal(host->last->key, "https://a.example");
	assert_string_equal(toml_get(toml_get(host->first, "header"), "x-y")->last->text, "2");
	assert_int_equal(toml_get(toml_get(toml_get(d, "a"), "b"), "d")->integer, 2);
	assert_int_equal(
		toml_get(toml_get(toml_get(toml_get(d, "e"), "y"), "z")->first, "w")->integer, 2);
	assert_int_equal(toml_get(toml_get(t, "arr")->first, "n")->integer, 1);
	assert_int_equal(toml_get(toml_get(toml_get(t, "arr")->last, "sub"), "m")->integer, 3);
}

static void bad(void **state)
{
	refused("a", "f:1: expected \"=\"");
	refused("a = 1\n\nb = ", "f:3: expected a value");
	refused("a = 1 b = 2", "something after");
	refused("a = 1\na = 2", "f:2: this key is there already");
	refused("[t]\n[t]", "defined already");
	refused("[t\n", "without its end");
	refused("[t]\na = 1\n[t.a]", "defined already");
	refused("[t]\na = 1\n[t.a.b]", "defined already");
	refused("t = {}\n[t.a]", "defined already");
	refused("[t.a]\n[t]\na.b = 1", "defined already");
	refused("a = [1]\n[[a]]", "defined already");
	refused("a = \"x\ny\"", "without its end");
	refused("a = '''x", "without its end");
	refused("a = \"\\x\"", "bad escape");
	refused("a = \"\\ud800\"", "no character");
	refused("a = \"\\u0000\"", "no character");
	refused("a = \"\\u12\"", "bad escape");
	refused("a = \"\x01\"", "control character");
	refused("# \x01", "control character");
	refused("a = 01", "leading zero");
	refused("a = 1__0", "bad number");
	refused("a = _1", "bad number");
	refused("a = 1.", "bad number");
	refused("a = 0x", "bad number");
	refused("a = 9223372036854775808", "bad number");
	refused("a = 1979-05-27", "dates");
	refused("a = 07:32:00", "dates");
	refused("a = inf", "expected a value");
	refused("a = truex", "expected a value");
	refused("a = [1 2]", "expected \",\"");
	refused("a = {x = 1", "expected \",\"");
	refused(" = 1", "expected a key");
	refused("a = [[[[[[[[[[[[[[[[[[[[[[1", "too deep");
	refused("a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a = 1", "too deep");
}

static void many(void **state)
{
	struct toml *t = NULL;
	size_t n = TOML_MAX_VALUES + 10;
	cleanup_free char *text = malloc(2 * n + 10);
	struct err err = { 0 };

	memcpy(text, "a = [", 5);
	for (size_t k = 0; k < n; k++)
		memcpy(text + 5 + 2 * k, "1,", 2);
	assert_int_equal(toml_parse(text, 5 + 2 * n, "f", &t, &err), -EFBIG);
	/* Bytes without a NUL, NULs in the middle. */
	assert_true(toml_parse("a=1\0b", 5, "f", &t, &err) < 0);
	assert_int_equal(toml_parse("a = 12", 5, "f", &t, NULL), 0);
	assert_int_equal(toml_get(t, "a")->integer, 1);
	toml_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values), cmocka_unit_test(strings), cmocka_unit_test(tables),
		cmocka_unit_test(bad),	  cmocka_unit_test(many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
