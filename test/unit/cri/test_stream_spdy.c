/* The SPDY codec: what a client says, in any pieces, and what breaks it. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include <zlib.h>

#include "base/util.h"
#include "cri/stream/spdy.h"
#include "test/lib/spdy_client.h"

static struct {
	struct buf out;
	struct spdy *spdy;
	struct spdy_client client;
	struct spdy_frame frame;
	char events[4096]; /* what the codec has told */
	size_t data;	   /* bytes */
	int answer;	   /* of `open` */
} g;

static void event(const char *what, uint32_t id, const char *text)
{
	size_t n = strlen(g.events);

	(void)snprintf(g.events + n, sizeof(g.events) - n, "%s%u%s%s ", what, id, *text ? "=" : "",
		       text);
}

static int spdy_test_open(void *arg, uint32_t id, const struct spdy_pairs *pairs)
{
	char type[32] = "";

	(void)spdy_pairs_get(pairs, "streamtype", type, sizeof(type));
	event("open", id, type);
	return g.answer;
}

static int spdy_test_data(void *arg, uint32_t id, const uint8_t *data, size_t n)
{
	g.data += n;
	return n == 6 && memcmp(data, "broken", 6) == 0 ? -EIO : 0;
}

static int spdy_test_end(void *arg, uint32_t id)
{
	event("end", id, "");
	return 0;
}

static void spdy_test_reset(void *arg, uint32_t id)
{
	event("reset", id, "");
}

static void spdy_test_goaway(void *arg)
{
	event("goaway", 0, "");
}

static int setup(void **state)
{
	static const struct spdy_ops ops = { spdy_test_open, spdy_test_data, spdy_test_end,
					     spdy_test_reset, spdy_test_goaway };

	memset(&g, 0, sizeof(g));
	buf_init(&g.out, 1 * MIB);
	spdy_client_init(&g.client);
	return spdy_new(4, &g.out, &ops, NULL, &g.spdy);
}

static int teardown(void **state)
{
	spdy_free(g.spdy);
	spdy_client_fini(&g.client);
	buf_fini(&g.out);
	return 0;
}

/* All that the client has written. */
static int feed(void)
{
	int r = spdy_feed(g.spdy, buf_data(&g.client.out), buf_len(&g.client.out));

	buf_clear(&g.client.out);
	return r;
}

/* The next frame of the server. */
static const struct spdy_frame *answer(void)
{
	if (g.frame.payload)
		buf_consume(&g.out, spdy_frame_len(&g.frame));
	g.frame.payload = NULL;
	if (!spdy_frame_next(&g.out, &g.frame))
		fail_msg("the server said nothing more");
	return &g.frame;
}

static void assert_frame(unsigned type, uint32_t id, uint32_t second)
{
	const struct spdy_frame *f = answer();

	assert_int_equal(f->type, type);
	assert_int_equal(f->id, id);
	assert_int_equal(f->second, second);
}

static void dictionary(void **state)
{
	uint8_t d[SPDY_DICTIONARY_LEN];

	spdy_dictionary(d);
	assert_int_equal(adler32(adler32(0, NULL, 0), d, sizeof(d)), 0xe3c6a7c2);
}

static void talk(void)
{
	spdy_client_open(&g.client, 1, "error");
	spdy_client_open(&g.client, 3, "stdin");
	spdy_client_control(&g.client, SPDY_SETTINGS, 0, "\0\0\0\0", 4);
	spdy_client_two(&g.client, SPDY_WINDOW_UPDATE, 1, 65536);
	spdy_client_data(&g.client, 3, 0, "abc", 3);
	spdy_client_control(&g.client, SPDY_PING, 0, "\0\0\0\x07", 4);
	spdy_client_control(&g.client, SPDY_PING, 0, "\0\0\0\x08", 4); /* ours? then no answer */
	spdy_client_data(&g.client, 3, SPDY_FIN, "de", 2);
	spdy_client_data(&g.client, 3, 0, "late", 4);
	spdy_client_data(&g.client, 9, 0, "nobody", 6);
	spdy_client_open(&g.client, 5, "stdout");
	spdy_client_two(&g.client, SPDY_RST_STREAM, 5, SPDY_RST_CANCEL);
	spdy_client_two(&g.client, SPDY_RST_STREAM, 5, SPDY_RST_CANCEL);
	spdy_client_two(&g.client, SPDY_GOAWAY, 0, 0);
}

