/* The frames between decoder and builder, through a pipe. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "image/layer/unpack_pipe.h"

static struct unpack_pipe reader;

struct ends {
	int r, w;
};

static struct ends pipe_new(void)
{
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	return (struct ends){ p[0], p[1] };
}

static void assert_bytes(const char *want)
{
	size_t len = strlen(want), got = 0;
	const void *p = NULL;

	while (got < len) {
		ssize_t n = unpack_pipe_read(&reader, &p);

		assert_true(n > 0 && (size_t)n <= len - got);
		assert_memory_equal(p, want + got, n);
		got += (size_t)n;
	}
}

/* Two layers, the second one empty, then nothing. */
static void test_layers(void **state)
{
	struct ends e = pipe_new();
	const void *p;

	assert_int_equal(unpack_pipe_write(e.w, "tar ", 4), 0);
	assert_int_equal(unpack_pipe_write(e.w, "of one", 6), 0);
	assert_int_equal(unpack_pipe_write_end(e.w, false), 0);
	assert_int_equal(unpack_pipe_write_end(e.w, true), 0);
	fd_close(&e.w);
	unpack_pipe_init(&reader, unpack_pipe_read_fd, &e.r);
	assert_bytes("tar of one");
	assert_int_equal(unpack_pipe_read(&reader, &p), 0);
	assert_int_equal(unpack_pipe_read(&reader, &p), 0); /* still */
	assert_true(unpack_pipe_next(&reader));
	assert_int_equal(unpack_pipe_read(&reader, &p), 0);
	assert_false(unpack_pipe_next(&reader));
	assert_int_equal(unpack_pipe_read(&reader, &p),
			 0); /* nothing behind the last mark is read */
	fd_close(&e.r);
}

/* A decoder that fails or dies is never taken for the end of a layer. */
static void test_cut(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} cuts[] = { { "", 0 },
		     { "\4\0", 2 },
		     { "\4\0\0\0", 4 },
		     { "\4\0\0\0ab", 6 },
		     { "\2\0\0\0ab", 6 } };

	for (size_t k = 0; k < ARRAY_SIZE(cuts); k++) {
		struct ends e = pipe_new();
		const void *p;
		ssize_t n;

		assert_int_equal(write(e.w, cuts[k].bytes, cuts[k].len), (int)cuts[k].len);
		fd_close(&e.w);
		unpack_pipe_init(&reader, unpack_pipe_read_fd, &e.r);
		while ((n = unpack_pipe_read(&reader, &p)) > 0)
			assert_memory_equal(p, "ab", 2);
		assert_int_equal(n, -EPIPE);
		fd_close(&e.r);
	}
}

static void *write_large(void *arg)
{
	static char chunk[3 * UNPACK_PIPE_CHUNK];
	const int *fd = arg;

	memset(chunk, 'x', sizeof(chunk));
	for (int k = 0; k < 4; k++)
		if (unpack_pipe_write(*fd, chunk, sizeof(chunk)) < 0)
			return NULL;
	return unpack_pipe_write_end(*fd, true) < 0 ? NULL : arg;
}

/* Frames larger than the pipe and the reader's buffer; writes in several goes. */
static void test_large(void **state)
{
	struct ends e = pipe_new();
	uint64_t all = 0;
	pthread_t thread;
	const void *p;
	void *written;
	ssize_t n;

	assert_int_equal(pthread_create(&thread, NULL, write_large, &e.w), 0);
	unpack_pipe_init(&reader, unpack_pipe_read_fd, &e.r);
	while ((n = unpack_pipe_read(&reader, &p)) > 0) {
		assert_true((size_t)n <= UNPACK_PIPE_CHUNK);
		assert_int_equal(((const char *)p)[n - 1], 'x');
		all += (uint64_t)n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(all, 12 * UNPACK_PIPE_CHUNK);
	assert_false(unpack_pipe_next(&reader));
	assert_int_equal(pthread_join(thread, &written), 0);
	assert_non_null(written);
	fd_close(&e.r);
	fd_close(&e.w);
}

/* A builder that has given up, and errors of the pipe itself. */
static void test_errors(void **state)
{
	struct ends e = pipe_new();
	const void *p;
	int none = -1;

	fd_close(&e.r);
	assert_int_equal(unpack_pipe_write(e.w, "x", 1), -EPIPE);
	assert_int_equal(unpack_pipe_write_end(e.w, true), -EPIPE);
	fd_close(&e.w);
	unpack_pipe_init(&reader, unpack_pipe_read_fd, &none);
	assert_int_equal(unpack_pipe_read(&reader, &p), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_errors),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
