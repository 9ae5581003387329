#include "test/lib/aborts.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"

static void put_consume(void **state)
{
	cleanup_buf struct buf b;

	buf_init(&b, 10);
	assert_int_equal(buf_put(&b, "abcdef", 6), 0);
	assert_int_equal(buf_put(&b, NULL, 0), 0);
	assert_int_equal(buf_len(&b), 6);
	buf_consume(&b, 4);
	assert_int_equal(buf_put(&b, "ghijklmn", 8), 0);
	assert_int_equal(buf_len(&b), 10);
	assert_memory_equal(buf_data(&b), "efghijklmn", 10);
	/* Full: refused as a whole. */
	assert_int_equal(buf_put(&b, "x", 1), -ENOBUFS);
	assert_int_equal(buf_len(&b), 10);
	buf_consume(&b, 10);
	assert_int_equal(buf_len(&b), 0);
	assert_int_equal(buf_put(&b, "0123456789", 10), 0);
	buf_clear(&b);
	assert_int_equal(buf_len(&b), 0);
}

static void sizes_do_not_wrap(void **state)
{
	cleanup_buf struct buf b;
	uint8_t *p;

	buf_init(&b, 100);
	assert_int_equal(buf_put(&b, "a", 1), 0);
	assert_int_equal(buf_reserve(&b, SIZE_MAX, &p), -ENOBUFS);
	assert_int_equal(buf_reserve(&b, 100, &p), -ENOBUFS);
	assert_int_equal(buf_reserve(&b, 99, &p), 0);
	buf_commit(&b, 99);
	assert_int_equal(buf_reserve(&b, 0, &p), 0);
}

static void many_rounds_stay_in_order(void **state)
{
	cleanup_buf struct buf b;
	uint32_t in = 0, out = 0;

	buf_init(&b, 4096);
	srand(1);
	while (in < 100000) {
		int n = rand() % 300;

		for (int i = 0; i < n && buf_put(&b, &in, sizeof(in)) == 0; i++)
			in++;
		n = rand() % 300;
		for (int i = 0; i < n && buf_len(&b) > 0; i++) {
			assert_memory_equal(buf_data(&b), &out, sizeof(out));
			out++;
			buf_consume(&b, sizeof(out));
		}
		assert_true(buf_len(&b) <= 4096);
		assert_int_equal(buf_len(&b), (in - out) * sizeof(in));
	}
}

static void print(void **state)
{
	cleanup_buf struct buf b;
	char *s;

	buf_init(&b, 8);
	assert_int_equal(buf_printf(&b, "%s", ""), 0);
	assert_int_equal(buf_printf(&b, "%d-%s", 12, "abc"), 0);
	assert_int_equal(buf_printf(&b, "%s", "xyz"), -ENOBUFS);
	assert_int_equal(buf_printf(&b, "%s", "xy"), 0);
	buf_consume(&b, 1);
	s = buf_take_str(&b);
	assert_string_equal(s, "2-abcxy");
	free(s);
	assert_int_equal(buf_len(&b), 0);
	s = buf_take_str(&b);
	assert_string_equal(s, "");
	free(s);
	assert_int_equal(buf_put(&b, "12345678", 8), 0);
	s = buf_take_str(&b);
	assert_string_equal(s, "12345678");
	free(s);
}

static void descriptors(void **state)
{
	cleanup_buf struct buf b;
	int p[2];

	buf_init(&b, 6);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(fd_set_nonblock(p[0], true), 0);
	assert_int_equal(buf_write_fd(&b, p[1]), 0);
	assert_int_equal(buf_read_fd(&b, p[0], 100), -EAGAIN);
	assert_int_equal(write(p[1], "abcdefgh", 8), 8);
	assert_int_equal(buf_read_fd(&b, p[0], 4), 4);
	assert_int_equal(buf_read_fd(&b, p[0], 100), 2);
	assert_int_equal(buf_read_fd(&b, p[0], 100), -ENOBUFS);
	assert_memory_equal(buf_data(&b), "abcdef", 6);
	assert_int_equal(buf_write_fd(&b, p[1]), 6);
	assert_int_equal(buf_len(&b), 0);
	assert_int_equal(buf_read_fd(&b, p[0], 100), 6);
	assert_memory_equal(buf_data(&b), "ghabcd", 6);
	buf_clear(&b);
	assert_int_equal(buf_read_fd(&b, p[0], 100), 2);
	(void)close(p[1]);
	assert_int_equal(buf_read_fd(&b, p[0], 100), 0);
	(void)close(p[0]);
	assert_int_equal(buf_read_fd(&b, p[0], 1), -EBADF);
	buf_fini(&b);
	assert_int_equal(b.max, 6);
}

static void cursor(void **state)
{
	static const uint8_t bytes[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	struct cur c = cur_of(bytes, sizeof(bytes));

	assert_int_equal(cur_u8(&c), 1);
	assert_int_equal(cur_le16(&c), 0x0302);
	assert_int_equal(cur_be16(&c), 0x0405);
	assert_int_equal(cur_le32(&c), 0x09080706);
	assert_int_equal(cur_be32(&c), 0x0a0b0c0d);
	assert_int_equal(cur_left(&c), 2);
	assert_false(c.bad);
	assert_int_equal(cur_be32(&c), 0);
	assert_true(c.bad);
	/* Bad stays bad, although there would be bytes. */
	assert_int_equal(cur_u8(&c), 0);
	assert_null(cur_bytes(&c, 0));
	assert_int_equal(cur_left(&c), 2);
	c = cur_of(bytes, 8);
	assert_int_equal(cur_le64(&c), 0x0807060504030201);
	assert_int_equal(cur_left(&c), 0);
	c = cur_of(bytes, 8);
	assert_int_equal(cur_be64(&c), 0x0102030405060708);
	assert_false(c.bad);
	assert_non_null(cur_bytes(&c, 0));
}

static void cursor_copies(void **state)
{
	struct cur c = cur_of("abcdef", 6);
	char out[4] = "zzz";

	assert_true(cur_copy(&c, out, 3));
	assert_string_equal(out, "abc");
	assert_false(cur_copy(&c, out, 4));
	assert_memory_equal(out, "\0\0\0\0", 4);
	c = cur_of("ab", 2);
	assert_null(cur_bytes(&c, SIZE_MAX));
	assert_true(c.bad);
}

static void consume_too_much(void *b)
{
	buf_consume(b, 4);
}

static void commit_too_much(void *b)
{
	buf_commit(b, 1u << 20);
}

static void misuse_ends_the_process(void **state)
{
	cleanup_buf struct buf b;

	buf_init(&b, 100);
	assert_int_equal(buf_put(&b, "abc", 3), 0);
	assert_aborts(consume_too_much, &b, "n <= buf_len(b)");
	assert_aborts(commit_too_much, &b, "n <= b->cap - b->len");
	buf_consume(&b, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(put_consume),
		cmocka_unit_test(sizes_do_not_wrap),
		cmocka_unit_test(many_rounds_stay_in_order),
		cmocka_unit_test(print),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(cursor),
		cmocka_unit_test(cursor_copies),
		cmocka_unit_test(misuse_ends_the_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
