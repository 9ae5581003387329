/* Requests of clients: bounded memory, and every string is UTF-8. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "cri/rpc/decode.h"
#include "proto/cri.pb-c.h"

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
		cmocka_unit_test(decoding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