static void assert_talked(void)
{
	assert_string_equal(g.events, "open1=error open3=stdin end3 open5=stdout reset5 goaway0 ");
	assert_int_equal(g.data, 5);
	assert_true(spdy_client_reply_ok(&g.client, answer()));
	assert_int_equal(g.frame.id, 1);
	assert_true(spdy_client_reply_ok(&g.client, answer()));
	assert_int_equal(g.frame.id, 3);
	assert_frame(SPDY_PING, 7, 0);
	assert_true(spdy_client_reply_ok(&g.client, answer()));
	assert_int_equal(g.frame.id, 5);
	assert_int_equal(buf_len(&g.out), spdy_frame_len(&g.frame));
}

static void whole(void **state)
{
	talk();
	assert_int_equal(feed(), 0);
	assert_talked();
}

static void in_pieces(void **state)
{
	talk();
	for (; buf_len(&g.client.out); buf_consume(&g.client.out, 1))
		assert_int_equal(spdy_feed(g.spdy, buf_data(&g.client.out), 1), 0);
	assert_talked();
}

static void sending(void **state)
{
	spdy_client_open(&g.client, 1, "stdout");
	assert_int_equal(feed(), 0);
	(void)answer();
	assert_int_equal(spdy_send(g.spdy, 1, (const uint8_t *)"hello", 5), 0);
	assert_int_equal(spdy_send(g.spdy, 3, (const uint8_t *)"nobody", 6), 0);
	assert_int_equal(spdy_end(g.spdy, 1), 0);
	assert_int_equal(spdy_end(g.spdy, 1), 0);
	assert_int_equal(spdy_send(g.spdy, 1, (const uint8_t *)"late", 4), 0);
	assert_int_equal(spdy_goaway(g.spdy, SPDY_GOAWAY_OK), 0);
	(void)answer();
	assert_int_equal(g.frame.type, 0);
	assert_int_equal(g.frame.id, 1);
	assert_memory_equal(g.frame.payload, "hello", 5);
	(void)answer();
	assert_int_equal(g.frame.flags, SPDY_FIN);
	assert_int_equal(g.frame.len, 0);
	assert_frame(SPDY_GOAWAY, 1, 0);
	assert_int_equal(buf_len(&g.out), spdy_frame_len(&g.frame));
}

