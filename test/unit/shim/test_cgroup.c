/* The pod's cgroup: where it is, what it kills, that it goes. */
#include "test/lib/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/cgroup.h"

static char *path_of(const char *parent, uint64_t bytes)
{
	struct err err = { 0 };
	char *path = NULL;
	int r = cgroup_path(parent, "test", bytes, &path, &err);

	if (r == -EOPNOTSUPP) {
		print_message("skipped: %s\n", err_text(&err));
		skip();
	}
	assert_ok(r, &err);
	return path;
}

static void test_path(void **state)
{
	static const char *const wrong[] = { "..", "../x", "/a/../../x", "/a/..", "/a\nb" };
	cleanup_free char *own = path_of("", 1), *missing = path_of("/no/such/parent", 1);
	cleanup_free char *slice = path_of("no-such-one.slice", 1);
	struct err err = { 0 };
	char *path = NULL;

	assert_true(str_ends(own, CGROUP_OWN "/husk-test"));
	assert_true(str_starts(own, "/sys/fs/cgroup/"));
	assert_string_equal(missing, own);
	assert_string_equal(slice, own);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(cgroup_path(wrong[i], "test", 1, &path, &err), -EINVAL);
	assert_null(path);
	assert_int_equal(cgroup_remove("/sys/fs/cgroup/none/such"), 0);
}

/* Processes in it end together, and with them it can go; a parent that is given is taken. */
static void test_kill(void **state)
{
	cleanup_free char *own = path_of("", 1), *parent = NULL, *below = NULL, *limit = NULL;
	struct err err = { 0 };
	pid_t child[3];
	int status, r = cgroup_make(own, &err);

	if (r == -EROFS || r == -EACCES || r == -EPERM) {
		print_message("skipped: %s\n", err_text(&err));
		skip();
	}
	assert_ok(r, &err);
	assert_ok(cgroup_make(own, &err), &err); /* again is fine */
	r = cgroup_limit_memory(own, 300 * MIB, &err);
	if (r == -ENOENT) { /* v2, and nothing that counts memory comes down to it */
		assert_int_equal(cgroup_remove(own), 0);
		print_message("skipped: %s\n", err_text(&err));
		skip();
	}
	assert_ok(r, &err);
	for (int i = 0; i < 3; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			(void)pause();
			_exit(0);
		}
		assert_ok(cgroup_add(own, child[i], &err), &err);
	}
	assert_int_equal(cgroup_remove(own), -EBUSY);
	assert_int_equal(cgroup_kill(own), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(waitpid(child[i], &status, 0), child[i]);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	assert_int_equal(cgroup_kill(own), 0);
	/* As the parent of another one: it has room for 200 MiB, not for 400. */
	parent = str_fmt("%s", strstr(own, CGROUP_OWN));
	below = path_of(parent, 200 * MIB);
	assert_true(str_starts(below, own) && str_ends(below, "/husk-test/husk-test"));
	limit = path_of(parent, 400 * MIB);
	assert_string_equal(limit, own);
	assert_int_equal(cgroup_remove(own), 0);
	assert_int_equal(cgroup_remove(own), 0);
	assert_int_equal(cgroup_kill(own), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_kill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
