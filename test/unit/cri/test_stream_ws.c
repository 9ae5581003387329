/* WebSocket with Kubernetes' channels: both kinds of text, pieces, ends, what is refused. */
#include "test/lib/unit.h"

#include <errno.h>

#include "base/util.h"
#include "cri/stream/ws.h"

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, FIN = 0x80, UNMASKED = 0x100 };

static struct {
	struct buf out;
	struct ws *ws;
	struct buf in; /* written by the client */
	char events[1024];
	size_t data;
} g;

static int ws_test_data(void *arg, unsigned channel, const uint8_t *data, size_t n)
{
	size_t len = strlen(g.events);

	g.data += n;
	if (n < 64)
		(void)snprintf(g.events + len, sizeof(g.events) - len, "%u:%.*s ", channel, (int)n,
			       (const char *)data);
	return n == 6 && memcmp(data, "broken", 6) == 0 ? -EIO : 0;
}

static int ws_test_end(void *arg, unsigned channel)
{
	size_t len = strlen(g.events);

	(void)snprintf(g.events + len, sizeof(g.events) - len, "end%u ", channel);
	return 0;
}

static void ws_test_closed(void *arg)
{
	size_t len = strlen(g.events);

	(void)snprintf(g.events + len, sizeof(g.events) - len, "closed ");
}

static void begin(bool base64, bool v5)
{
	static const struct ws_ops ops = { ws_test_data, ws_test_end, ws_test_closed };

	memset(&g, 0, sizeof(g));
	buf_init(&g.out, 1 * MIB);
	buf_init(&g.in, 1 * MIB);
	assert_int_equal(ws_new((struct ws_dialect){ base64, v5 }, &g.out, &ops, NULL, &g.ws), 0);
}

static void end(void)
{
	ws_free(g.ws);
	buf_fini(&g.out);
	buf_fini(&g.in);
}

/* A frame of the client, with a mask. */
static void put(unsigned head, const void *payload, size_t n)
{
	static const uint8_t mask[4] = { 0x11, 0x22, 0x33, 0x44 };
	uint8_t header[8] = { (uint8_t)head, (uint8_t)(n < 126 ? n : 126), (uint8_t)(n >> 8),
			      (uint8_t)n };
	size_t len = n < 126 ? 2 : 4;
	uint8_t *p;

	if (!(head & UNMASKED)) {
		header[1] |= 0x80;
		memcpy(header + len, mask, 4);
		len += 4;
	}
	assert_int_equal(buf_put(&g.in, header, len), 0);
	assert_int_equal(buf_reserve(&g.in, n + 1, &p), 0);
	for (size_t i = 0; i < n; i++)
		p[i] = ((const uint8_t *)payload)[i] ^ (head & UNMASKED ? 0 : mask[i % 4]);
	buf_commit(&g.in, n);
}

static int feed(void)
{
	int r = ws_feed(g.ws, buf_data(&g.in), buf_len(&g.in));

	buf_clear(&g.in);
	return r;
}

static void assert_out(const void *bytes, size_t n)
{
	assert_int_equal(buf_len(&g.out), n);
	assert_memory_equal(buf_data(&g.out), bytes, n);
	buf_clear(&g.out);
}

static void talk(void)
{
	put(BINARY | FIN, "\0hello", 6);
	put(TEXT, "\4{", 2); /* of no other meaning */
	put(PING | FIN, "p", 1);
	put(FIN, "}", 1);
	put(BINARY | FIN, "\0", 1);
	put(BINARY | FIN, "", 0);
	put(BINARY | FIN, "\7x", 2);
	put(BINARY | FIN, "\xff\0", 2);
}

static void binary(void **state)
{
	begin(false, true);
	talk();
	assert_int_equal(feed(), 0);
	assert_string_equal(g.events, "0:hello 4:{ 4:} 7:x end0 ");
	assert_out("\x8a\1p", 3);
	end();
	/* Byte by byte nothing is lost. In v4 channel 255 is one as any other. */
	begin(false, false);
	talk();
	for (; buf_len(&g.in); buf_consume(&g.in, 1))
		assert_int_equal(ws_feed(g.ws, buf_data(&g.in), 1), 0);
	assert_int_equal(g.data, 5 + 2 + 1 + 1);
	assert_text(g.events, "255:");
	end();
}

