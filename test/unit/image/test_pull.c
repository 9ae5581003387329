/* Pulls whose layers depend on each other. The worker is a stub that takes commands and says
 * nothing. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/image.h"
#include "image/job/fetcher.h"
#include "image/job/load.h"
#include "image/job/pull_internal.h"
#include "image/store/gc.h"
#include "image/store/internal.h"
#include "image/store/space.h"
#include "test/lib/store_dir.h"

static void on_stop(struct job *j, const struct err *why)
{
}

static void on_done(void *arg, int code, const struct image_pull_result *r, const struct err *err)
{
	int *ret = arg;

	assert_int_equal(*ret, 1);
	*ret = code;
}

static void open_jobs(struct jobs *js)
{
	static const char text[] = "#!/bin/sh\nexec sleep 60\n";
	cleanup_free char *worker = path_in("worker");
	struct err err = { 0 };

	*js = (struct jobs){ .loop = store_loop, .max_layers_at_once = 4, .max_layers_in_all = 4 };
	assert_ok(write_file_atomic(worker, text, strlen(text), 0700, false, &err), &err);
	js->store = store_dir_open();
	assert_ok(procs_init(&js->procs, store_loop, worker, &err), &err);
}

static void close_jobs(struct jobs *js)
{
	assert_null(js->list);
	procs_close(&js->procs);
	store_close(js->store);
}

/* Of layers that are to become one disk. */
static struct image_pull *new_pull(struct jobs *js, size_t n_layers, int *ret_code)
{
	static const struct fetcher_ops ops = { 0 };
	const struct fetcher_options o = { .from_archive = true };
	struct image_pull *p = calloc(1, sizeof(*p));
	struct err err = { 0 };

	assert_non_null(p);
	p->jobs = js;
	p->done = on_done;
	p->arg = ret_code;
	p->step = PULL_LAYERS;
	p->layers = calloc(n_layers, sizeof(*p->layers));
	assert_non_null(p->layers);
	p->n_layers = n_layers;
	p->n_groups = 1;
	p->groups[0] = (struct pull_group){ .pull = p, .layers.n = n_layers };
	for (size_t k = 0; k < n_layers; k++) {
		struct layer *l = &p->layers[k];

		*l = (struct layer){ .pull = p, .group = &p->groups[0], .diff_id = DIGEST("2") };
		memcpy(l->blob.digest, DIGEST("1"), sizeof(l->blob.digest));
		l->blob.size = 1;
	}
	assert_ok(lease_new(js->store, &p->lease, &err), &err);
	assert_ok(fetcher_new(&js->procs, &o, &ops, p, &p->fetcher, &err), &err);
	job_add(js, &p->job, JOB_PULL, on_stop);
	return p;
}

static size_t active(const struct image_pull *p)
{
	size_t n = 0;

	for (size_t k = 0; k < p->n_layers; k++)
		n += layer_is_active(&p->layers[k]);
	return n;
}

/* As often as the pull would ask for by itself: each round starts one at most, as the loop waits
 * for a new process. How many are active in the end. */
static size_t started(struct image_pull *p)
{
	struct err err = { 0 };
	size_t before;
	bool all;

	do {
		all = true;
		before = active(p);
		assert_ok(pull_layers_start(p, &all, &err), &err);
		assert_false(all);
		assert_in_range(active(p), before, before + 1);
		/* It comes back for more if, and only if, there may be more. */
		assert_int_equal(p->work_timer.loop != NULL, active(p) > before);
		ev_timer_del(&p->work_timer);
	} while (active(p) > before);
	return before;
}

/*
 * An image that has the same blob twice in one group: the second layer waits for the ingest file of
 * the first. When the pull ends, the file that the first gives back wakes the second, which is
 * about to be freed with all the rest.
 */
static void same_blob_twice(void **state)
{
	struct image_pull *p;
	struct jobs js;
	int code = 1;

	open_jobs(&js);
	p = new_pull(&js, 2, &code);
	assert_int_equal(started(p), 1);
	assert_int_equal(p->layers[0].state, LAYER_FETCHING);
	assert_int_equal(p->layers[1].state, LAYER_WAITING);
	assert_true(p->layers[1].waits);
	image_pull_cancel(p);
	/* Nothing of it is called any more; the sanitizers see it if it is. */
	assert_true(loop_once(store_loop, 0) >= 0);
	assert_int_equal(code, 1);
	close_jobs(&js);
}

static void set_blobs(struct image_pull *p, const char *host, char first)
{
	(void)snprintf(p->ref.host, sizeof(p->ref.host), "%s", host);
	for (size_t k = 0; k < p->n_layers; k++)
		p->layers[k].blob.digest[strlen("sha256:")] = (char)(first + (char)k);
}

/* Registries that never end leave room: one of them some of the slots, all of them a layer for each
 * other pull. */
