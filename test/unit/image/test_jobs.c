/* The list of jobs: by kind, ended once, stopped by the engine. */
#include "test/lib/unit.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "image/job/jobs.h"
#include "test/lib/aborts.h"

struct work {
	struct job job;
	int stopped;	     /* code it was stopped with */
	struct work *cancel; /* another one that ends with it */
};

static void work_on_stop(struct job *j, const struct err *why)
{
	struct work *w = container_of(j, struct work, job);

	assert_int_equal(w->stopped, 0);
	w->stopped = why->code;
	if (w->cancel)
		job_remove(&w->cancel->job);
	job_remove(j);
}

static void kinds(void **state)
{
	struct jobs js = { 0 };
	struct work pulls[3] = { 0 }, push = { 0 };
	size_t n = 0;

	assert_null(job_first(&js, JOB_PULL));
	for (size_t k = 0; k < ARRAY_SIZE(pulls); k++) {
		job_add(&js, &pulls[k].job, JOB_PULL, work_on_stop);
		if (k == 0)
			job_add(&js, &push.job, JOB_PUSH, work_on_stop);
	}
	for (struct job *j = job_first(&js, JOB_PULL); j; j = job_next(j), n++)
		assert_int_equal(j->kind, JOB_PULL);
	assert_int_equal(n, 3);
	assert_ptr_equal(job_first(&js, JOB_PUSH), &push.job);
	assert_null(job_next(&push.job));
	assert_null(job_first(&js, JOB_LOAD));
	/* from the middle, from the front, from the end */
	job_remove(&pulls[1].job);
	job_remove(&pulls[2].job);
	job_remove(&pulls[0].job);
	assert_null(job_first(&js, JOB_PULL));
	assert_ptr_equal(job_first(&js, JOB_PUSH), &push.job);
	/* one that has ended may run again */
	job_add(&js, &pulls[1].job, JOB_PULL, work_on_stop);
	assert_ptr_equal(job_first(&js, JOB_PULL), &pulls[1].job);
}

static void stop_all(void **state)
{
	struct jobs js = { 0 };
	struct work pull = { 0 }, load = { .cancel = &pull }, login = { 0 };
	struct err why = { 0 };

	(void)err_set(&why, -ECANCELED, "the image store is closing");
	jobs_stop(&js, &why);
	job_add(&js, &pull.job, JOB_PULL, work_on_stop);
	job_add(&js, &load.job, JOB_LOAD, work_on_stop);
	job_add(&js, &login.job, JOB_LOGIN, work_on_stop);
	jobs_stop(&js, &why);
	assert_null(js.list);
	assert_int_equal(login.stopped, -ECANCELED);
	assert_int_equal(load.stopped, -ECANCELED);
	assert_int_equal(pull.stopped, 0); /* a load's pull ends with the load */
}

/* ---- what only a bug of ours can do ---- */

static void end_twice(void *arg)
{
	struct jobs js = { 0 };
	struct work w = { 0 };

	job_add(&js, &w.job, JOB_PULL, work_on_stop);
	job_remove(&w.job);
	job_remove(&w.job);
}

static void add_twice(void *arg)
{
	struct jobs js = { 0 };
	struct work w = { 0 };

	job_add(&js, &w.job, JOB_PULL, work_on_stop);
	job_add(&js, &w.job, JOB_PULL, work_on_stop);
}

static void ignore_stop(struct job *j, const struct err *why)
{
}

static void stop_in_vain(void *arg)
{
	const struct err why = { 0 };
	struct jobs js = { 0 };
	struct work w = { 0 };

	job_add(&js, &w.job, JOB_PULL, ignore_stop);
	jobs_stop(&js, &why);
}

static void invariants(void **state)
{
	assert_aborts(end_twice, NULL, "job_remove");
	assert_aborts(add_twice, NULL, "job_add");
	assert_aborts(stop_in_vain, NULL, "jobs_stop");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kinds),
		cmocka_unit_test(stop_all),
		cmocka_unit_test(invariants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
