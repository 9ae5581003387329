/* Heads of requests: what is read, and what is refused. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/util.h"
#include "cri/stream/http.h"

static ssize_t parse(const char *text, struct http_head *h)
{
	return http_head_parse(text, strlen(text), h);
}

static void head(void **state)
{
	static const char text[] =
		"POST /exec/0123 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"
		"Connection: keep-alive, Upgrade\r\nUpgrade:SPDY/3.1\t \r\n"
		"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
		"x-stream-protocol-version: a,b , channel.k8s.io\r\n"
		"Empty:\r\n\r\n";
	cleanup_free char *more = str_fmt("%sbytes of the next protocol", text);
	struct http_head h;
	char word[32];
	size_t pos = 0;

	assert_int_equal(parse(more, &h), strlen(text));
	assert_string_equal(h.method, "POST");
	assert_string_equal(h.target, "/exec/0123");
	assert_int_equal(h.n_fields, 6);
	assert_string_equal(http_value(&h, "host"), "127.0.0.1:1");
	assert_string_equal(http_value(&h, "upgrade"), "SPDY/3.1");
	assert_string_equal(http_value(&h, "empty"), "");
	assert_null(http_value(&h, "hos"));
	assert_true(http_has_word(&h, "connection", "upgrade"));
	assert_false(http_has_word(&h, "connection", "keep"));
	for (const char *const *w =
		     (const char *const[]){ "v4.channel.k8s.io", "a", "b", "channel.k8s.io", NULL };
	     *w; w++) {
		assert_true(
			http_next_word(&h, "X-Stream-Protocol-Version", &pos, word, sizeof(word)));
		assert_string_equal(word, *w);
	}
	assert_false(http_next_word(&h, "X-Stream-Protocol-Version", &pos, word, sizeof(word)));
	/* One that does not fit is left out, not cut. */
	pos = 0;
	assert_true(http_next_word(&h, "X-Stream-Protocol-Version", &pos, word, 5));
	assert_string_equal(word, "a");
	assert_false(http_has_body(&h));
	http_head_fini(&h);
	/* Every part of it needs more. */
	for (size_t n = 0; n < strlen(text); n++)
		assert_int_equal(http_head_parse(text, n, &h), 0);
}

static void bodies(void **state)
{
	static const struct {
		const char *field;
		bool body;
	} cases[] = {
		{ "Content-Length: 0", false },
		{ "Content-Length: 1", true },
		{ "Content-Length: 00", true },
		{ "Content-Length: 0\r\ncontent-length: 5", true },
		{ "Transfer-Encoding: chunked", true },
		{ "Expect: 100-continue", true },
		{ "Accept: */*", false },
	};
	struct http_head h;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		cleanup_free char *text = str_fmt("GET / HTTP/1.1\r\n%s\r\n\r\n", cases[i].field);

		assert_true(parse(text, &h) > 0);
		assert_int_equal(http_has_body(&h), cases[i].body);
		http_head_fini(&h);
	}
}

static void refused(void **state)
{
	static const struct {
		const char *text;
		int code;
	} cases[] = {
		{ "\x16\x03\x01", -EPROTO }, /* TLS */
		{ "\r\n", -EPROTO },
		{ "GET /\r\n\r\n", -EPROTO },
		{ "GET  / HTTP/1.1\r\n\r\n", -EPROTO },
		{ "GET x HTTP/1.1\r\n\r\n", -EPROTO },
		{ "GET http://h/ HTTP/1.1\r\n\r\n", -EPROTO },
		{ "GET /\x7f HTTP/1.1\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.0\r\n\r\n", -EOPNOTSUPP },
		{ "GET / HTTP/1.1 x\r\n\r\n", -EOPNOTSUPP },
		{ "GET / SPDY\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.1\nHost: x\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.1\r\nHost x\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.1\r\nHost : x\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.1\r\n: x\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", -EPROTO }, /* a field of two lines */
		{ "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", -EPROTO },
		{ "GET / HTTP/1.1\r\nA: \x01\r\n\r\n", -EPROTO },
	};
	struct http_head h;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (parse(cases[i].text, &h) != cases[i].code)
			fail_msg("case %zu", i);
	assert_int_equal(http_head_parse("GET / HTTP/1.1\r\nA: \0\r\n\r\n", 24, &h), -EPROTO);
}

static void limits(void **state)
{
	struct http_head h;
	struct buf text;

	buf_init(&text, 2 * HTTP_HEAD_MAX);
	/* A head that does not end. */
	for (size_t i = 0; i < HTTP_HEAD_MAX; i++)
		assert_int_equal(buf_put(&text, "a", 1), 0);
	assert_int_equal(http_head_parse(buf_data(&text), HTTP_HEAD_MAX - 1, &h), 0);
	assert_int_equal(http_head_parse(buf_data(&text), HTTP_HEAD_MAX, &h), -EMSGSIZE);
	/* Fields. */
	for (size_t fields = HTTP_FIELDS_MAX; fields <= HTTP_FIELDS_MAX + 1; fields++) {
		buf_clear(&text);
		assert_int_equal(buf_printf(&text, "GET / HTTP/1.1\r\n"), 0);
		for (size_t i = 0; i < fields; i++)
			assert_int_equal(buf_printf(&text, "A: b\r\n"), 0);
		assert_int_equal(buf_printf(&text, "\r\n"), 0);
		if (fields == HTTP_FIELDS_MAX) {
			assert_int_equal(http_head_parse(buf_data(&text), buf_len(&text), &h),
					 buf_len(&text));
			http_head_fini(&h);
		} else {
			assert_int_equal(http_head_parse(buf_data(&text), buf_len(&text), &h),
					 -EMSGSIZE);
		}
	}
	/* The target. */
	buf_clear(&text);
	assert_int_equal(buf_printf(&text, "GET /"), 0);
	for (size_t i = 0; i < HTTP_TARGET_MAX; i++)
		assert_int_equal(buf_put(&text, "x", 1), 0);
	assert_int_equal(buf_printf(&text, " HTTP/1.1\r\n\r\n"), 0);
	assert_int_equal(http_head_parse(buf_data(&text), buf_len(&text), &h), -EMSGSIZE);
	buf_fini(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(head),
		cmocka_unit_test(bodies),
		cmocka_unit_test(refused),
		cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