static void slow_registries_starve_nobody(void **state)
{
	int codes[5] = { 1, 1, 1, 1, 1 };
	struct image_pull *p[5];
	struct jobs js;

	open_jobs(&js);
	js.max_layers_in_all = 8;
	for (size_t k = 0; k < ARRAY_SIZE(p); k++)
		p[k] = new_pull(&js, 4, &codes[k]);
	set_blobs(p[0], "slow.example", 'a');
	set_blobs(p[1], "slow.example", '0');
	set_blobs(p[2], "slow.example", '4');
	set_blobs(p[3], "other.example", '8');
	set_blobs(p[4], "third.example", 'c');
	p[4]->layers[2].blob.digest[8] = p[4]->layers[3].blob.digest[8] = 'e';
	p[4]->layers[0].blob.digest[8] = p[4]->layers[1].blob.digest[8] = 'f';
	assert_int_equal(started(p[0]), 4);
	assert_int_equal(started(p[1]), 2); /* 6 of 8 */
	assert_int_equal(started(p[2]), 1);
	assert_int_equal(started(p[3]), 1); /* 8 of 8 */
	assert_int_equal(started(p[4]), 1);
	assert_int_equal(started(p[4]), 1);
	for (size_t k = 0; k < ARRAY_SIZE(p); k++)
		image_pull_cancel(p[k]);
	close_jobs(&js);
}

/* ---- the reserve ---- */

struct eater {
	struct job job;
	uint64_t bytes;
	int code;
};

static uint64_t eater_taken(const struct job *j)
{
	return container_of(j, const struct eater, job)->bytes;
}

static void on_eater_stop(struct job *j, const struct err *why)
{
	struct eater *e = container_of(j, struct eater, job);

	assert_text(err_text(why), "No space left for images in ");
	e->code = why->code;
	job_remove(j);
}

static void wait_ms(unsigned ms)
{
	uint64_t end = now_mono_ns() + ms * NS_PER_MS;

	while (now_mono_ns() < end)
		assert_true(loop_once(store_loop, 5) >= 0);
}

/* Whoever writes, and whatever it says: the job that has taken most is the first to end, and none
 * does while the reserve is free. */
static void whoever_takes_the_reserve_is_ended(void **state)
{
	struct eater e[3] = { { .bytes = 10 }, { .bytes = 1000 }, { .bytes = 100 } };
	struct jobs js;

	open_jobs(&js);
	for (size_t k = 0; k < ARRAY_SIZE(e); k++) {
		job_add(&js, &e[k].job, JOB_LOAD, on_eater_stop);
		e[k].job.taken = eater_taken;
	}
	js.store->reserve = 1;
	jobs_watch_room(&js);
	wait_ms(350);
	assert_int_equal(e[0].code | e[1].code | e[2].code, 0);
	js.store->reserve = UINT64_MAX;
	for (int k = 0; k < 100 && !e[1].code; k++)
		wait_ms(10);
	assert_int_equal(e[1].code, -ENOSPC);
	assert_int_equal(e[0].code | e[2].code, 0);
	js.store->reserve = 1;
	wait_ms(350);
	assert_int_equal(e[0].code | e[2].code, 0);
	job_remove(&e[0].job);
	job_remove(&e[2].job);
	wait_ms(150);
	assert_null(js.room_timer.loop); /* nobody is left to be watched */
	close_jobs(&js);
}

/* What an archive brings is written by huskd itself. */
static void an_archive_leaves_the_reserve(void **state)
{
	static const struct image_load_ops ops = { 0 };
	struct image_load *l;
	struct err err = { 0 };
	struct jobs js;
	int r = 0;

	open_jobs(&js);
	js.store->reserve = 1;
	assert_ok(load_new(&js, NULL, &ops, NULL, &l, &err), &err);
	assert_ok(image_load_put(l, "x", 1, &err), &err);
	js.store->reserve = UINT64_MAX;
	/* A moment for what goes to be gone, and no more. */
	for (int k = 0; k < 30 && r == 0; k++) {
		r = image_load_put(l, "x", 1, &err);
		wait_ms(100);
	}
	assert_int_equal(r, -ENOSPC);
	assert_text(err_text(&err), "No space left for images in ");
	assert_text(err_text(&err), store_dir_path);
	js.store->reserve = 1;
	assert_ok(image_load_put(l, "x", 1, &err), &err);
	image_load_cancel(l);
	ev_timer_del(&js.room_timer);
	close_jobs(&js);
}

static void reserve_of_disks(void **state)
{
	assert_int_equal(space_reserve_of(0), 0);
	assert_int_equal(space_reserve_of(64 * MIB), 64 * MIB / 10);
	assert_int_equal(space_reserve_of(15 * GIB), 1 * GIB);
	assert_int_equal(space_reserve_of(100 * GIB), 5 * GIB);
	assert_int_equal(space_reserve_of(4096 * GIB), 10 * GIB);
}

/* Nobody else ends a layer that has no unpacker: any failure of its fetcher does. */
static void broken_pipe(void **state)
{
	struct err err = { 0 };
	struct image_pull *p;
	struct jobs js;
	bool all = true;
	int code = 1;

	open_jobs(&js);
	p = new_pull(&js, 2, &code);
	assert_ok(pull_layers_start(p, &all, &err), &err);
	(void)err_set(&err, -EPIPE, "the connection is broken");
	layer_on_fetch_error(&p->layers[0], -EPIPE, false, &err);
	assert_int_equal(code, -EPIPE);
	close_jobs(&js);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(same_blob_twice, store_dir_setup,
						store_dir_teardown),
		cmocka_unit_test_setup_teardown(slow_registries_starve_nobody, store_dir_setup,
						store_dir_teardown),
		cmocka_unit_test_setup_teardown(whoever_takes_the_reserve_is_ended, store_dir_setup,
						store_dir_teardown),
		cmocka_unit_test_setup_teardown(an_archive_leaves_the_reserve, store_dir_setup,
						store_dir_teardown),
		cmocka_unit_test(reserve_of_disks),
		cmocka_unit_test_setup_teardown(broken_pipe, store_dir_setup, store_dir_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
