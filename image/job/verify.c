#include "image/job/verify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/job/checker.h"
#include "image/job/jobs.h"
#include "image/store/blobs.h"
#include "image/store/gc.h"
#include "image/store/images.h"
#include "image/store/layers.h"

struct object {
	bool is_layer;
	char digest[DIGEST_LEN + 1];
};

struct image_verify {
	struct job job;
	struct jobs *jobs;
	struct lease *lease;
	image_verify_fn fn;
	image_verify_done_fn done;
	void *arg;
	struct object *objects;
	size_t n, at, problems;
	struct checker *checker;
	size_t in_hand; /* objects of which the checker has not reported yet */
	struct ev_timer step;
	bool *freed; /* set when it is cancelled while the caller's function runs */
};

/* ---- the end ---- */

static void verify_free(struct image_verify *v)
{
	if (v->freed)
		*v->freed = true;
	ev_timer_del(&v->step);
	checker_free(v->checker);
	lease_end(v->lease, false);
	free(v->objects);
	free(v);
}

static void verify_end(struct image_verify *v, int code, const struct err *why)
{
	image_verify_done_fn done = v->done;
	size_t problems = v->problems;
	struct err err = *why;
	void *arg = v->arg;

	job_remove(&v->job);
	verify_free(v);
	done(arg, code, problems, &err);
}

static void verify_on_stop(struct job *j, const struct err *why)
{
	verify_end(container_of(j, struct image_verify, job), why->code, why);
}

void image_verify_cancel(struct image_verify *v)
{
	job_remove(&v->job);
	verify_free(v);
}

/* ---- one object after the other ---- */

static void next_soon(struct image_verify *v);

static int note_problem(struct image_verify *v, const struct object *o, char ***ret_images,
			struct err *err)
{
	struct store *s = v->jobs->store;
	int r = o->is_layer ? images_with_layer(s, o->digest, ret_images, err)
			    : images_with_blob(s, o->digest, ret_images, err);

	v->problems++;
	if (r < 0)
		return r;
	return o->is_layer ? layers_mark_damaged(s, o->digest, err)
			   : blob_delete(s, o->digest, err);
}

/* Reports the object at hand and takes up the next one. `problem`: NULL = it is well. */
static void object_done(struct image_verify *v, const char *problem)
{
	const struct object *o = &v->objects[v->at];
	struct image_verified report = { .kind = o->is_layer ? "layer" : "blob",
					 .digest = o->digest,
					 .total = v->n,
					 .problem = problem };
	cleanup_strv char **images = NULL;
	struct err err = { 0 };
	bool freed = false;
	int r = problem ? note_problem(v, o, &images, &err) : 0;

	if (r < 0) {
		verify_end(v, r, &err);
		return;
	}
	report.done = ++v->at;
	report.images = images;
	if (v->fn) {
		v->freed = &freed;
		v->fn(v->arg, &report);
		if (freed)
			return;
		v->freed = NULL;
	}
	if (!v->in_hand)
		next_soon(v);
}

static void layer_checked(struct image_verify *v, const char *digest)
{
	const struct object *o = &v->objects[v->at];
	char baseline[DIGEST_LEN + 1];
	struct err err = { 0 };
	int r = layers_baseline(v->jobs->store, o->digest, baseline, &err);

	if (r == 0 && !*baseline)
		r = layers_set_baseline(v->jobs->store, o->digest, digest, &err);
	if (r < 0)
		verify_end(v, r, &err);
	else
		object_done(v, *baseline && !str_eq(baseline, digest) ? "its bytes have changed"
								      : NULL);
}

static void verify_on_checked(void *arg, int code, const char *digest, const struct err *err)
{
	struct image_verify *v = arg;
	const struct object *o = &v->objects[v->at];
	struct err copy = *err;

	if (--v->in_hand == 0 || code == -ESRCH) {
		checker_free(v->checker);
		v->checker = NULL;
	}
	if (code == -EBADMSG || code == -EIO)
		object_done(v, err_text(&copy));
	else if (code < 0)
		verify_end(v, code, &copy);
	else if (o->is_layer)
		layer_checked(v, digest);
	else
		object_done(v, str_eq(digest, o->digest) ? NULL : "its bytes have changed");
}

