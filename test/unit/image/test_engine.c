/* The door, image.h: what opening and closing do to jobs. Workers are stubs; there is no
 * registry. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/image.h"
#include "test/lib/store_dir.h"

static struct image_store *open_engine(const char *worker)
{
	const struct image_store_options o = {
		.loop = store_loop, .dir = store_dir_path, .worker = worker, .arch = "amd64"
	};
	struct image_store *s = NULL;
	struct err err = { 0 };

	assert_ok(image_store_open(&o, &s, &err), &err);
	return s;
}

static void no_worker(void **state)
{
	const struct image_store_options o = { .loop = store_loop,
					       .dir = store_dir_path,
					       .worker = "/no/worker" };
	struct image_pull *p;
	struct image_store *s;
	struct err err = { 0 };

	assert_ok(image_store_open(&o, &s, &err), &err);
	assert_int_equal(image_pull(s, "a:b:c", NULL, NULL, NULL, NULL, &p, &err), -EINVAL);
	assert_int_equal(image_pull(s, "a", NULL, NULL, NULL, NULL, &p, &err), -ENOENT);
	assert_text(err.msg, "/no/worker");
	image_store_close(s);
}

static void on_done(void *arg, int code, const struct image_pull_result *r, const struct err *err)
{
	*(int *)arg = code;
	loop_stop(store_loop, 0);
}

/* /bin/false as the worker: it dies at once, and the pull ends with an error. */
static void dead_worker(void **state)
{
	struct image_store *s = open_engine("/bin/false");
	struct image_pull *p;
	struct err err = { 0 };
	int code = 1;

	if (image_pull(s, "a", NULL, NULL, on_done, &code, &p, &err) == 0)
		assert_int_equal(loop_run(store_loop), 0);
	else
		code = err.code;
	assert_true(code < 0);
	image_store_close(s);
}

/* Jobs that are running when the store closes end with -ECANCELED, each once. */
struct ends {
	int pull, login, load;
};

static void end_pull(void *arg, int code, const struct image_pull_result *r, const struct err *err)
{
	struct ends *e = arg;

	assert_int_equal(e->pull, 0);
	e->pull = code;
}

static void end_login(void *arg, int code, const struct err *err)
{
	struct ends *e = arg;

	assert_int_equal(e->login, 0);
	e->login = code;
	assert_text(err->msg, "closing");
}

static void end_load(void *arg, int code, const struct err *err)
{
	struct ends *e = arg;

	assert_int_equal(e->load, 0);
	e->load = code;
}

static void close_with_jobs(void **state)
{
	static const char text[] = "#!/bin/sh\nexec sleep 60\n";
	const struct image_load_ops ops = { .done = end_load };
	cleanup_free char *worker = path_in("worker");
	struct image_login *login, *cancelled;
	struct ends ends = { 0 }, none = { 0 };
	struct image_store *s;
	struct image_pull *p;
	struct image_load *l;
	struct err err = { 0 };

	assert_ok(write_file_atomic(worker, text, strlen(text), 0700, false, &err), &err);
	s = open_engine(worker);
	assert_ok(image_pull(s, "a", NULL, NULL, end_pull, &ends, &p, &err), &err);
	assert_ok(image_login(s, "h.example", NULL, end_login, &ends, &login, &err), &err);
	assert_ok(image_login(s, "h.example", NULL, end_login, &none, &cancelled, &err), &err);
	assert_ok(image_load_new(s, NULL, &ops, &ends, &l, &err), &err);
	assert_ok(image_load_put(l, "x", 1, &err), &err);
	assert_ok(image_load_start(l, &err), &err);
	image_login_cancel(cancelled);
	image_store_close(s);
	assert_int_equal(ends.pull, -ECANCELED);
	assert_int_equal(ends.login, -ECANCELED);
	assert_int_equal(ends.load, -ECANCELED);
	assert_int_equal(none.login, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_worker, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(dead_worker, store_dir_setup, store_dir_teardown),
		cmocka_unit_test_setup_teardown(close_with_jobs, store_dir_setup,
						store_dir_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
