/* Copies of a stream for those who look on: slow readers, readers that go, too many of them. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/io/tee.h"

#define MOST (64 * KIB)

static struct {
	struct loop *loop;
	struct tees tees;
	char path[128];
	unsigned flushed;
} g;

static void tee_test_on_flushed(void *arg)
{
	g.flushed++;
}

static int setup(void **state)
{
	static char dir[] = "/tmp/husk-tee-XXXXXX";

	assert_non_null(mkdtemp(dir));
	(void)snprintf(g.path, sizeof(g.path), "%s/fifo", dir);
	assert_int_equal(mkfifo(g.path, 0600), 0);
	assert_int_equal(loop_new(&g.loop, NULL), 0);
	(void)signal(SIGPIPE, SIG_IGN);
	g.tees = (struct tees){ .loop = g.loop, .most = MOST, .flushed = tee_test_on_flushed };
	return 0;
}

static int teardown(void **state)
{
	loop_free(g.loop);
	(void)unlink(g.path);
	*strrchr(g.path, '/') = '\0';
	return rmdir(g.path);
}

/* Every byte arrives in order, whatever the reader takes at a time. */
static void slow_reader(void **state)
{
	static uint8_t data[MOST], got[MOST];
	int fd = open(g.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	size_t total = 0, sent = 0;
	uint8_t next = 0;

	assert_true(fd >= 0);
	assert_int_equal(tees_add(&g.tees, g.path, NULL), 0);
	g.flushed = 0;
	while (total < 8 * sizeof(data)) {
		if (sent < 8 * sizeof(data) && !tees_full(&g.tees)) {
			for (size_t i = 0; i < sizeof(data); i++)
				data[i] = (uint8_t)((sent + i) * 7 / 5);
			tees_write(&g.tees, data, sizeof(data));
			sent += sizeof(data);
		}
		ssize_t n = read(fd, got, 5000);

		for (ssize_t i = 0; i < n; i++, total++) {
			next = (uint8_t)(total * 7 / 5);
			assert_int_equal(got[i], next);
		}
		assert_true(loop_once(g.loop, 0) >= 0);
	}
	assert_true(g.flushed > 0);
	tees_end(&g.tees);
	assert_int_equal(read(fd, got, 1), 0);
	(void)close(fd);
}

/* One that goes, also with bytes on their way, holds nobody. */
static void reader_goes(void **state)
{
	static uint8_t data[MOST];
	int fd = open(g.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	assert_int_equal(tees_add(&g.tees, g.path, NULL), 0);
	tees_write(&g.tees, data, sizeof(data));
	tees_write(&g.tees, data, 100);
	assert_true(tees_full(&g.tees));
	g.flushed = 0;
	(void)close(fd);
	assert_true(loop_once(g.loop, 1000) >= 0);
	assert_false(tees_full(&g.tees));
	assert_int_equal(g.flushed, 1);
	assert_int_equal(g.tees.n, 0);
	tees_write(&g.tees, data, 100);
	/* Idle: it is forgotten without a write. */
	fd = open(g.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_int_equal(tees_add(&g.tees, g.path, NULL), 0);
	(void)close(fd);
	assert_true(loop_once(g.loop, 1000) >= 0);
	assert_int_equal(g.tees.n, 0);
	assert_int_equal(g.flushed, 1);
}

static void limits(void **state)
{
	struct err err = { 0 };
	int fd;

	assert_int_equal(tees_add(&g.tees, g.path, &err), -ENXIO);
	assert_int_equal(tees_add(&g.tees, "/dev/null", &err), -EINVAL);
	assert_string_equal(err.msg, "/dev/null is not a FIFO");
	fd = open(g.path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	for (unsigned i = 0; i < TEES_MAX; i++)
		assert_int_equal(tees_add(&g.tees, g.path, NULL), 0);
	assert_int_equal(tees_add(&g.tees, g.path, &err), -ENOBUFS);
	assert_string_equal(err.msg, "16 clients are attached already");
	tees_end(&g.tees);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_reader),
		cmocka_unit_test(reader_goes),
		cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
