#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

static char dir[] = "/tmp/test_util.XXXXXX";

static int set_up(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	return remove_tree(dir, NULL);
}

/* Not freed by the caller; four at a time. */
static const char *in_dir(const char *name)
{
	static char paths[4][300];
	static unsigned i;
	char *p = paths[i++ % 4];

	(void)snprintf(p, sizeof(paths[0]), "%s/%s", dir, name);
	return p;
}

static void ownership(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), fd2;
	char *s = strdup("x"), *s2;

	fd2 = take_fd(&fd);
	assert_int_equal(fd, -1);
	errno = EDOM;
	fd_close(&fd);
	fd_close(&fd2);
	assert_int_equal(fd2, -1);
	assert_int_equal(errno, EDOM);
	s2 = take_ptr(&s);
	assert_null(s);
	free_ptr(&s2);
	assert_null(s2);
}

static void strings(void **state)
{
	char hex[9];

	assert_true(str_empty(NULL));
	assert_true(str_empty(""));
	assert_false(str_empty(" "));
	assert_true(str_eq(NULL, NULL));
	assert_false(str_eq(NULL, ""));
	assert_true(str_eq("a", "a"));
	assert_true(str_starts("unix://x", "unix://"));
	assert_false(str_starts("uni", "unix://"));
	assert_true(str_ends("a.sock", ".sock"));
	assert_false(str_ends("ck", ".sock"));
	assert_true(str_ends("x", ""));
	hex_encode("\x00\xff\x1a\x80", 4, hex);
	assert_string_equal(hex, "00ff1a80");
}

static void numbers(void **state)
{
	static const char *const bad[] = { "",	  " 1",	 "1 ",	"+1", "-",   "1x", "0x10",
					   "--1", "1.0", "1e3", NULL, "\t1", "１" };
	uint64_t u = 77;
	int64_t i = 77;

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		assert_int_equal(str_to_u64(bad[k], 0, UINT64_MAX, &u), -EINVAL);
		assert_int_equal(str_to_i64(bad[k], INT64_MIN, INT64_MAX, &i), -EINVAL);
	}
	assert_int_equal(str_to_u64("-1", 0, UINT64_MAX, &u), -EINVAL);
	assert_int_equal(str_to_u64("18446744073709551616", 0, UINT64_MAX, &u), -ERANGE);
	assert_int_equal(str_to_u64("99999999999999999999999", 0, UINT64_MAX, &u), -ERANGE);
	assert_int_equal(str_to_u64("4", 5, 9, &u), -ERANGE);
	assert_int_equal(str_to_u64("10", 5, 9, &u), -ERANGE);
	assert_int_equal(u, 77);
	assert_int_equal(str_to_u64("18446744073709551615", 0, UINT64_MAX, &u), 0);
	assert_true(u == UINT64_MAX);
	assert_int_equal(str_to_u64("010", 0, 99, &u), 0);
	assert_int_equal(u, 10);
	assert_int_equal(str_to_i64("9223372036854775808", INT64_MIN, INT64_MAX, &i), -ERANGE);
	assert_int_equal(str_to_i64("-9223372036854775809", INT64_MIN, INT64_MAX, &i), -ERANGE);
	assert_int_equal(str_to_i64("-9223372036854775808", INT64_MIN, INT64_MAX, &i), 0);
	assert_true(i == INT64_MIN);
	assert_int_equal(str_to_i64("9223372036854775807", INT64_MIN, INT64_MAX, &i), 0);
	assert_true(i == INT64_MAX);
	assert_int_equal(str_to_i64("-5", -4, 4, &i), -ERANGE);
	assert_int_equal(str_to_i64("-0", -4, 4, &i), 0);
	assert_int_equal(i, 0);
}

static void vectors(void **state)
{
	char **v = calloc(3, sizeof(*v));

	assert_int_equal(strv_len(NULL), 0);
	assert_int_equal(strv_len(v), 0);
	v[0] = strdup("a");
	v[1] = str_fmt("%s%d", "b", 2);
	assert_int_equal(strv_len(v), 2);
	assert_string_equal(v[1], "b2");
	strv_freep(&v);
	assert_null(v);
	strv_free(NULL);
}

