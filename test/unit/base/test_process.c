#include "test/lib/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "base/util.h"

static void signals(void **state)
{
	pid_t pid = fork();
	int fd, status;

	assert_true(pid >= 0);
	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(fd >= 0);
	assert_int_equal(pidfd_signal(fd, 0), 0);
	assert_int_equal(pidfd_signal(fd, 12345), -EINVAL);
	assert_int_equal(pidfd_signal(fd, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(pidfd_signal(fd, SIGKILL), -ESRCH);
	(void)close(fd);
	assert_int_equal(pidfd_signal(-1, SIGKILL), -ESRCH);
}

/* Those that are closed, and no others. */
static void standard_streams(void **state)
{
	pid_t pid = fork();
	struct stat null, st[3];
	int status, before;

	assert_true(pid >= 0);
	if (pid == 0) {
		before = dup(STDOUT_FILENO);
		(void)close(STDIN_FILENO);
		(void)close(STDERR_FILENO);
		if (open_std_fds() < 0 || stat("/dev/null", &null) < 0 ||
		    fstat(STDIN_FILENO, &st[0]) < 0 || fstat(STDOUT_FILENO, &st[1]) < 0 ||
		    fstat(STDERR_FILENO, &st[2]) < 0)
			_exit(1);
		if (st[0].st_rdev != null.st_rdev || st[2].st_rdev != null.st_rdev)
			_exit(2);
		if (fstat(before, &st[0]) < 0 || st[0].st_ino != st[1].st_ino ||
		    st[0].st_dev != st[1].st_dev)
			_exit(3);
		_exit(dup(STDOUT_FILENO) == before + 1 ? 0 : 4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static rlim_t soft(void)
{
	struct rlimit l;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
	return l.rlim_cur;
}

static void open_files(void **state)
{
	struct rlimit was, l;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	assert_true(was.rlim_max >= 200);
	l = (struct rlimit){ 100, was.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
	assert_int_equal(raise_nofile(150), 0);
	assert_int_equal(soft(), 150);
	/* Never lower. */
	assert_int_equal(raise_nofile(120), 0);
	assert_int_equal(soft(), 150);
	assert_int_equal(raise_nofile(RLIM_INFINITY), 0);
	assert_int_equal(soft(), was.rlim_max);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
}

static void paths(void **state)
{
	cleanup_free char *dir = NULL, *want = NULL;
	struct err err = { 0 };
	char *path = NULL;

	assert_ok(program_dir(&dir, &err), &err);
	want = str_fmt("%s/husk-vmm", dir);
	assert_ok(program_path(NULL, "husk-vmm", &path, &err), &err);
	assert_string_equal(path, want);
	free(path);
	assert_ok(program_path("", "husk-vmm", &path, &err), &err);
	assert_string_equal(path, want);
	free(path);
	assert_ok(program_path("/opt/vmm", "husk-vmm", &path, &err), &err);
	assert_string_equal(path, "/opt/vmm");
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals),
		cmocka_unit_test(standard_streams),
		cmocka_unit_test(open_files),
		cmocka_unit_test(paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
