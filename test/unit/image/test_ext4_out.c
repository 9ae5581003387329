/* The stream of blocks of a layer's file. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "image/ext4/out.h"
#include "image/ext4/writer.h"

#define FIRST 9u
#define N (2 * OUT_BLOCKS + 3)

/* A block that tells its number. */
static void fill(uint8_t *p, uint32_t number)
{
	for (size_t k = 0; k < EXT4_BLOCK; k += sizeof(number))
		memcpy(p + k, &number, sizeof(number));
}

static void put(struct out *o, uint32_t number)
{
	uint32_t given = 0;
	uint8_t *p;

	assert_int_equal(out_next(o), number);
	assert_int_equal(out_block(o, &p, &given, NULL), 0);
	assert_int_equal(given, number);
	fill(p, number);
}

static void assert_block(struct out *o, uint32_t number, uint32_t says)
{
	uint8_t want[EXT4_BLOCK], have[EXT4_BLOCK];

	fill(want, says);
	assert_int_equal(out_read(o, number, have, NULL), 0);
	assert_memory_equal(have, want, EXT4_BLOCK);
}

/* Blocks are at their places in the file, and can be read and changed before and after. */
static void test_stream(void **state)
{
	cleanup_fd int fd = memfd_create("out", MFD_CLOEXEC);
	uint8_t block[EXT4_BLOCK];
	struct out o;

	assert_int_equal(out_init(&o, fd, FIRST), 0);
	for (uint32_t k = 0; k < N; k++)
		put(&o, FIRST + k);
	assert_block(&o, FIRST, FIRST);			/* in the file by now */
	assert_block(&o, FIRST + N - 1, FIRST + N - 1); /* not yet */
	fill(block, 1);
	assert_int_equal(out_rewrite(&o, FIRST, block, NULL), 0);
	fill(block, 2);
	assert_int_equal(out_rewrite(&o, FIRST + N - 1, block, NULL), 0);
	assert_block(&o, FIRST, 1);
	assert_block(&o, FIRST + N - 1, 2);
	assert_int_equal(out_flush(&o, NULL), 0);
	assert_int_equal(out_next(&o), FIRST + N);
	assert_int_equal(lseek(fd, 0, SEEK_END), (off_t)(FIRST + N) * EXT4_BLOCK);
	for (uint32_t k = 1; k < N - 1; k++)
		assert_block(&o, FIRST + k, FIRST + k);
	assert_block(&o, FIRST, 1);
	assert_block(&o, FIRST + N - 1, 2);
	out_fini(&o);
}

static void test_limit(void **state)
{
	cleanup_fd int fd = memfd_create("out", MFD_CLOEXEC);
	struct err err = { 0 };
	struct out o;
	uint8_t *p;

	assert_int_equal(out_init(&o, fd, EXT4_MAX_BLOCKS - 1), 0);
	assert_int_equal(out_block(&o, &p, NULL, &err), 0);
	assert_int_equal(out_block(&o, &p, NULL, &err), -EFBIG);
	assert_string_equal(err_text(&err), "layer of more than 64 GiB");
	out_fini(&o);
}

/* A file that takes no more: the error comes when the blocks are written, and is told. */
static void test_full(void **state)
{
	cleanup_fd int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct err err = { 0 };
	struct out o;
	uint8_t *p;
	int r = 0;

	assert_true(fd >= 0);
	assert_int_equal(out_init(&o, fd, FIRST), 0);
	for (uint32_t k = 0; k < OUT_BLOCKS; k++)
		assert_int_equal(out_block(&o, &p, NULL, &err), 0);
	r = out_block(&o, &p, NULL, &err);
	assert_int_equal(r, -ENOSPC);
	assert_string_equal(err_text(&err), "write the layer's file: No space left on device");
	out_fini(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
