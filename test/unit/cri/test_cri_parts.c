/* The small parts of huskd: signals, the shim's answer, decoding of requests. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cri/rpc/decode.h"
#include "cri/runtime/shim_client.h"
#include "cri/rpc/signals.h"
#include "proto/cri.pb-c.h"

static void signals(void **state)
{
	static const struct {
		const char *s;
		int n;
	} good[] = { { "SIGTERM", 15 },	 { "term", 15 },    { "9", 9 },
		     { "SIGRTMIN", 34 }, { "RTMIN+3", 37 }, { "SIGRTMAX-1", 63 },
		     { "SIGRTMAX", 64 }, { "64", 64 },	    { "SIGUSR2", 12 },
		     { "sigint", 2 } };
	static const char *const bad[] = { "",	      "SIG",	"0",	   "65",
					   "-1",      "NOPE",	"RTMIN-1", "RTMIN+31",
					   "RTMAX+1", "RTMIN+", "15 ",	   "SIGSIGTERM" };
	int n;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(signal_parse(good[i].s, &n), 0);
		assert_int_equal(n, good[i].n);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(signal_parse(bad[i], &n), -EINVAL);
	assert_int_equal(signal_of_cri(CRI__SIGNAL__SIGNAL_SIGTERM), 15);
	assert_int_equal(signal_of_cri(CRI__SIGNAL__SIGNAL_SIGXFSZ), 25);
	assert_int_equal(signal_of_cri(CRI__SIGNAL__SIGNAL_SIGRTMAX), 64);
	assert_int_equal(signal_of_cri(0), 0);
	assert_int_equal(signal_of_cri(1000), 0);
	for (int i = 1; i <= 64; i++) {
		Cri__Signal s = signal_to_cri(i);
		if (i != 32 && i != 33) /* the C library's own */
			assert_int_equal(signal_of_cri(s), i);
	}
}

static void address(const char *text, const char *want)
{
	cleanup_free char *got = NULL;
	int r = shim_parse_address(text, strlen(text), &got, NULL);

	if (want) {
		assert_int_equal(r, 0);
		assert_string_equal(got, want);
	} else {
		assert_int_equal(r, -EPROTO);
	}
}

static void addresses(void **state)
{
	address("unix:///run/x.sock", "unix:///run/x.sock");
	address("unix:///run/x.sock\n", "unix:///run/x.sock");
	address("{\"version\":3,\"address\":\"unix:///a\",\"protocol\":\"ttrpc\"}\n", "unix:///a");
	address("{\"version\":2,\"address\":\"unix:///a\",\"protocol\":\"ttrpc\"}", "unix:///a");
	address("{\"version\":4,\"address\":\"unix:///a\",\"protocol\":\"ttrpc\"}", NULL);
	address("{\"version\":3,\"address\":\"unix:///a\",\"protocol\":\"grpc\"}", NULL);
	address("{\"version\":3}", NULL);
	address("{\"version\":3,", NULL);
	address("tcp://1.2.3.4", NULL);
	address("", NULL);
}

static int decode(const ProtobufCMessageDescriptor *d, const void *data, size_t n)
{
	struct pb_arena arena;
	ProtobufCMessage *m = NULL;

	pb_arena_init(&arena, RPC_DECODED_MAX);
	int r = rpc_decode(&arena, d, data, n, &m, NULL);
	pb_arena_fini(&arena);
	return r;
}

static void decoding(void **state)
{
	const ProtobufCMessageDescriptor *d = &cri__create_container_request__descriptor;
	const size_t bomb_size = (12u << 20) + 1; /* an even number of bytes after the head */
	uint8_t *bomb = malloc(bomb_size), *p = bomb;

	assert_int_equal(decode(d, "", 0), 0);
	assert_int_equal(decode(d, "\x0a\x01x", 3), 0);
	assert_int_equal(decode(d, "\x0a\x02x", 3), -EINVAL);
	assert_int_equal(decode(d, "\x0a\x01\xff", 3), -EINVAL);
	/* Deep inside: config.args, config.labels. */
	assert_int_equal(decode(d, "\x12\x03\x22\x01\xff", 5), -EINVAL);
	assert_int_equal(decode(d, "\x12\x05\x4a\x03\x0a\x01\xff", 7), -EINVAL);
	assert_int_equal(decode(d, "\x12\x05\x4a\x03\x0a\x01k", 7), 0);
	/* Millions of empty mounts in a message of 12 MiB would need a gigabyte. */
	*p++ = 0x12;
	size_t inner = bomb_size - 5;
	for (int i = 0; i < 4; i++)
		*p++ = (uint8_t)((inner >> (7 * i)) & 0x7f) | (i < 3 ? 0x80 : 0);
	for (size_t i = 0; i + 1 < inner; i += 2) {
		p[i] = 0x3a;
		p[i + 1] = 0;
	}
	assert_int_equal(decode(d, bomb, bomb_size), -ENOBUFS);
	free(bomb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals),
		cmocka_unit_test(addresses),
		cmocka_unit_test(decoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
