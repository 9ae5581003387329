#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/window.h"

static struct window_table t;

static int setup(void **state)
{
	window_init(&t);
	return 0;
}

static int teardown(void **state)
{
	window_fini(&t);
	return 0;
}

static int file_of(char fill, size_t len)
{
	int fd = memfd_create("w", MFD_CLOEXEC);
	char block[512];

	memset(block, fill, sizeof(block));
	for (size_t done = 0; done < len; done += sizeof(block))
		assert_int_equal(write_all(fd, block, MIN_OF(sizeof(block), len - done)), 0);
	return fd;
}

static int map(uint64_t first, uint64_t sectors, int fd, bool ro)
{
	struct err err = { 0 };
	int r = window_map(&t, first, sectors, fd, ro, &err);

	assert_true(r == 0 || *err.msg);
	if (r < 0)
		close(fd);
	return r;
}

static void test_map(void **state)
{
	char got;
	int fd;

	assert_int_equal(map(8, 8, file_of('a', 1), true), 0);
	assert_int_equal(map(24, 8, file_of('b', 1), true), 0);
	assert_int_equal(map(16, 8, file_of('c', 1), true), 0);
	assert_int_equal(map(0, 8, file_of('d', 1), true), 0);
	assert_int_equal(t.n, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(t.w[i].first, 8 * i);
	assert_int_equal(map(0, 8, file_of('x', 1), true), -EEXIST);
	assert_int_equal(map(0, 64, file_of('x', 1), true), -EEXIST);
	assert_int_equal(map(4, 8, file_of('x', 1), true), -EINVAL);
	assert_int_equal(map(32, 7, file_of('x', 1), true), -EINVAL);
	assert_int_equal(map(32, 0, file_of('x', 1), true), -EINVAL);
	assert_int_equal(map(VM_DISK_SECTORS, 8, file_of('x', 1), true), -EINVAL);
	assert_int_equal(map(VM_DISK_SECTORS - 8, 16, file_of('x', 1), true), -EINVAL);
	assert_int_equal(map(8, UINT64_MAX - 7, file_of('x', 1), true), -EINVAL);
	assert_int_equal(map(VM_DISK_SECTORS - 8, 8, file_of('x', 1), true), 0);
	assert_int_equal(window_unmap(&t, 4, &fd, NULL), -ENOENT);
	assert_int_equal(window_unmap(&t, 12, &fd, NULL), -ENOENT); /* inside, not at its start */
	assert_int_equal(window_unmap(&t, 16, &fd, NULL), 0);
	assert_int_equal(pread(fd, &got, 1, 0), 1); /* open still: it is the caller's now */
	assert_int_equal(got, 'c');
	close(fd);
	assert_int_equal(window_unmap(&t, 16, &fd, NULL), -ENOENT);
	assert_int_equal(map(16, 8, file_of('c', 1), true), 0);
}

static void test_files(void **state)
{
	int p[2];

	assert_int_equal(pipe(p), 0);
	close(p[1]);
	assert_int_equal(map(0, 8, p[0], true), -EINVAL);
	assert_int_equal(map(0, 8, open("/dev/null", O_RDWR), true), -EINVAL);
	assert_int_equal(map(0, 8, open("/proc/self/exe", O_RDONLY), false), -EINVAL);
	assert_int_equal(map(0, 8, open("/proc/self/exe", O_PATH), true), -EINVAL);
	assert_int_equal(map(0, 8, open("/proc/self/exe", O_RDONLY), true), 0);
}

static void test_limit(void **state)
{
	for (unsigned i = 0; i < WINDOWS_MAX; i++) {
		int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

		if (fd < 0) {
			print_message("skipped: RLIMIT_NOFILE allows %u windows\n", i);
			skip();
		}
		assert_int_equal(map(8 * i, 8, fd, true), 0);
	}
	assert_int_equal(map(8 * WINDOWS_MAX, 8, open("/proc/self/exe", O_RDONLY), true), -ENOSPC);
}

static void test_read(void **state)
{
	uint8_t buf[16 * 512];
	struct iovec iov[2] = { { buf, 1000 }, { buf + 1000, sizeof(buf) - 1000 } };

	/* Nothing, 'a' with an end inside, 'b' right behind it. */
	assert_int_equal(map(8, 8, file_of('a', 700), true), 0);
	assert_int_equal(map(16, 8, file_of('b', 4096), true), 0);
	memset(buf, 0xee, sizeof(buf));
	assert_int_equal(window_read(&t, 6, iov, 2, sizeof(buf)), 0);
	for (size_t i = 0; i < sizeof(buf); i++) {
		size_t at = 6 * 512 + i;
		uint8_t want = at >= 4096 && at < 4096 + 700 ? 'a'
			       : at >= 8192 && at < 12288    ? 'b'
							     : 0;

		if (buf[i] != want)
			fail_msg("byte %zu: %d", i, buf[i]);
	}
}

static void test_write(void **state)
{
	uint8_t buf[16 * 512], got[8192] = { 0 };
	struct iovec iov = { buf, sizeof(buf) };
	int a = file_of('a', 4096), b = file_of('b', 1000);

	memset(buf, 'w', sizeof(buf));
	assert_int_equal(map(8, 8, dup(a), false), 0);
	assert_int_equal(map(16, 8, dup(b), false), 0);
	assert_int_equal(map(24, 8, file_of('r', 4096), true), 0);
	assert_int_equal(window_write(&t, 12, &iov, 1, 8 * 512), 0);
	assert_int_equal(pread(a, got, 8192, 0), 4096);
	assert_int_equal(got[2047], 'a');
	assert_int_equal(got[2048], 'w');
	assert_int_equal(pread(b, got, 8192, 0), 2048); /* grew */
	assert_int_equal(got[2047], 'w');
	assert_int_equal(window_write(&t, 0, &iov, 1, 512), -EIO);
	assert_int_equal(window_write(&t, 24, &iov, 1, 512), -EIO);
	assert_int_equal(window_write(&t, 20, &iov, 1, 8 * 512), -EIO); /* into a read-only one */
	assert_int_equal(window_write(&t, 32, &iov, 1, 512), -EIO);
	close(a);
	close(b);
}

static void test_discard(void **state)
{
	uint8_t got[512];
	struct stat st;
	int a = file_of('a', 64 * 1024);

	assert_int_equal(map(0, 256, dup(a), false), 0);
	assert_int_equal(map(256, 8, file_of('r', 4096), true), 0);
	assert_int_equal(window_discard(&t, 0, 64, false), 0);
	assert_int_equal(window_discard(&t, 64, 1, true), 0);
	assert_int_equal(fstat(a, &st), 0);
	assert_int_equal(st.st_size, 64 * 1024);
	assert_true(st.st_blocks <= 64);
	assert_int_equal(pread(a, got, 512, 64 * 512), 512);
	assert_int_equal(got[0], 0);
	assert_int_equal(pread(a, got, 512, 65 * 512), 512);
	assert_int_equal(got[0], 'a');
	assert_int_equal(window_discard(&t, 250, 10, true), -EIO);
	assert_int_equal(window_discard(&t, 300, 1, false), -EIO);
	close(a);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_map),  T(test_files), T(test_limit),
		T(test_read), T(test_write), T(test_discard),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