static void ids(void **state)
{
	char a[65], b[65];

	assert_int_equal(random_id(a), 0);
	assert_int_equal(random_id(b), 0);
	assert_int_equal(strlen(a), 64);
	assert_int_equal(strspn(a, "0123456789abcdef"), 64);
	assert_string_not_equal(a, b);
}

static void reading(void **state)
{
	cleanup_free char *s = NULL;
	struct err e = { 0 };
	size_t n = 99;
	int p[2];

	assert_int_equal(write_file_atomic(in_dir("r"), "12345", 5, 0600, false, &e), 0);
	assert_ok(read_file(in_dir("r"), 5, &s, &n, &e), &e);
	assert_int_equal(n, 5);
	assert_string_equal(s, "12345");
	free_ptr(&s);
	assert_int_equal(read_file(in_dir("r"), 4, &s, &n, &e), -EFBIG);
	assert_null(s);
	assert_int_equal(read_file(in_dir("r"), 0, &s, &n, &e), -EFBIG);
	assert_int_equal(read_file(in_dir("none"), 4, &s, &n, &e), -ENOENT);
	assert_text(err_text(&e), "/none: No such file");
	assert_int_equal(read_file(dir, 4, &s, &n, &e), -EISDIR);
	/* Files that tell no size. */
	assert_ok(read_file("/proc/self/status", 64 * KIB, &s, NULL, &e), &e);
	assert_text(s, "test_util");
	free_ptr(&s);
	assert_int_equal(read_file("/proc/self/status", 100, &s, NULL, &e), -EFBIG);
	assert_int_equal(pipe(p), 0);
	(void)close(p[1]);
	assert_int_equal(read_fd(p[0], 100, &s, &n), 0);
	assert_int_equal(n, 0);
	assert_string_equal(s, "");
	(void)close(p[0]);
}

static void reading_all_sizes(void **state)
{
	char data[300];
	size_t n;
	char *s;
	int p[2];

	memset(data, 'd', sizeof(data));
	for (size_t size = 0; size < sizeof(data); size += 13) {
		for (int delta = -1; delta <= 1; delta++) {
			if (size == 0 && delta < 0)
				continue;
			assert_int_equal(pipe(p), 0);
			assert_int_equal(write_all(p[1], data, size), 0);
			(void)close(p[1]);
			s = NULL;
			assert_int_equal(read_fd(p[0], size + (size_t)delta, &s, &n),
					 delta < 0 ? -EFBIG : 0);
			if (delta >= 0)
				assert_int_equal(n, size);
			free(s);
			(void)close(p[0]);
		}
	}
}

