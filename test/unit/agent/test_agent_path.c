#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/rootfs/path.h"
#include "base/util.h"

static char dir[] = "/tmp/test_agent_path.XXXXXX";
static int root;

static int set_up(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return root < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	close(root);
	return remove_tree(dir, NULL);
}

static int make(const char *path, enum path_kind kind)
{
	int fd, r = path_make(root, path, kind, &fd);

	if (r == 0)
		close(fd);
	return r;
}

static bool below(const char *path)
{
	return faccessat(root, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void test_plain(void **state)
{
	assert_int_equal(make("/a/b/c", PATH_DIR), 0);
	assert_int_equal(make("/a/b/c", PATH_DIR), 0);
	assert_int_equal(make("//a//b/f", PATH_FILE), 0);
	assert_true(below("a/b/f"));
	assert_int_equal(make("/a/b/f", PATH_DIR), -ENOTDIR);
	assert_int_equal(make("/a/b/f/x", PATH_DIR), -ENOTDIR);
	assert_int_equal(make("/a/b", PATH_FILE), -EISDIR);
	assert_int_equal(make("/", PATH_DIR), 0);
	assert_int_equal(make("/a/b/new/", PATH_DIR), 0);
	assert_true(below("a/b/new"));
}

static void test_links(void **state)
{
	/* To nothing, relative, upwards and absolute: all of it below the root. */
	assert_int_equal(symlinkat("/var/target/file", root, "abs"), 0);
	assert_int_equal(make("/abs", PATH_FILE), 0);
	assert_true(below("var/target/file"));
	assert_int_equal(mkdirat(root, "etc", 0755), 0);
	assert_int_equal(symlinkat("../run/stub/resolv.conf", root, "etc/resolv.conf"), 0);
	assert_int_equal(make("/etc/resolv.conf", PATH_FILE), 0);
	assert_true(below("run/stub/resolv.conf"));
	assert_int_equal(symlinkat("../../../../../../tmp/husk-escape", root, "up"), 0);
	assert_int_equal(make("/up/dir", PATH_DIR), 0);
	assert_true(below("tmp/husk-escape/dir"));
	assert_int_equal(access("/tmp/husk-escape", F_OK), -1);
	assert_int_equal(symlinkat("one/two", root, "mid"), 0);
	assert_int_equal(make("/mid/three", PATH_DIR), 0);
	assert_true(below("one/two/three"));
	assert_int_equal(symlinkat("loop2", root, "loop1"), 0);
	assert_int_equal(symlinkat("loop1", root, "loop2"), 0);
	assert_int_equal(make("/loop1", PATH_DIR), -ELOOP);
	assert_int_equal(symlinkat("self", root, "self"), 0);
	assert_int_equal(make("/self/x", PATH_FILE), -ELOOP);
}

static void test_long(void **state)
{
	char path[5000];

	memset(path, 'a', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(make(path, PATH_DIR), -ENAMETOOLONG);
	path[400] = '\0';
	assert_int_equal(make(path, PATH_DIR), -ENAMETOOLONG);
}

static void test_numbers(void **state)
{
	uint64_t n;
	int d;

	assert_int_equal(make("/events", PATH_FILE), 0);
	d = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(write_at(d, "events", "low 0\noom 4\noom_kill 17\n"), 0);
	assert_int_equal(read_number_at(d, "events", "oom_kill", &n), 0);
	assert_int_equal(n, 17);
	assert_int_equal(read_number_at(d, "events", "oom", &n), 0);
	assert_int_equal(n, 4);
	assert_int_equal(read_number_at(d, "events", "none", &n), -ENOENT);
	assert_int_equal(read_number_at(d, "events", NULL, &n), -EINVAL);
	assert_int_equal(read_number_at(d, "nofile", NULL, &n), -ENOENT);
	close(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