static void refusals(void **state)
{
	uint32_t id = 1;

	g.answer = SPDY_RST_PROTOCOL_ERROR;
	spdy_client_open(&g.client, id, "nonsense");
	assert_int_equal(feed(), 0);
	assert_frame(SPDY_RST_STREAM, 1, SPDY_RST_PROTOCOL_ERROR);
	g.answer = 0;
	for (int i = 0; i < 4; i++)
		spdy_client_open(&g.client, id += 2, "x");
	assert_int_equal(feed(), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(answer()->type, SPDY_SYN_REPLY);
	/* All four places are taken: the rest is refused, and then it is enough. */
	for (unsigned i = 0; i < SPDY_REFUSED_MAX - 1; i++)
		spdy_client_open(&g.client, id += 2, "x");
	assert_int_equal(feed(), 0);
	for (unsigned i = 0; i < SPDY_REFUSED_MAX - 1; i++)
		assert_int_equal(answer()->second, SPDY_RST_REFUSED_STREAM);
	spdy_client_open(&g.client, id + 2, "x");
	assert_int_equal(feed(), -EPROTO);
	assert_frame(SPDY_GOAWAY, id + 2, SPDY_GOAWAY_PROTOCOL_ERROR);
}

/* A stream's place is free when both have ended it. */
static void places(void **state)
{
	for (uint32_t id = 1; id < 200; id += 2) {
		spdy_client_open(&g.client, id, "x");
		spdy_client_data(&g.client, id, SPDY_FIN, NULL, 0);
		assert_int_equal(feed(), 0);
		assert_int_equal(answer()->type, SPDY_SYN_REPLY);
		assert_int_equal(spdy_end(g.spdy, id), 0);
		assert_int_equal(answer()->type, 0);
		g.events[0] = '\0';
	}
}

static void put_block(unsigned type, uint32_t id, const void *plain, size_t n)
{
	uint8_t payload[65536] = { 0 };
	size_t at = type == SPDY_SYN_STREAM ? 10 : 4;

	payload[2] = (uint8_t)(id >> 8);
	payload[3] = (uint8_t)id;
	at += spdy_client_block(&g.client, plain, n, payload + at, sizeof(payload) - at);
	spdy_client_control(&g.client, type, 0, payload, at);
}

static void bombs(void **state)
{
	/* One name of 31 KiB packs to some 60 bytes and is let through; one of 40 KiB is not. */
	size_t n = 40 * KIB;
	uint8_t *plain = calloc(1, n);

	plain[3] = 1;
	for (size_t len = 31 * KIB; len <= n; len += n - 31 * KIB) {
		plain[6] = (uint8_t)((len - 12) >> 8);
		plain[7] = (uint8_t)(len - 12);
		put_block(SPDY_SYN_STREAM, len == n ? 3 : 1, plain, len);
		assert_true(buf_len(&g.client.out) < 256);
		assert_int_equal(feed(), len == n ? -EMSGSIZE : 0);
	}
	free(plain);
}

static void header_floods(void **state)
{
	uint8_t plain[4 + 65 * 9] = { 0, 0, 0, 65 };

	/* HEADERS frames without end. */
	for (int i = 0; i < SPDY_HEADERS_FRAMES_MAX; i++)
		put_block(SPDY_HEADERS, 1, "\0\0\0\0", 4);
	assert_int_equal(feed(), 0);
	put_block(SPDY_HEADERS, 1, "\0\0\0\0", 4);
	assert_int_equal(feed(), -EPROTO);
	/* More pairs than there are places. */
	assert_int_equal(teardown(NULL), 0);
	assert_int_equal(setup(NULL), 0);
	for (int i = 0; i < 65; i++) {
		plain[4 + i * 9 + 3] = 1;
		plain[4 + i * 9 + 4] = 'n';
	}
	put_block(SPDY_SYN_STREAM, 1, plain, sizeof(plain));
	assert_int_equal(feed(), -EMSGSIZE);
}

static void broken(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		int code;
	} cases[] = {
		{ "\x80\x02\0\x06\0\0\0\x04", 8, -EPROTO },	     /* SPDY/2 */
		{ "\x80\x03\0\x0a\0\0\0\0", 8, -EPROTO },	     /* no such frame */
		{ "\x80\x03\0\x02\0\0\0\x04\0\0\0\1", 12, -EPROTO }, /* SYN_REPLY */
		{ "\x80\x03\0\x06\0\0\0\2\0\0", 10, -EPROTO },	     /* a short PING */
		{ "\x80\x03\0\x03\0\0\0\x04\0\0\0\1", 12, -EPROTO }, /* a short RST_STREAM */
		{ "\x80\x03\0\x01\0\0\0\x04\0\0\0\1", 12, -EPROTO }, /* a short SYN_STREAM */
		{ "\x80\x03\0\x06\0\x01\0\0", 8, -EMSGSIZE },	     /* 64 KiB of control */
		{ "\0\0\0\0\0\0\0\0", 8, -EPROTO },		     /* data of stream 0 */
		{ "GET / HTTP/1.1\r\n", 16, 0 }, /* data of an unknown stream, as it happens */
	};
	static const uint8_t even[] = { 0x80, 3, 0, 1, 0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0 };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = spdy_feed(g.spdy, (const uint8_t *)cases[i].bytes, cases[i].n);

		if (r != cases[i].code)
			fail_msg("case %zu: %d", i, r);
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
	}
	/* An id of the server. */
	assert_int_equal(spdy_feed(g.spdy, even, sizeof(even)), -EPROTO);
}

static void broken_later(void **state)
{
	static const uint8_t garbage[] = { 0x80, 3, 0, 1, 0, 0, 0, 14,	0,   0,	  0,
					   7,	 0, 0, 0, 0, 0, 0, 'x', 'y', 'z', 'w' };

	/* An id again. */
	spdy_client_open(&g.client, 3, "x");
	spdy_client_open(&g.client, 3, "x");
	assert_int_equal(feed(), -EPROTO);
	/* What is no zlib. */
	assert_int_equal(teardown(NULL), 0);
	assert_int_equal(setup(NULL), 0);
	assert_int_equal(spdy_feed(g.spdy, garbage, sizeof(garbage)), -EPROTO);
	/* A block with a rest, a pair without name, a length beyond the block. */
	for (int i = 0; i < 3; i++) {
		static const char *const plain[] = { "\0\0\0\0x", "\0\0\0\1\0\0\0\0\0\0\0\0",
						     "\0\0\0\1\xff\xff\xff\xff" };
		static const size_t n[] = { 5, 12, 8 };

		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
		put_block(SPDY_SYN_STREAM, 1, plain[i], n[i]);
		assert_int_equal(feed(), -EPROTO);
	}
	/* The owner's refusal. */
	assert_int_equal(teardown(NULL), 0);
	assert_int_equal(setup(NULL), 0);
	spdy_client_open(&g.client, 1, "stdin");
	spdy_client_data(&g.client, 1, 0, "broken", 6);
	assert_int_equal(feed(), -EIO);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dictionary),
		T(whole),
		T(in_pieces),
		T(sending),
		T(refusals),
		T(places),
		T(bombs),
		T(header_floods),
		T(broken),
		T(broken_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
