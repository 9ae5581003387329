/* The console of a guest that may be hostile: what is written, how much, and what is made of it. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/io/console.h"
#include "test/lib/tmpdir.h"

static struct loop *loop;
static struct console *con;
static char *path, *old;
static int guest; /* its end */

static int set_up(void **state)
{
	struct err err = { 0 };

	path = in_tmpdir("console.log");
	old = in_tmpdir("console.log.1");
	assert_ok(loop_new(&loop, &err), &err);
	assert_ok(console_new(loop, path, &con, &guest, &err), &err);
	return 0;
}

static int tear_down(void **state)
{
	console_free(con);
	fd_close(&guest);
	loop_free(loop);
	(void)unlink(path);
	(void)unlink(old);
	free(path);
	free(old);
	return 0;
}

/* The loop takes it, as it is written. */
static void say(const char *text, size_t n)
{
	while (n) {
		ssize_t w = write(guest, text, MIN_OF(n, 4096));

		assert_true(w > 0);
		text += w;
		n -= (size_t)w;
		while (loop_once(loop, 0) > 0)
			;
	}
}

static size_t size_of(const char *file)
{
	struct stat st;

	return stat(file, &st) == 0 ? (size_t)st.st_size : 0;
}

static void check_file(const char *want)
{
	cleanup_free char *text = NULL;
	struct err err = { 0 };

	assert_ok(read_file(path, MIB, &text, NULL, &err), &err);
	assert_string_equal(text, want);
}

/* Whatever the guest writes, the file can be shown on a terminal. */
static void test_escaped(void **state)
{
	static const char bytes[] = "a\tb\r\n\x1b[2J\x07\0\xff\xc3\xa9\x7f.\n";
	struct stat st;

	say(bytes, sizeof(bytes) - 1);
	check_file("a\tb\n\\x1b[2J\\x07\\x00\\xff\\xc3\\xa9\\x7f.\n");
	assert_string_equal(console_tail(con, 1000),
			    "a\tb\n\\x1b[2J\\x07\\x00\\xff\\xc3\\xa9\\x7f.\n");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777 & ~0640, 0);
	assert_string_equal(console_path(con), path);
}

/* A flood: the file stops growing, the end is in memory all the same, and later text is written. */
static void test_flood(void **state)
{
	static char line[1024];
	cleanup_free char *text = NULL;
	struct err err = { 0 };
	size_t n;

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (int i = 0; i < 4096; i++)
		say(line, sizeof(line));
	say("the end\n", 8);
	n = size_of(path) + size_of(old);
	assert_true(n >= CONSOLE_BURST / 2);
	assert_true(n <= CONSOLE_BURST + 8 * CONSOLE_RATE); /* in less than 8 s */
	assert_text(console_tail(con, 100), "the end\n");
	(void)usleep(300000);
	say("afterwards\n", 11);
	assert_ok(read_file(path, MIB, &text, NULL, &err), &err);
	assert_text(text, " bytes dropped]\n");
	assert_true(str_ends(text, "afterwards\n"));
}

/* At most two files of a bounded size, whatever comes. */
static void test_rotation(void **state)
{
	struct err err = { 0 };
	cleanup_free char *text = NULL;
	cleanup_fd int fd = -1;

	/* As if a pod had filled it: a burst alone is too little. */
	assert_int_equal(truncate(path, CONSOLE_FILE_MAX - 10), 0);
	console_free(con);
	fd_close(&guest);
	assert_ok(console_new(loop, path, &con, &guest, &err), &err);
	say("12345678\n", 9);
	assert_int_equal(size_of(path), CONSOLE_FILE_MAX - 1);
	say("first of the next\n", 18);
	assert_int_equal(size_of(old), CONSOLE_FILE_MAX - 1);
	check_file("first of the next\n");
}

/* A disk that takes nothing costs the file, not the reason. */
static void test_no_file(void **state)
{
	struct err err = { 0 };

	console_free(con);
	fd_close(&guest);
	(void)unlink(path);
	assert_int_equal(symlink("/dev/full", path), 0);
	assert_int_equal(console_new(loop, path, &con, &guest, &err), -ELOOP); /* not followed */
	assert_text(err.msg, path);
	con = NULL;
	guest = -1;
	assert_int_equal(console_new(loop, "/dev/full", &con, &guest, &err), 0);
	say("Kernel panic - not syncing: x\n", 30);
	assert_text(console_tail(con, 100), "Kernel panic");
}

/* A guest writes into a pipe that nobody empties just now: it does not wait. */
static void test_never_waits(void **state)
{
	static char many[256 * KIB];
	ssize_t w;
	int i = 0;

	do
		w = write(guest, many, sizeof(many));
	while (w > 0 && i++ < 100);
	assert_int_equal(w, -1);
	assert_int_equal(errno, EAGAIN);
	console_drain(con);
	assert_true(write(guest, "x", 1) == 1);
}

static void cause_is(const char *text, const char *want)
{
	static char dots[CONSOLE_TAIL_MAX];
	char buf[120];

	/* Nothing is left of the one before. */
	memset(dots, '.', sizeof(dots));
	dots[sizeof(dots) - 1] = '\n';
	say(dots, sizeof(dots));
	say(text, strlen(text));
	console_cause(con, buf, sizeof(buf));
	assert_string_equal(buf, want);
}

static void test_cause(void **state)
{
	char small[10];

	cause_is("[    3.1] all is well\n", "");
	cause_is(
		"[    3.2] Kernel panic - not syncing: Out of memory: compulsory\n"
		"[    3.2] CPU: 0\n",
		"Kernel panic - not syncing: Out of memory: compulsory");
	cause_is(
		"[    1.0] BUG: kernel NULL pointer dereference, address: 0\n[    1.0] #PF\n"
		"[    1.1] Kernel panic - not syncing: Fatal exception\n[    1.1] Kernel Offset",
		"Kernel panic - not syncing: Fatal exception; BUG: kernel NULL pointer "
		"dereference, address: 0");
	/* No time, no end of the line; a line that is not the last word. */
	cause_is("Kernel panic - not syncing: first\nKernel panic - not syncing: second",
		 "Kernel panic - not syncing: second");
	console_cause(con, small, sizeof(small));
	assert_string_equal(small, "Kernel pa");
}

static void test_tail(void **state)
{
	say("one\ntwo\nthree\n", 14);
	assert_string_equal(console_tail(con, 1000), "one\ntwo\nthree\n");
	assert_string_equal(console_tail(con, 10), "two\nthree\n");
	assert_string_equal(console_tail(con, 9), "three\n"); /* whole lines */
	assert_string_equal(console_tail(con, 3), "");
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_escaped), TEST(test_flood),	    TEST(test_rotation), TEST(test_no_file),
		TEST(test_cause),   TEST(test_never_waits), TEST(test_tail),
	};

	return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
