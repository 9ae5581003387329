/* The record of a pod's processes, and the lock between start and delete. */
#include "test/lib/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/pids.h"
#include "test/lib/tmpdir.h"

static void test_pids(void **state)
{
	struct pid_entry list[] = { { "shim", 0 }, { "vmm", 0 }, { "qemu", 0 } };
	char *path = in_tmpdir(PIDS_FILE), *text, *changed;
	struct err err = { 0 };
	pid_t child = fork();
	int status;

	assert_int_equal(pids_kill("/nonexistent", 100, &err), 0);
	if (child == 0) {
		(void)pause();
		_exit(0);
	}
	list[1].pid = child;
	assert_int_equal(pids_write(tmpdir, list, 3, &err), 0);
	assert_int_equal(read_file(path, 4096, &text, NULL, &err), 0);
	assert_true(str_starts(text, "vmm "));
	/* Another process with that number, by its start time: not touched. */
	changed = str_fmt("%.*s1\n", (int)strcspn(text, "\n"), text);
	assert_int_equal(write_file_atomic(path, changed, strlen(changed), 0600, false, &err), 0);
	assert_int_equal(pids_kill(tmpdir, 100, &err), 0);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	assert_int_equal(write_file_atomic(path, text, strlen(text), 0600, false, &err), 0);
	assert_int_equal(pids_kill(tmpdir, 2000, &err), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(pids_kill(tmpdir, 100, &err), 0);
	assert_int_equal(
		write_file_atomic(path, "vmm x y\n\n-1\nshim 1 1\n", 20, 0600, false, &err), 0);
	assert_int_equal(pids_kill(tmpdir, 100, &err), 0);
	free(text);
	free(changed);
	free(path);
}

static int score_of(pid_t pid)
{
	cleanup_free char *path = str_fmt("/proc/%d/oom_score_adj", (int)pid), *text = NULL;

	assert_int_equal(read_file(path, 100, &text, NULL, NULL), 0);
	return (int)strtol(text, NULL, 10);
}

/* Of a child alone, and of the one that is meant. */
static void test_pids_of_children(void **state)
{
	uint64_t start = 0, mine = 0;
	pid_t child = fork();
	int status;

	if (child == 0) {
		(void)pause();
		_exit(0);
	}
	assert_int_equal(pids_start_time(child, getpid(), &start), 0);
	assert_true(start > 0);
	assert_int_equal(pids_start_time(child, child, &mine), -ESRCH);
	assert_int_equal(pids_start_time(getpid(), getpid(), &mine), -ESRCH);
	assert_int_equal(pids_start_time(1, getpid(), &mine), -ESRCH);
	assert_int_equal(mine, 0);
	assert_int_equal(pids_set_oom_score(child, getpid(), start, 321), 0);
	assert_int_equal(score_of(child), 321);
	assert_int_equal(pids_set_oom_score(child, getpid(), start + 1, 400), -ESRCH);
	assert_int_equal(pids_set_oom_score(child, child, start, 400), -ESRCH);
	assert_int_equal(score_of(child), 321);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(pids_start_time(child, getpid(), &start), -ESRCH);
}

/* A `start` that still runs keeps `delete` out, and a `start` after `delete` gives up. */
static void test_pids_lock(void **state)
{
	char *path = in_tmpdir(PIDS_LOCK);
	struct err err = { 0 };
	int fd, ready[2], status;
	uint64_t before;
	pid_t child;
	char byte;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		byte = 'x';
		if (pids_lock(tmpdir, &fd, NULL) < 0 || pids_lock_check(fd, NULL) < 0 ||
		    write(ready[1], &byte, 1) != 1)
			_exit(1);
		(void)usleep(100000);
		_exit(0); /* its daemon is recorded, or it died */
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	before = now_mono_ns();
	assert_int_equal(pids_lock(tmpdir, &fd, &err), 0);
	assert_true(now_mono_ns() - before > 20 * NS_PER_MS);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(pids_lock_check(fd, &err), 0);
	assert_int_equal(pids_lock_mark(fd, &err), 0);
	(void)close(fd);
	assert_int_equal(pids_lock(tmpdir, &fd, &err), 0);
	assert_int_equal(pids_lock_check(fd, &err), -ESTALE);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(pids_lock_check(fd, &err), -ESTALE);
	(void)close(fd);
	assert_int_equal(pids_lock("/nonexistent", &fd, &err), -ENOENT);
	(void)close(ready[0]);
	(void)close(ready[1]);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pids),
		cmocka_unit_test(test_pids_of_children),
		cmocka_unit_test(test_pids_lock),
	};

	return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