/* As many of the next ones as one process takes and as can be opened. */
static size_t open_some(struct image_verify *v, struct checker_file files[CHECKER_MAX_FILES],
			struct err *err)
{
	size_t n = 0;

	for (; n < CHECKER_MAX_FILES && v->at + n < v->n; n++) {
		const struct object *o = &v->objects[v->at + n];
		int r;

		files[n].is_layer = o->is_layer;
		r = o->is_layer ? layers_open(v->jobs->store, o->digest, &files[n].fd, err)
				: blob_open(v->jobs->store, o->digest, &files[n].fd, NULL, err);
		if (r < 0)
			break;
	}
	return n;
}

static void verify_on_step(struct ev_timer *t)
{
	struct checker_file files[CHECKER_MAX_FILES];
	struct image_verify *v = t->arg;
	struct err err = { 0 };
	size_t n;
	int r;

	if (v->at == v->n) {
		verify_end(v, 0, &err);
		return;
	}
	n = open_some(v, files, &err);
	if (n == 0) {
		object_done(v, "its file is gone");
		return;
	}
	r = checker_new(&v->jobs->procs, files, n, false, verify_on_checked, v, &v->checker, &err);
	for (size_t k = 0; k < n; k++)
		fd_close(&files[k].fd);
	if (r < 0)
		verify_end(v, r, &err);
	else
		v->in_hand = n;
}

static void next_soon(struct image_verify *v)
{
	struct err err = { 0 };

	if (ev_timer_add(v->jobs->loop, &v->step, 0, verify_on_step, v) < 0)
		verify_end(v, err_nomem(&err), &err);
}

/* ---- what there is to verify ---- */

/* `id` NULL: of everything, each once. What several images have in common is verified once, too. */
static int add_objects(struct image_verify *v, const char *id, char *const *digests, bool is_layer,
		       struct err *err)
{
	size_t n = strv_len(digests);
	struct object *more = realloc(v->objects, (v->n + n + 1) * sizeof(*more));
	int r = 0;

	if (!more)
		return err_nomem(err);
	v->objects = more;
	for (; r == 0 && *digests; digests++) {
		bool known = false;

		for (size_t k = 0; id && k < v->n && !known; k++)
			known = more[k].is_layer == is_layer && str_eq(more[k].digest, *digests);
		if (known)
			continue;
		more[v->n].is_layer = is_layer;
		snprintf(more[v->n++].digest, DIGEST_LEN + 1, "%s", *digests);
		r = lease_add(v->lease, *digests, err);
	}
	return r;
}

/* id: NULL = everything. */
static int add_image(struct image_verify *v, const char *id, struct err *err)
{
	cleanup_strv char **layers = NULL, **blobs = NULL;
	int r = layers_list(v->jobs->store, id, &layers, err);

	if (r == 0)
		r = add_objects(v, id, layers, true, err);
	if (r == 0)
		r = blobs_list(v->jobs->store, id, &blobs, err);
	return r < 0 ? r : add_objects(v, id, blobs, false, err);
}

static int add_named(struct image_verify *v, const char *ref, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = images_resolve(v->jobs->store, ref, id, NULL, err);

	return r < 0 ? r : add_image(v, id, err);
}

int verify_new(struct jobs *js, char *const *refs, image_verify_fn fn, image_verify_done_fn done,
	       void *arg, struct image_verify **ret, struct err *err)
{
	struct image_verify *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return err_nomem(err);
	v->jobs = js;
	v->fn = fn;
	v->done = done;
	v->arg = arg;
	r = lease_new(js->store, &v->lease, err);
	if (r == 0 && (!refs || !*refs))
		r = add_image(v, NULL, err);
	for (; r == 0 && refs && *refs; refs++)
		r = add_named(v, *refs, err);
	if (r == 0 && ev_timer_add(js->loop, &v->step, 0, verify_on_step, v) < 0)
		r = err_nomem(err);
	if (r < 0) {
		verify_free(v);
		return r;
	}
	job_add(js, &v->job, JOB_VERIFY, verify_on_stop);
	*ret = v;
	return 0;
}
