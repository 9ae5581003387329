/* The part of a pull that makes one disk of several layers. */
#include <string.h>

#include "base/util.h"
#include "image/job/pull_internal.h"
#include "image/store/gc.h"
#include "image/store/layers.h"

int pull_groups_make(struct image_pull *p, struct err *err)
{
	struct layer_group groups[MERGE_MAX_DISKS];
	int r = merge_plan(p->manifest.layers, p->config.diff_ids, p->n_layers, groups,
			   &p->n_groups);

	if (r < 0)
		return err_nomem(err);
	for (size_t k = 0; r == 0 && k < p->n_groups; k++) {
		p->groups[k] = (struct pull_group){ .pull = p, .layers = groups[k] };
		for (size_t j = 0; j < groups[k].n; j++)
			p->layers[groups[k].first + j].group = &p->groups[k];
		r = lease_add(p->lease, groups[k].id, err);
	}
	return r;
}

static void set_state(struct pull_group *g, enum layer_state state)
{
	for (size_t k = 0; k < g->layers.n; k++)
		layer_set_state(&g->pull->layers[g->layers.first + k], state);
}

static void pull_groups_on_merged(void *arg, int code, const struct err *err)
{
	struct pull_group *g = arg;
	struct image_pull *p = g->pull;
	struct err copy = *err;

	if (code < 0) {
		code = err_wrap(&copy, code, "layers %zu to %zu of %zu", g->layers.first + 1,
				g->layers.first + g->layers.n, p->n_layers);
		pull_fail(p, code, &copy);
		return;
	}
	merge_free(g->merge);
	g->merge = NULL;
	set_state(g, LAYER_DONE);
	pull_schedule_all(p->jobs);
}

static bool any_pull_merges(const struct jobs *js, const char *id)
{
	for (struct image_pull *p = pull_first(js); p; p = pull_next(p))
		for (size_t k = 0; k < p->n_groups; k++)
			if (p->groups[k].merge && str_eq(p->groups[k].layers.id, id))
				return true;
	return false;
}

static int start_group(struct pull_group *g, struct err *err)
{
	struct image_pull *p = g->pull;
	const struct layer *l = &p->layers[g->layers.first];
	size_t fetched = 0, active = 0;
	int r;

	if (g->layers.n == 1 || g->merge || layer_is_ready(l))
		return 0;
	for (size_t k = 0; k < g->layers.n; k++) {
		fetched += l[k].state == LAYER_FETCHED;
		active += layer_is_active(&l[k]);
	}
	r = active ? 0 : layers_has(p->jobs->store, g->layers.id, g->layers.first > 0, err);
	if (r > 0)
		set_state(g, LAYER_SHARED);
	if (r || fetched < g->layers.n || any_pull_merges(p->jobs, g->layers.id))
		return MIN_OF(r, 0);
	r = merge_start(p->jobs, &g->layers, p->manifest.layers, p->config.diff_ids,
			pull_groups_on_merged, g, &g->merge, err);
	return r < 0 ? err_wrap(err, r, "layers from %zu of %zu on", g->layers.first + 1,
				p->n_layers)
		     : 0;
}

int pull_groups_start(struct image_pull *p, bool *ret_started, struct err *err)
{
	int r = 0;

	for (size_t k = 0; r == 0 && !*ret_started && k < p->n_groups; k++) {
		bool before = p->groups[k].merge != NULL;

		r = start_group(&p->groups[k], err);
		*ret_started = p->groups[k].merge && !before;
	}
	return r;
}

/* ---- the disk on top ---- */

static void pull_groups_on_top(void *arg, int code, const struct err *err)
{
	struct image_pull *p = arg;
	struct err copy = *err;

	if (code < 0) {
		code = err_wrap(&copy, code, "attributes of directories");
		pull_fail(p, code, &copy);
		return;
	}
	p->top_known = true;
	if (merge_is_empty(p->top_merge))
		*p->top = '\0';
	merge_free(p->top_merge);
	p->top_merge = NULL;
	pull_schedule(p);
}

int pull_groups_top(struct image_pull *p, bool *ret_ready, struct err *err)
{
	const char *disks[MERGE_MAX_DISKS];
	int r;

	*ret_ready = p->top_known;
	if (p->top_known || p->top_merge)
		return 0;
	for (size_t k = 0; k < p->n_groups; k++)
		disks[k] = p->groups[k].layers.id;
	r = layers_inherit(p->jobs->store, disks, p->n_groups, err);
	if (r <= 0) {
		p->top_known = *ret_ready = r == 0;
		return r;
	}
	r = merge_top_id(disks, p->n_groups, p->top);
	if (r < 0)
		return err_nomem(err);
	r = lease_add(p->lease, p->top, err);
	if (r == 0)
		r = layers_has(p->jobs->store, p->top, true, err);
	if (r == 0)
		return merge_top_start(p->jobs, disks, p->n_groups, p->top, pull_groups_on_top, p,
				       &p->top_merge, err);
	p->top_known = *ret_ready = r > 0;
	return MIN_OF(r, 0);
}
