/*
 * The parts of cgroups that read and walk: plain directories with files of the same names stand for
 * cgroup2, so no root is needed. What the kernel does with them is test_agent_host's.
 */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/limits.h"
#include "agent/proc/cgroup.h"
#include "base/util.h"

static char dir[] = "/tmp/test_agent_cgroup.XXXXXX";
static int root;
static struct err err;

static int set_up(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/test_agent_cgroup.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	close(root);
	return remove_tree(dir, NULL);
}

static void put(const char *path, const char *text)
{
	cleanup_fd int fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write_all(fd, text, strlen(text)), 0);
}

static void make(const char *path)
{
	assert_int_equal(mkdirat(root, path, 0755), 0);
}

static bool has(const pid_t *pids, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* The limit comes with its own call alone; one that cannot be set is an error with its value. */
static void test_limit_cpu(void **state)
{
	Agent__CreateContainerRequest__CgroupEntry weight =
		AGENT__CREATE_CONTAINER_REQUEST__CGROUP_ENTRY__INIT;
	Agent__CreateContainerRequest__CgroupEntry max = weight;
	Agent__CreateContainerRequest__CgroupEntry *list[] = { &weight, &max };
	Agent__CreateContainerRequest req = AGENT__CREATE_CONTAINER_REQUEST__INIT;
	char text[32] = "";
	cleanup_fd int fd = -1;

	weight.key = (char *)"cpu.weight";
	weight.value = (char *)"7";
	max.key = (char *)"cpu.max";
	max.value = (char *)"1000 100000";
	req.cgroup = list;
	req.n_cgroup = 1;
	assert_false(cgroup_limits_cpu(&req));
	assert_ok(cgroup_limit_cpu(root, &req, &err), &err);
	req.n_cgroup = 2;
	assert_true(cgroup_limits_cpu(&req));
	assert_int_equal(cgroup_limit_cpu(root, &req, &err), -ENOENT);
	assert_text(err_text(&err), "cpu.max = \"1000 100000\"");
	put("cpu.max", "max 100000");
	assert_ok(cgroup_limit_cpu(root, &req, &err), &err);
	fd = openat(root, "cpu.max", O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, text, sizeof(text) - 1) >= 11);
	assert_memory_equal(text, "1000 100000", 11);
}

static void test_pids(void **state)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;

	put("cgroup.procs", "12\n345\n");
	make("a");
	put("a/cgroup.procs", "");
	make("a/b");
	put("a/b/cgroup.procs", "67890\n1\n");
	make("c"); /* no file: as if it went away meanwhile */
	put("not-a-directory", "99\n");
	assert_ok(cgroup_pids(root, &pids, &n, &err), &err);
	assert_int_equal(n, 4);
	assert_true(has(pids, n, 12) && has(pids, n, 345) && has(pids, n, 67890) &&
		    has(pids, n, 1));
}

/* More than one read of the file, so a number lies across two of them; and one pid too many. */
static void test_many_pids(void **state)
{
	cleanup_free pid_t *pids = NULL;
	cleanup_free char *text = NULL;
	size_t n = 0, len = 0;

	text = malloc(8 * (AGENT_PIDS_MAX + 1) + 1);
	assert_non_null(text);
	for (unsigned i = 0; i < AGENT_PIDS_MAX; i++)
		len += (size_t)snprintf(text + len, 8, "%u\n", 100000 + i);
	put("cgroup.procs", text);
	assert_ok(cgroup_pids(root, &pids, &n, &err), &err);
	assert_int_equal(n, AGENT_PIDS_MAX);
	for (unsigned i = 0; i < AGENT_PIDS_MAX; i++)
		assert_int_equal(pids[i], 100000 + i);
	make("one-more");
	put("one-more/cgroup.procs", "7\n");
	assert_int_equal(cgroup_pids(root, &pids, &n, &err), -E2BIG);
}

static void test_numbers(void **state)
{
	char text[8] = { 0 };
	int fd;

	assert_int_equal(cgroup_oom_kills(root), 0); /* no memory controller */
	put("memory.events", "low 0\noom 9\noom_kill 3\noom_group_kill 5\n");
	assert_int_equal(cgroup_oom_kills(root), 3);
	assert_int_equal(cgroup_kill(root), -ENOENT);
	put("cgroup.kill", "");
	assert_int_equal(cgroup_kill(root), 0);
	fd = openat(root, "cgroup.kill", O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, text, sizeof(text)), 1);
	assert_string_equal(text, "1");
	close(fd);
}

static void test_remove(void **state)
{
	make("c1");
	make("c1/a");
	make("c1/a/deep");
	make("c1/b");
	make("other");
	assert_int_equal(cgroup_remove(root, "c1"), 0);
	assert_int_equal(faccessat(root, "c1", F_OK, 0), -1);
	assert_int_equal(faccessat(root, "other", F_OK, 0), 0);
	assert_int_equal(cgroup_remove(root, "c1"), 0); /* is gone already */
	/* What cannot be removed is told, and nothing is followed out of it. */
	make("c2");
	put("c2/busy", "");
	assert_int_equal(symlinkat("../other", root, "c2/link"), 0);
	assert_int_equal(cgroup_remove(root, "c2"), -ENOTEMPTY);
	assert_int_equal(faccessat(root, "other", F_OK, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_limit_cpu, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pids, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many_pids, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_numbers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_remove, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
