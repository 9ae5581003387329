#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/spawn.h"
#include "base/util.h"

static char dir[] = "/tmp/test_spawn.XXXXXX";

static int set_up(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	return remove_tree(dir, NULL);
}

/* Runs the script with `s` prepared by the caller; its exit status, its output in `out`. */
static int run(struct spawn *s, char *out, size_t size)
{
	struct err e = { 0 };
	int p[2], pidfd, status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s->fds[1] = p[1];
	s->n_fds = MAX_OF(s->n_fds, 2);
	assert_ok(spawn_run(s, &pid, &pidfd, &e), &e);
	(void)close(p[1]);
	while ((n = read(p[0], out + len, size - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	(void)close(p[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	(void)close(pidfd);
	return status;
}

#define SH(script)                                                                                 \
	(char *const[])                                                                            \
	{                                                                                          \
		(char *)"sh", (char *)"-c", (char *)(script), NULL                                 \
	}

static void output_status_and_environment(void **state)
{
	char *env[] = { (char *)"A=1", (char *)"B=two words", NULL };
	struct spawn s = spawn_of("/bin/sh", SH("echo \"$A $B\"; exit 7"), OOM_SCORE_KEEP);
	char out[200];
	int st;

	s.envp = env;
	st = run(&s, out, sizeof(out));
	assert_true(WIFEXITED(st));
	assert_int_equal(WEXITSTATUS(st), 7);
	assert_string_equal(out, "1 two words\n");
	s.envp = NULL;
	assert_int_equal(setenv("A", "inherited", 1), 0);
	(void)run(&s, out, sizeof(out));
	assert_string_equal(out, "inherited \n");
}

static void directory(void **state)
{
	struct spawn s =
		spawn_of("/bin/pwd", (char *const[]){ (char *)"pwd", NULL }, OOM_SCORE_KEEP);
	struct err e = { 0 };
	char out[200];
	int pidfd = -2;
	pid_t pid = -2;

	s.cwd = dir;
	assert_int_equal(run(&s, out, sizeof(out)), 0);
	assert_int_equal(strncmp(out, dir, strlen(dir)), 0);
	s.cwd = "/no/such/dir";
	assert_int_equal(spawn_run(&s, &pid, &pidfd, &e), -ENOENT);
	assert_text(err_text(&e), "chdir: No such file");
	assert_int_equal(pid, -2);
	assert_int_equal(pidfd, -2);
}

static void exec_failures(void **state)
{
	cleanup_free char *file = str_fmt("%s/script", dir), *under = str_fmt("%s/x", file);
	char *argv[] = { (char *)"x", NULL };
	struct {
		const char *path;
		int code;
	} cases[] = {
		{ "/no/such/program", -ENOENT },
		{ dir, -EACCES },
		{ file, -EACCES },
		{ under, -ENOTDIR },
	};
	struct err e = { 0 };
	struct spawn s;
	int pidfd;
	pid_t pid;

	assert_int_equal(write_file_atomic(file, "neither\n", 8, 0644, false, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		s = spawn_of(cases[i].path, argv, OOM_SCORE_KEEP);
		assert_int_equal(spawn_run(&s, &pid, &pidfd, &e), cases[i].code);
		assert_text(err_text(&e), cases[i].path);
		assert_text(err_text(&e), strerror(-cases[i].code));
	}
	assert_int_equal(chmod(file, 0755), 0);
	s = spawn_of(file, argv, OOM_SCORE_KEEP);
	assert_int_equal(spawn_run(&s, &pid, &pidfd, &e), -ENOEXEC);
	/* Nothing is left to wait for. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void descriptors(void **state)
{
	struct spawn s = spawn_of("/bin/sh",
				  SH("ls /proc/self/fd | tr '\\n' ' '; cat <&4; cat <&5;"
				     " readlink /proc/$$/fd/0"),
				  OOM_SCORE_KEEP);
	int a[2], b[2], leaked;
	char out[400];

	assert_int_equal(pipe(a), 0);
	assert_int_equal(pipe(b), 0);
	/* Not CLOEXEC, and yet not inherited. */
	leaked = open("/dev/zero", O_RDONLY);
	assert_true(leaked >= 0);
	assert_int_equal(write(a[1], "first;", 6), 6);
	assert_int_equal(write(b[1], "second;", 7), 7);
	(void)close(a[1]);
	(void)close(b[1]);
	s.fds[4] = a[0];
	s.fds[5] = b[0];
	s.n_fds = 6;
	assert_int_equal(run(&s, out, sizeof(out)), 0);
	/* 3 is the directory that ls reads. */
	assert_string_equal(out, "0 1 2 3 4 5 first;second;/dev/null\n");
	(void)close(a[0]);
	(void)close(b[0]);
	(void)close(leaked);
	s.n_fds = SPAWN_MAX_FDS + 1;
	assert_int_equal(spawn_run(&s, &(pid_t){ 0 }, &(int){ 0 }, NULL), -EINVAL);
}

/* The wanted numbers are taken by each other: a cycle. */
static void descriptors_swapped(void **state)
{
	struct spawn s = spawn_of("/bin/sh", SH("cat <&3; cat <&4; cat <&5"), OOM_SCORE_KEEP);
	int fd[3], want[3] = { 4, 5, 3 };
	char out[100], path[100];

	for (int i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/f%d", dir, i);
		assert_int_equal(write_file_atomic(path, &"abc"[i], 1, 0600, false, NULL), 0);
	}
	for (int i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/f%d", dir, i);
		fd[i] = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(fd[i] >= 0);
	}
	/* Whatever numbers the files got here, the child sees them rotated. */
	for (int i = 0; i < 3; i++)
		s.fds[want[i]] = fd[i];
	s.n_fds = 6;
	assert_int_equal(run(&s, out, sizeof(out)), 0);
	assert_string_equal(out, "cab");
	for (int i = 0; i < 3; i++)
		(void)close(fd[i]);
}

static void signals_are_clean(void **state)
{
	struct spawn s = spawn_of("/bin/sh", SH("grep -E '^Sig(Blk|Ign)' /proc/self/status"),
				  OOM_SCORE_KEEP);
	sigset_t set, old;
	char out[200];

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	assert_int_equal(sigprocmask(SIG_BLOCK, &set, &old), 0);
	assert_true(signal(SIGHUP, SIG_IGN) != SIG_ERR);
	assert_true(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	assert_int_equal(run(&s, out, sizeof(out)), 0);
	assert_string_equal(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
	assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &set), 0);
	assert_int_equal(sigismember(&set, SIGTERM), 1);
	/* The child's clean-up did not touch ours. */
	assert_true(signal(SIGHUP, SIG_DFL) == SIG_IGN);
	assert_true(signal(SIGPIPE, SIG_DFL) == SIG_IGN);
	assert_int_equal(sigprocmask(SIG_SETMASK, &old, NULL), 0);
}

static void session(void **state)
{
	struct spawn s = spawn_of("/bin/sh", SH("cut -d' ' -f1,6 /proc/$$/stat"), OOM_SCORE_KEEP);
	int pid = 0, sid = 0;
	char out[100];

	s.new_session = true;
	assert_int_equal(run(&s, out, sizeof(out)), 0);
	assert_int_equal(sscanf(out, "%d %d", &pid, &sid), 2);
	assert_int_equal(pid, sid);
	s.new_session = false;
	assert_int_equal(run(&s, out, sizeof(out)), 0);
	assert_int_equal(sscanf(out, "%d %d", &pid, &sid), 2);
	assert_int_equal(sid, getsid(0));
}

/* A parent in between starts a grandchild that holds our pipe open, then dies. */
static void dies_with_its_parent(void **state)
{
	struct spawn s =
		spawn_of("/bin/sleep", (char *const[]){ (char *)"sleep", (char *)"100", NULL },
			 OOM_SCORE_KEEP);
	int p[2], pidfd, status;
	pid_t parent, pid;
	char c;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s.die_with_parent = true;
	s.fds[1] = p[1];
	s.n_fds = 2;
	parent = fork();
	assert_true(parent >= 0);
	if (parent == 0) {
		if (spawn_run(&s, &pid, &pidfd, NULL) < 0)
			_exit(1);
		_exit(0);
	}
	(void)close(p[1]);
	assert_int_equal(waitpid(parent, &status, 0), parent);
	assert_int_equal(status, 0);
	/* End of file: nobody has the other end any more. */
	assert_int_equal(read(p[0], &c, 1), 0);
	(void)close(p[0]);
}

/* A number for each child, and nothing by accident. */
static void oom_score(void **state)
{
	static const int scores[] = { 0, 1, 500, 1000 };
	struct spawn s;
	char want[16], out[64];

	for (size_t i = 0; i < ARRAY_SIZE(scores); i++) {
		s = spawn_of("/bin/sh", SH("cat /proc/$$/oom_score_adj"), scores[i]);
		(void)snprintf(want, sizeof(want), "%d\n", scores[i]);
		assert_int_equal(run(&s, out, sizeof(out)), 0);
		assert_string_equal(out, want);
	}
	/* The parent's own stayed. */
	s = spawn_of("/bin/sh",
		     SH("[ $(cat /proc/$$/oom_score_adj) = $(cat /proc/$PPID/oom_score_adj) ]"),
		     OOM_SCORE_KEEP);
	assert_int_equal(run(&s, out, sizeof(out)), 0);
	s = spawn_of("/bin/sh", SH("[ $(cat /proc/$PPID/oom_score_adj) != 1000 ]"), 1000);
	assert_int_equal(run(&s, out, sizeof(out)), 0);
}

/* What the kernel refuses is no reason not to start. */
static void oom_score_refused(void **state)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	struct spawn s = spawn_of(
		"/bin/sh",
		SH("[ $(cat /proc/$$/oom_score_adj) = $(cat /proc/$PPID/oom_score_adj) ]"), -998);
	char out[64];
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (syscall(SYS_capget, &head, data) < 0)
			_exit(99);
		data[0].effective &= ~(1u << CAP_SYS_RESOURCE);
		if (syscall(SYS_capset, &head, data) < 0)
			_exit(98);
		_exit(run(&s, out, sizeof(out)) != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_status_and_environment),
		cmocka_unit_test(directory),
		cmocka_unit_test(exec_failures),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(descriptors_swapped),
		cmocka_unit_test(signals_are_clean),
		cmocka_unit_test(session),
		cmocka_unit_test(dies_with_its_parent),
		cmocka_unit_test(oom_score),
		cmocka_unit_test(oom_score_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