static void atomic_writes(void **state)
{
	cleanup_free char *s = NULL;
	struct err e = { 0 };
	struct stat st;

	assert_ok(write_file_atomic(in_dir("w"), "old", 3, 0640, true, &e), &e);
	assert_ok(write_file_atomic(in_dir("w"), "newer", 5, 0600, false, &e), &e);
	assert_ok(read_file(in_dir("w"), 100, &s, NULL, &e), &e);
	assert_string_equal(s, "newer");
	assert_int_equal(stat(in_dir("w"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(write_file_atomic(in_dir("no/w"), "x", 1, 0600, false, &e), -ENOENT);
	assert_int_equal(mkdir(in_dir("wd"), 0700), 0);
	assert_int_equal(write_file_atomic(in_dir("wd"), "x", 1, 0600, false, &e), -EISDIR);
	/* No temporary file was left by the failures. */
	assert_int_equal(remove_tree(in_dir("wd"), &e), 0);
	assert_int_equal(unlink(in_dir("w")), 0);
	assert_int_equal(unlink(in_dir("r")), 0);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(mkdir(dir, 0700), 0);
}

static void making_directories(void **state)
{
	struct err e = { 0 };

	assert_ok(mkdir_p(in_dir("a/b//c/"), 0755, &e), &e);
	assert_ok(mkdir_p(in_dir("a/b/c"), 0755, &e), &e);
	assert_int_equal(access(in_dir("a/b/c"), F_OK), 0);
	assert_ok(write_file_atomic(in_dir("a/f"), "", 0, 0600, false, &e), &e);
	assert_int_equal(mkdir_p(in_dir("a/f"), 0755, &e), -ENOTDIR);
	assert_int_equal(mkdir_p(in_dir("a/f/g"), 0755, &e), -ENOTDIR);
	assert_ok(mkdir_p("/", 0755, &e), &e);
	assert_int_equal(mkdir_p("", 0755, &e), -ENOENT);
}

static void removing_trees(void **state)
{
	struct err e = { 0 };

	assert_ok(mkdir_p(in_dir("t/x/y"), 0755, &e), &e);
	assert_ok(write_file_atomic(in_dir("t/x/f"), "", 0, 0400, false, &e), &e);
	assert_ok(write_file_atomic(in_dir("keep"), "", 0, 0400, false, &e), &e);
	assert_int_equal(symlink("../keep", in_dir("t/link")), 0);
	assert_int_equal(symlink(dir, in_dir("t/dirlink")), 0);
	assert_int_equal(mkfifo(in_dir("t/fifo"), 0600), 0);
	assert_ok(remove_tree(in_dir("t"), &e), &e);
	assert_int_equal(access(in_dir("t"), F_OK), -1);
	assert_int_equal(access(in_dir("keep"), F_OK), 0);
	assert_ok(remove_tree(in_dir("t"), &e), &e);
	/* A symlink at the top is removed itself; a file is removed. */
	assert_ok(mkdir_p(in_dir("target"), 0755, &e), &e);
	assert_int_equal(symlink("target", in_dir("top")), 0);
	assert_ok(remove_tree(in_dir("top"), &e), &e);
	assert_int_equal(access(in_dir("target"), F_OK), 0);
	assert_ok(remove_tree(in_dir("keep"), &e), &e);
	assert_int_equal(access(in_dir("keep"), F_OK), -1);
}

/* In a mount namespace of its own: what is mounted below, also of the same file system, stays. */
static void removing_stops_at_mounts(void **state)
{
	struct err e = { 0 };
	int status;
	pid_t pid;

	if (geteuid() != 0) {
		print_message("skipped: mounts need root\n");
		skip();
	}
	assert_ok(mkdir_p(in_dir("m/sub/mnt"), 0755, &e), &e);
	assert_ok(mkdir_p(in_dir("precious"), 0755, &e), &e);
	assert_ok(write_file_atomic(in_dir("precious/f"), "", 0, 0600, false, &e), &e);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			_exit(77);
		if (mount(in_dir("precious"), in_dir("m/sub/mnt"), NULL, MS_BIND, NULL) < 0)
			_exit(77);
		if (remove_tree(in_dir("m"), &e) == 0 || access(in_dir("precious/f"), F_OK) < 0)
			_exit(1);
		if (umount(in_dir("m/sub/mnt")) < 0 || remove_tree(in_dir("m"), &e) < 0)
			_exit(2);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("skipped: no mounts in a namespace here\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(access(in_dir("precious/f"), F_OK), 0);
}

static void removing_deep_trees(void **state)
{
	char path[400] = "deep";
	struct err e = { 0 };

	for (int i = 0; i < 70; i++)
		memcpy(path + strlen(path), "/d", 3);
	assert_ok(mkdir_p(in_dir(path), 0755, &e), &e);
	/* Trees of ours are flat: a bound, not a crash. */
	assert_int_equal(remove_tree(in_dir("deep"), &e), -ELOOP);
	path[strlen("deep") + 2 * 40] = '\0';
	assert_ok(remove_tree(in_dir(path), &e), &e);
	assert_ok(remove_tree(in_dir("deep"), &e), &e);
}

/* A process that is stopped takes no connections: who connects is told, and does not wait. */
static void reserved_blocks(void **state)
{
	struct stat st;

	assert_int_equal(file_reserve(in_dir("reserved"), 100000), 0);
	assert_int_equal(stat(in_dir("reserved"), &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_true(st.st_blocks * 512 >= 100000);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(file_reserve(in_dir("no/such"), 1), -ENOENT);
	assert_int_equal(unlink(in_dir("reserved")), 0);
}

static void unix_connect_does_not_wait(void **state)
{
	cleanup_free char *addr = str_fmt("unix://%s", in_dir("full.sock"));
	int l = -1, c[2] = { -1, -1 }, third = -1;
	struct err e = { 0 };

	assert_ok(unix_listen(addr, 0600, &l, &e), &e);
	assert_int_equal(listen(l, 1), 0);
	alarm(20);
	for (int i = 0; i < 2; i++) {
		assert_ok(unix_connect(addr, &c[i], &e), &e);
		assert_int_equal(fcntl(c[i], F_GETFL) & O_NONBLOCK, 0);
	}
	assert_int_equal(unix_connect(addr, &third, &e), -EAGAIN);
	assert_text(err_text(&e), "nobody takes the connections there");
	assert_int_equal(unix_listen(addr, 0600, &third, &e), -EADDRINUSE);
	alarm(0);
	(void)close(l);
	(void)close(c[0]);
	(void)close(c[1]);
	assert_int_equal(unlink(in_dir("full.sock")), 0);
}

static void unix_sockets(void **state)
{
	cleanup_free char *addr = str_fmt("unix://%s", in_dir("s.sock"));
	char name[120] = "unix://";
	struct err e = { 0 };
	int l = -1, c = -1, l2 = -1;
	struct stat st;

	assert_ok(unix_listen(addr, 0600, &l, &e), &e);
	assert_int_equal(stat(in_dir("s.sock"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(fcntl(l, F_GETFD), FD_CLOEXEC);
	assert_ok(unix_connect(in_dir("s.sock"), &c, &e), &e);
	assert_int_equal(fcntl(c, F_GETFD), FD_CLOEXEC);
	assert_int_equal(unix_listen(addr, 0600, &l2, &e), -EADDRINUSE);
	assert_text(err_text(&e), "another process serves there");
	(void)close(l);
	(void)close(c);
	/* Stale now. */
	assert_int_equal(unix_connect(addr, &c, &e), -ECONNREFUSED);
	assert_ok(unix_listen(addr, 0660, &l, &e), &e);
	assert_int_equal(stat(in_dir("s.sock"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	(void)close(l);
	assert_int_equal(unlink(in_dir("s.sock")), 0);
	assert_int_equal(unix_connect(addr, &c, &e), -ENOENT);
	assert_int_equal(unix_connect("unix://", &c, &e), -EINVAL);
	/* 107 bytes fit, 108 do not: they are refused, not cut. */
	memset(name + 7, 'n', 107);
	assert_int_equal(unix_connect(name, &c, &e), -ENOENT);
	name[7 + 107] = 'n';
	assert_int_equal(unix_connect(name, &c, &e), -ENAMETOOLONG);
	assert_int_equal(unix_listen(name, 0600, &c, &e), -ENAMETOOLONG);
	/* A file that is no socket is not removed. */
	assert_ok(write_file_atomic(in_dir("file"), "x", 1, 0600, false, &e), &e);
	assert_true(unix_listen(in_dir("file"), 0600, &l, &e) < 0);
	assert_int_equal(access(in_dir("file"), F_OK), 0);
}

static void the_rest(void **state)
{
	cleanup_free char *where = NULL;
	struct err e = { 0 };
	uint64_t a = now_mono_ns();
	int p[2];

	assert_true(now_mono_ns() >= a);
	assert_true(now_real_ns() > 1700000000ll * (int64_t)NS_PER_S);
	assert_ok(program_dir(&where, &e), &e);
	assert_int_equal(where[0], '/');
	assert_false(str_ends(where, "/"));
	assert_int_equal(pipe(p), 0);
	assert_int_equal(fd_set_nonblock(p[0], true), 0);
	assert_int_equal(fcntl(p[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	assert_int_equal(fd_set_nonblock(p[0], false), 0);
	assert_int_equal(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
	(void)close(p[0]);
	(void)close(p[1]);
	assert_int_equal(fd_set_nonblock(-1, true), -EBADF);
	assert_int_equal(write_all(-1, "x", 1), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ownership),
		cmocka_unit_test(strings),
		cmocka_unit_test(numbers),
		cmocka_unit_test(vectors),
		cmocka_unit_test(ids),
		cmocka_unit_test(reading),
		cmocka_unit_test(reading_all_sizes),
		cmocka_unit_test(atomic_writes),
		cmocka_unit_test(making_directories),
		cmocka_unit_test(removing_trees),
		cmocka_unit_test(removing_stops_at_mounts),
		cmocka_unit_test(removing_deep_trees),
		cmocka_unit_test(unix_sockets),
		cmocka_unit_test(unix_connect_does_not_wait),
		cmocka_unit_test(reserved_blocks),
		cmocka_unit_test(the_rest),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