static void sending(void **state)
{
	uint8_t big[70000] = { 0 };

	begin(false, true);
	assert_int_equal(ws_send(g.ws, 1, NULL, 0), 0);
	assert_out("\x82\1\1", 3);
	assert_int_equal(ws_send(g.ws, 2, (const uint8_t *)"ab", 2), 0);
	assert_out("\x82\3\2ab", 5);
	assert_int_equal(ws_send(g.ws, 1, big, sizeof(big)), 0);
	assert_int_equal(buf_len(&g.out), 10 + 1 + sizeof(big));
	buf_clear(&g.out);
	assert_int_equal(ws_close(g.ws, WS_CLOSE_NORMAL), 0);
	assert_out("\x88\2\x03\xe8", 4);
	assert_int_equal(ws_close(g.ws, WS_CLOSE_NORMAL), 0);
	assert_int_equal(ws_send(g.ws, 1, (const uint8_t *)"late", 4), -EPIPE);
	assert_out("", 0);
	end();
	begin(true, false);
	assert_int_equal(ws_send(g.ws, 1, (const uint8_t *)"ab", 2), 0);
	assert_out("\x81\0051YWI=", 7);
	assert_int_equal(ws_send(g.ws, 3, NULL, 0), 0);
	assert_out("\x81\0013", 3);
	end();
}

static void base64(void **state)
{
	begin(true, true);
	put(TEXT | FIN, "0aGVsbG8=", 9);
	put(TEXT | FIN, "0YWI=", 5);
	put(TEXT | FIN, "0YQ==", 5);
	put(TEXT | FIN, "0", 1);
	put(TEXT | FIN, "255", 3);
	assert_int_equal(feed(), -EPROTO); /* "55" is no quad */
	assert_string_equal(g.events, "0:hello 0:ab 0:a ");
	end();
	/* In pieces. */
	begin(true, true);
	put(TEXT, "0aG", 3);
	put(0, "Vsb", 3);
	put(FIN, "G8=", 3);
	assert_int_equal(feed(), 0);
	assert_string_equal(g.events, "0:hel 0:lo ");
	end();
	for (int i = 0; i < 5; i++) {
		static const char *const bad[] = { "0YQ==YQ==", "0Y=Q=", "0YW I",
						   "xYWI=", "0YW-_" };

		begin(true, true);
		put(TEXT | FIN, bad[i], strlen(bad[i]));
		if (feed() != -EPROTO)
			fail_msg("case %d", i);
		end();
	}
}

static void closing(void **state)
{
	begin(false, true);
	put(BINARY | FIN, "\0a", 2);
	put(CLOSE | FIN, "\x03\xe8", 2);
	put(BINARY | FIN, "\0late", 5);
	assert_int_equal(feed(), 0);
	assert_string_equal(g.events, "0:a closed ");
	assert_out("\x88\2\x03\xe8", 4);
	put(BINARY | FIN, "\0late", 5);
	assert_int_equal(feed(), 0);
	assert_string_equal(g.events, "0:a closed ");
	end();
}

static void refused(void **state)
{
	static const struct {
		unsigned head;
		const char *payload;
		size_t n;
		int code;
	} cases[] = {
		{ BINARY | FIN | UNMASKED, "\0a", 2, -EPROTO },
		{ BINARY | FIN | 0x40, "\0a", 2, -EPROTO }, /* a bit of an extension */
		{ 3 | FIN, "\0a", 2, -EPROTO },
		{ FIN, "\0a", 2, -EPROTO }, /* goes on with nothing */
		{ PING, "a", 1, -EPROTO },  /* a control frame in pieces */
		{ BINARY | FIN, "\0broken", 7, -EIO },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r;

		begin(false, true);
		put(cases[i].head, cases[i].payload, cases[i].n);
		r = feed();
		if (r != cases[i].code)
			fail_msg("case %zu: %d", i, r);
		if (buf_len(&g.out) < 2)
			fail_msg("case %zu: the client is not told", i);
		assert_int_equal(buf_data(&g.out)[0], 0x88);
		end();
	}
}

static void accepting(void **state)
{
	char text[WS_ACCEPT_LEN + 1];

	/* RFC 6455, 1.3 */
	assert_int_equal(ws_accept("dGhlIHNhbXBsZSBub25jZQ==", text), 0);
	assert_string_equal(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	assert_int_equal(ws_accept(NULL, text), -EINVAL);
	assert_int_equal(ws_accept("", text), -EINVAL);
	assert_int_equal(ws_accept("dGhlIHNhbXBsZSBub25jZQ=", text), -EINVAL);
	assert_int_equal(ws_accept("dGhlIHNhbXBsZSBub25jZ*==", text), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(binary),  cmocka_unit_test(sending), cmocka_unit_test(base64),
		cmocka_unit_test(closing), cmocka_unit_test(refused), cmocka_unit_test(accepting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
