/* What huskd gives its workers beside their descriptors: a user each. This program is the worker,
 * too: it says which options it got, and waits to be killed. */
#include "test/lib/unit.h"

#include <errno.h>
#include <unistd.h>

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
	assert_true(loop_once(loop, 5000) >= 0);
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_process_has_a_uid_of_its_own, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(no_user_of_the_host_is_a_worker, set_up, tear_down),
	};

	if (argc > 3 && str_eq(argv[3], "wait")) {
		dprintf(1, "%s %s %s", argv[1], argv[2], argv[3]);
		for (;;)
			pause();
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
