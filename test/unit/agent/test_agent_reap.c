/* Reaping and workers: real children of this process. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/proc/clone.h"
#include "agent/proc/reap.h"
#include "agent/work/worker.h"
#include "base/util.h"

static struct loop *loop;
static struct reaper reaper;
static struct err err;
static unsigned n_done;
static int last_status;

static int set_up(void **state)
{
	n_done = 0;
	assert_ok(loop_new(&loop, &err), &err);
	assert_ok(reaper_init(&reaper, loop, &err), &err);
	return 0;
}

static int tear_down(void **state)
{
	reaper_fini(&reaper);
	loop_free(loop);
	return 0;
}

/* Runs the loop until `n` callbacks came, at most 10 s. */
static void wait_done(unsigned n)
{
	for (int i = 0; i < 1000 && n_done < n; i++)
		assert_true(loop_once(loop, 10) >= 0);
	assert_int_equal(n_done, n);
}

static void on_end(struct child *c, int status)
{
	assert_int_equal(c->pid, 0); /* is off the table, so its memory may go */
	last_status = status;
	n_done++;
}

static pid_t child_with(int code, int sig)
{
	const struct clone_job job = { .cgroup = -1 };
	pid_t pid = clone_process(&job, NULL);

	assert_true(pid >= 0);
	if (pid == 0) {
		if (sig)
			(void)kill(getpid(), sig);
		_exit(code);
	}
	return pid;
}

static void test_status(void **state)
{
	struct child c;

	reaper_add(&reaper, &c, child_with(7, 0), on_end, NULL);
	wait_done(1);
	assert_int_equal(exit_status_of(last_status), 7);
	reaper_add(&reaper, &c, child_with(0, SIGKILL), on_end, NULL);
	wait_done(2);
	assert_int_equal(exit_status_of(last_status), 128 + SIGKILL);
}

/* Many at once, with some that nobody waits for; several SIGCHLD become one. */
static void test_many(void **state)
{
	static struct child c[40];
	pid_t strangers[5];

	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		reaper_add(&reaper, &c[i], child_with(1, 0), on_end, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(strangers); i++)
		strangers[i] = child_with(2, 0);
	reaper_del(&reaper, &c[3]);
	reaper_del(&reaper, &c[3]);
	wait_done(ARRAY_SIZE(c) - 1);
	for (size_t i = 0; i < ARRAY_SIZE(strangers); i++) {
		for (int turns = 0; turns < 1000 && kill(strangers[i], 0) == 0; turns++)
			assert_true(loop_once(loop, 10) >= 0);
		assert_int_equal(kill(strangers[i], 0), -1); /* reaped, too */
	}
}

static void on_worker(struct worker *w, int result)
{
	last_status = result;
	n_done++;
}

static int work(void *arg)
{
	const int *what = arg;

	if (*what == SIGTERM)
		raise(SIGTERM);
	return *what;
}

static void test_worker(void **state)
{
	static const struct {
		int what, result;
	} cases[] = { { 0, 0 }, { -EBUSY, -EBUSY }, { -ENOSPC, -ENOSPC }, { SIGTERM, -EIO } };

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct worker w;
		int what = cases[i].what;

		assert_int_equal(worker_start(&reaper, &w, work, &what, NULL, 0, on_worker), 0);
		wait_done(i + 1);
		assert_int_equal(last_status, cases[i].result);
	}
}

/* The descriptors of `fds` that are open in here, as bits. */
static int open_fds(void *arg)
{
	const int *fds = arg;
	int bits = 0;

	for (int i = 0; i < 6; i++)
		bits |= fcntl(fds[i], F_GETFD) >= 0 ? 1 << i : 0;
	return -bits;
}

/* No copy of the agent keeps the pipes of others open. */
static void test_worker_descriptors(void **state)
{
	struct worker w;
	int fds[6], keep[4];

	for (int i = 0; i < 6; i += 2)
		assert_int_equal(pipe(fds + i), 0);
	/* In any order, twice, and one that is not there. */
	keep[0] = fds[4];
	keep[1] = -1;
	keep[2] = fds[1];
	keep[3] = fds[4];
	assert_int_equal(worker_start(&reaper, &w, open_fds, fds, keep, 4, on_worker), 0);
	wait_done(1);
	assert_int_equal(last_status, -(1 << 1 | 1 << 4));
	assert_int_equal(worker_start(&reaper, &w, open_fds, fds, NULL, 0, on_worker), 0);
	wait_done(2);
	assert_int_equal(last_status, 0);
	for (int i = 0; i < 6; i++)
		close(fds[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_status, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_worker, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_worker_descriptors, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
