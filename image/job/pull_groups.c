/* The part of a pull that makes one disk of several layers. */
#include <string.h>

#include "base/util.h"
#include "image/job/pull_internal.h"

int runs_make(struct image_pull *p, struct err *err)
{
	struct merge_run runs[MERGE_MAX_DISKS];
	int r = merge_plan(p->manifest.layers, p->config.diff_ids, p->n_layers, runs, &p->n_runs);

	if (r < 0)
		return err_set(err, r, "no memory");
	for (size_t k = 0; r >= 0 && k < p->n_runs; k++) {
		p->runs[k] = (struct run){ .pull = p, .what = runs[k] };
		for (size_t j = 0; j < runs[k].n; j++)
			p->layers[runs[k].first + j].run = &p->runs[k];
		r = lease_add(p->lease, runs[k].id, err);
	}
	return r;
}

static void run_is(struct run *run, enum image_layer_state state)
{
	struct image_pull *p = run->pull;

	for (size_t k = 0; k < run->what.n; k++)
		p->layers[run->what.first + k].state = state;
	pull_note_change(p);
}

static void on_merged(void *arg, int code, const struct err *err)
{
	struct run *run = arg;
	struct image_pull *p = run->pull;
	struct err copy = *err;

	if (code < 0) {
		code = err_wrap(&copy, code, "layers %zu to %zu of %zu", run->what.first + 1,
				run->what.first + run->what.n, p->n_layers);
		pull_fail(p, code, &copy);
		return;
	}
	merge_free(run->merge);
	run->merge = NULL;
	run_is(run, IMAGE_LAYER_DONE);
	for (struct image_pull *o = p->s->pulls; o; o = o->next)
		pull_kick(o);
}

static bool somebody_merges(const struct image_store *s, const char *id)
{
	for (struct image_pull *p = s->pulls; p; p = p->next)
		for (size_t k = 0; k < p->n_runs; k++)
			if (p->runs[k].merge && str_eq(p->runs[k].what.id, id))
				return true;
	return false;
}

static int run_go_on(struct run *run, struct err *err)
{
	struct image_pull *p = run->pull;
	const struct layer *l = &p->layers[run->what.first];
	size_t fetched = 0, active = 0;
	int r;

	if (run->what.n == 1 || run->merge || is_ready(l))
		return 0;
	for (size_t k = 0; k < run->what.n; k++) {
		fetched += l[k].state == IMAGE_LAYER_UNPACKING;
		active += is_active(&l[k]);
	}
	r = active ? 0 : store_has_layer(p->s, run->what.id, err);
	if (r > 0)
		run_is(run, IMAGE_LAYER_SHARED);
	if (r || fetched < run->what.n || somebody_merges(p->s, run->what.id))
		return r < 0 ? r : 0;
	r = merge_start(p->s, &run->what, p->manifest.layers, p->config.diff_ids, on_merged, run,
			&run->merge, err);
	return r < 0 ? err_wrap(err, r, "layers from %zu of %zu on", run->what.first + 1,
				p->n_layers)
		     : 0;
}

int runs_go_on(struct image_pull *p, struct err *err)
{
	int r = 0;

	for (size_t k = 0; r >= 0 && k < p->n_runs; k++)
		r = run_go_on(&p->runs[k], err);
	return r;
}
