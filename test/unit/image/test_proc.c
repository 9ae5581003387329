/* What huskd gives its workers beside their descriptors: a user each, and a standard error that it
 * reads itself. This program is the worker, too: it says which options it got and waits to be
 * killed, or shouts. */
#include "test/lib/unit.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "image/job/proc.h"

#define FIRST 1879048192u

static struct loop *loop;
static struct procs procs;
static char *const wait_args[] = { (char *)"wait", NULL };

static int set_up(void **state)
{
	struct err err = { 0 };

	assert_ok(loop_new(&loop, &err), &err);
	procs = (struct procs){ 0 };
	assert_ok(procs_init(&procs, loop, "/proc/self/exe", &err), &err);
	return 0;
}

static int tear_down(void **state)
{
	procs_close(&procs);
	loop_free(loop);
	return 0;
}

static void proc_on_end(void *owner, int status)
{
}

/* The uid that the child was given. */
static unsigned start(struct proc **ret)
{
	struct err err = { 0 };
	char text[64] = "";
	int p[2], fds[3];
	unsigned uid = 0;

	assert_int_equal(pipe(p), 0);
	fds[0] = fds[2] = -1;
	fds[1] = p[1];
	assert_ok(proc_start(&procs, wait_args, fds, 3, proc_on_end, NULL, ret, &err), &err);
	close(p[1]);
	assert_true(read(p[0], text, sizeof(text) - 1) > 0);
	close(p[0]);
	assert_int_equal(sscanf(text, "--uid %u wait", &uid), 1);
	return uid;
}

static void each_process_has_a_uid_of_its_own(void **state)
{
	struct proc *p[3], *more;
	unsigned uid[3];
	struct err err = { 0 };
	const int none[3] = { -1, -1, -1 };

	assert_ok(procs_set_uids(&procs, FIRST, 3, &err), &err);
	for (size_t k = 0; k < 3; k++) {
		uid[k] = start(&p[k]);
		assert_in_range(uid[k], FIRST, FIRST + 2);
	}
	assert_true(uid[0] != uid[1] && uid[1] != uid[2] && uid[0] != uid[2]);
	assert_int_equal(proc_start(&procs, wait_args, none, 3, proc_on_end, NULL, &more, &err),
			 -EAGAIN);
	assert_text(err_text(&err), "worker-uids");
	/* One that is killed keeps its uid until it is reaped: it may still run. */
	proc_drop(p[1]);
	assert_int_equal(proc_start(&procs, wait_args, none, 3, proc_on_end, NULL, &more, &err),
			 -EAGAIN);
	for (int k = 0; k < 100; k++)
		assert_true(loop_once(loop, 10) >= 0);
	assert_int_equal(start(&more), uid[1]);
}

static void no_user_of_the_host_is_a_worker(void **state)
{
	struct err err = { 0 };

	assert_int_equal(procs_set_uids(&procs, 0, 1, &err), -EINVAL);
	assert_text(err_text(&err), "root");
	assert_int_equal(procs_set_uids(&procs, 60000, 10000, &err), -EINVAL);
	assert_text(err_text(&err), "nobody");
	assert_ok(procs_set_uids(&procs, PROC_UID_FIRST, PROC_UIDS, &err), &err);
}

/* huskd in a container that has 65,536 users, say: here it has none at all. */
static void a_user_namespace_without_those_users(void **state)
{
	struct err err = { 0 };
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER) < 0)
			_exit(1);
		if (procs_set_uids(&procs, PROC_UID_FIRST, PROC_UIDS, &err) < 0)
			_exit(2);
		_exit(procs.uids == 0 ? 0 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- what a worker says ---- */

static bool ended;

static void proc_on_shouted(void *owner, int status)
{
	ended = true;
}

/* What huskd has logged of a worker in `mode`. */
static char *logged(const char *mode)
{
	char *const args[] = { (char *)mode, NULL };
	const int fds[3] = { -1, -1, -1 };
	FILE *f = tmpfile();
	struct err err = { 0 };
	struct proc *p;
	char *text = NULL;

	assert_non_null(f);
	log_init("huskd", fileno(f), LOG_INFO, false);
	ended = false;
	assert_ok(proc_start(&procs, args, fds, 3, proc_on_shouted, NULL, &p, &err), &err);
	while (!ended)
		assert_true(loop_once(loop, 10000) > 0);
	log_init("huskd", 2, LOG_INFO, false);
	assert_int_equal(lseek(fileno(f), 0, SEEK_SET), 0);
	assert_ok(read_fd(fileno(f), 16 * MIB, &text, NULL), &err);
	(void)fclose(f);
	return text;
}

static size_t lines_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void a_worker_cannot_write_lines_of_huskd(void **state)
{
	cleanup_free char *text = logged("forge");

	assert_int_equal(lines_of(text), 3);
	assert_text(text, "an image worker says");
	assert_text(text, "mode=forge");
	assert_text(text, "huskd: pod ready");
	assert_text(text, "?[2Jcolours? and?controls");
	assert_text(text, "no end of line");
	for (const char *line = text; *line; line = strchr(line, '\n') + 1)
		assert_true(strstr(line, "an image worker says") < strchr(line, '\n'));
}

static void a_worker_cannot_flood_the_log(void **state)
{
	cleanup_free char *text = logged("flood");

	assert_in_range(lines_of(text), 1, LOG_SITE_LINES + 1);
	assert_in_range(strlen(text), 1, 32 * KIB);
}

/* The worker of these modes. */
static int shout(const char *mode)
{
	static const char forged[] =
		"2026-01-01T00:00:00Z INFO huskd: pod ready pod=x\n"
		"\033[2Jcolours\r and\001controls\n\n\nno end of line";
	char line[1000];

	if (str_eq(mode, "forge"))
		return write(2, forged, sizeof(forged) - 1) < 0;
	(void)signal(SIGPIPE, SIG_IGN);
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (int k = 0; k < 100000; k++)
		if (write(2, line, sizeof(line)) < 0)
			return 0; /* nobody listens any more */
	return 1;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_process_has_a_uid_of_its_own, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_worker_cannot_write_lines_of_huskd, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_worker_cannot_flood_the_log, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_user_of_the_host_is_a_worker, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_user_namespace_without_those_users, set_up,
						tear_down),
	};

	if (argc == 2 && (str_eq(argv[1], "forge") || str_eq(argv[1], "flood")))
		return shout(argv[1]);
	if (argc > 3 && str_eq(argv[3], "wait")) {
		dprintf(1, "%s %s %s", argv[1], argv[2], argv[3]);
		for (;;)
			pause();
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
