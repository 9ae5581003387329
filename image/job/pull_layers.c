/*
 * The part of a pull that brings one layer: its blob by the fetch process, its disk by an unpacker.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/util.h"
#include "image/failure.h"
#include "image/job/baseline.h"
#include "image/job/fetcher.h"
#include "image/job/pull_internal.h"
#include "image/job/unpacker.h"
#include "image/store/ingest_wait.h"
#include "image/store/layers.h"
#include "image/store/space.h"
#include "image/store/store.h"

#define MAX_RESTARTS 2 /* of a layer whose bytes had the wrong digest */

void layer_fini(struct layer *l)
{
	if (l->waits)
		ingest_wait_remove(l->pull->jobs->store, l->blob.digest, l);
	unpacker_free(l->unpacker);
	ingest_keep(l->ingest);
}

/* WAITING again: a restart. SHARED from FETCHED: another pull was faster with the group. */
void layer_set_state(struct layer *l, enum layer_state to)
{
#define FROM(state) (1u << (state))
	static const unsigned from[] = {
		[LAYER_WAITING] = FROM(LAYER_FETCHING),
		[LAYER_FETCHING] = FROM(LAYER_WAITING),
		[LAYER_UNPACKING] = FROM(LAYER_FETCHING),
		[LAYER_FETCHED] = FROM(LAYER_FETCHING),
		[LAYER_DONE] = FROM(LAYER_UNPACKING) | FROM(LAYER_FETCHED),
		[LAYER_SHARED] = FROM(LAYER_WAITING) | FROM(LAYER_FETCHED),
	};

	check(from[to] & FROM(l->state));
#undef FROM
	l->state = to;
	pull_note_change(l->pull);
}

struct layer *pull_layer_of(struct image_pull *p, uint32_t request)
{
	for (size_t k = 0; request && k < p->n_layers; k++)
		if (p->layers[k].request == request)
			return &p->layers[k];
	return NULL;
}

/* ---- its end ---- */

/* Is what has come so far worth keeping for the next pull? */
static bool worth_keeping(int code)
{
	return failure_unavailable(code) || code == -EBUSY || code == -EACCES ||
	       code == -ECANCELED || code == -ENOMEM;
}

/* `why` may be the layer's own: a copy outlives the pull. */
static void layer_fail(struct layer *l, int code, const struct err *why)
{
	struct image_pull *p = l->pull;
	struct err err = *why;

	if (!worth_keeping(code)) {
		ingest_drop(l->ingest);
		l->ingest = NULL;
	}
	code = err_wrap(&err, code, "layer %zu of %zu", (size_t)(l - p->layers) + 1, p->n_layers);
	pull_fail(p, code, &err);
}

/* Both children have ended well: does the content have the right name? */
static int layer_store(struct layer *l, struct err *err)
{
	struct jobs *js = l->pull->jobs;
	int r;

	if (!str_eq(l->found, l->diff_id))
		return err_set(err, -EBADMSG, "its content is %s, but the configuration says %s",
			       l->found, l->diff_id);
	r = layers_add(js->store, l->diff_id, unpacker_path(l->unpacker),
		       unpacker_facts(l->unpacker), err);
	if (r < 0)
		return r;
	baseline_schedule(js);
	unpacker_free(l->unpacker);
	l->unpacker = NULL;
	layer_set_state(l, LAYER_DONE);
	pull_schedule_all(js);
	return 0;
}

/*
 * After one of its children has ended: is that the end of the layer? Of two failures the fetcher's
 * counts when it is about the blob (it explains damaged data); else the unpacker's. A fetcher that
 * found nobody reading (-EPIPE) says nothing of its own, unless the layer has no unpacker.
 */
static void layer_child_ended(struct layer *l)
{
	bool fetch_failed = l->fetch_ended && l->fetch_code < 0 &&
			    (layer_is_part(l) || l->fetch_code != -EPIPE);
	bool unpack_failed = l->unpack_ended && l->unpack_code < 0;
	struct err err = { 0 };
	int r;

	if (layer_is_part(l) && l->fetch_code == 0)
		pull_schedule(l->pull);
	else if (fetch_failed)
		layer_fail(l, l->fetch_code, &l->fetch_err);
	else if (unpack_failed && (l->fetch_ended || l->unpack_code != -EBADMSG))
		layer_fail(l, l->unpack_code, &l->unpack_err);
	else if (l->fetch_ended && l->unpack_ended && l->fetch_code < 0)
		layer_fail(l, l->fetch_code, &l->fetch_err);
	else if (l->fetch_ended && l->unpack_ended) {
		r = layer_store(l, &err);
		if (r < 0)
			layer_fail(l, r, &err);
	}
}

/* ---- what its children say ---- */

static void pull_layers_on_unpacked(void *arg, int code, const char *diff_id, const struct err *err)
{
	struct layer *l = arg;

	check(!l->unpack_ended);
	l->unpack_ended = true;
	l->unpack_code = code;
	if (code < 0)
		l->unpack_err = *err;
	else
		memcpy(l->found, diff_id, sizeof(l->found));
	if (code < 0 && unpacker_reserve_reached(l->unpacker))
		(void)!space_refuse(l->pull->jobs->store, 0, &l->unpack_err);
	layer_child_ended(l);
}

void layer_on_progress(struct layer *l, uint64_t fetched)
{
	if (l->state != LAYER_FETCHING)
		return;
	l->fetched = MIN_OF(fetched, l->blob.size);
	pull_note_change(l->pull);
}

void layer_on_fetched(struct layer *l)
{
	if (!layer_is_active(l) || l->fetch_ended)
		return;
	if (l->ingest)
		ingest_commit(l->ingest);
	l->ingest = NULL;
	l->fetched = l->blob.size;
	l->fetch_ended = true;
	layer_set_state(l, layer_is_part(l) ? LAYER_FETCHED : LAYER_UNPACKING);
	l->pull->fetched_ns = now_mono_ns();
	layer_child_ended(l);
}

/* The bytes were wrong, but not all sources of them were asked: from the beginning. */
static void layer_restart(struct layer *l)
{
	l->restarts++;
	unpacker_free(l->unpacker);
	l->unpacker = NULL;
	if (l->ingest)
		ingest_drop(l->ingest);
	else /* a complete blob that is damaged */
		(void)!blob_delete(l->pull->jobs->store, l->blob.digest, NULL);
	l->ingest = NULL;
	l->request = 0;
	l->fetch_ended = l->unpack_ended = false;
	l->fetch_code = l->unpack_code = 0;
	l->fetched = 0;
	layer_set_state(l, LAYER_WAITING);
	pull_schedule(l->pull);
}

void layer_on_fetch_error(struct layer *l, int code, bool again, const struct err *err)
{
	if (!layer_is_active(l) || l->fetch_ended)
		return;
	if (again && l->restarts < MAX_RESTARTS) {
		layer_restart(l);
		return;
	}
	l->fetch_ended = true;
	l->fetch_code = code;
	l->fetch_err = *err;
	layer_child_ended(l);
}

/* ---- its start ---- */

static size_t active_layers(const struct image_pull *p)
{
	size_t n = 0;

	for (size_t k = 0; k < p->n_layers; k++)
		n += layer_is_active(&p->layers[k]);
	return n;
}

/* The part of all slots that the images of one registry can have: a quarter is for others. */
static size_t max_of_registry(const struct jobs *js)
{
	size_t n = js->max_layers_in_all;

	return MAX_OF(n - MAX_OF(n / 4, (size_t)1), (size_t)1);
}

/*
 * Of this pull, of its registry, and of all. The first layer of a pull needs no room, so that
 * registries that take their time (which may be all day) keep nobody else from going on.
 */
static bool room_for_one(const struct image_pull *p)
{
	size_t mine = active_layers(p), all = 0, registry = 0;

	for (const struct image_pull *o = pull_first(p->jobs); o; o = pull_next(o)) {
		size_t n = active_layers(o);

		all += n;
		registry += str_eq(o->ref.host, p->ref.host) ? n : 0;
	}
	return mine == 0 ||
	       (mine < p->jobs->max_layers_at_once && registry < max_of_registry(p->jobs) &&
		all < p->jobs->max_layers_in_all);
}

static bool any_pull_fetches(const struct jobs *js, const char *diff_id)
{
	for (struct image_pull *p = pull_first(js); p; p = pull_next(p))
		for (size_t k = 0; k < p->n_layers; k++)
			if (layer_is_active(&p->layers[k]) && !layer_is_part(&p->layers[k]) &&
			    str_eq(p->layers[k].diff_id, diff_id))
				return true;
	return false;
}

/* The blob as it is in the store: complete, or its first bytes, or none. 1: not now. */
static int layer_file(struct layer *l, int *ret_fd, uint64_t *ret_have, struct err *err)
{
	struct store *s = l->pull->jobs->store;
	int r = ingest_open(s, l->blob.digest, &l->ingest, err);

	if (r == -EEXIST) {
		r = blob_open(s, l->blob.digest, ret_fd, ret_have, err);
		if (r == 0 && *ret_have != l->blob.size)
			r = err_set(
				err, -EBADMSG, "its blob is of %llu bytes, the manifest says %llu",
				(unsigned long long)*ret_have, (unsigned long long)l->blob.size);
		return r;
	}
	if (r < 0)
		return r == -EBUSY ? 1 : r;
	*ret_fd = fcntl(ingest_fd(l->ingest), F_DUPFD_CLOEXEC, 3);
	if (*ret_fd < 0)
		return err_errno(err, -errno, "blob %s", l->blob.digest);
	*ret_have = ingest_had(l->ingest);
	if (*ret_have > l->blob.size) {
		*ret_have = 0;
		return ingest_reset(l->ingest, err);
	}
	return 0;
}

static int start_unpacker(struct layer *l, int *ret_pipe, struct err *err)
{
	struct jobs *js = l->pull->jobs;
	cleanup_free char *path = store_tmp_path(js->store, ".ext4");

	if (!path)
		return err_nomem(err);
	return unpacker_new(&js->procs, path, l->blob.compression, l->diff_id,
			    space_reserve(js->store), pull_layers_on_unpacked, l, &l->unpacker,
			    ret_pipe, err);
}

static void pull_layers_on_free(void *arg, int code, const struct err *err)
{
	struct layer *l = arg;

	l->waits = false;
	pull_schedule(l->pull);
}

static int wait_for_file(struct layer *l, struct err *err)
{
	int r = 0;

	if (!l->waits)
		r = ingest_wait_add(l->pull->jobs->store, l->blob.digest, pull_layers_on_free, l,
				    err);
	l->waits = r == 0;
	return r;
}

static int layer_start(struct layer *l, struct err *err)
{
	struct image_pull *p = l->pull;
	cleanup_fd int file = -1, pipe = -1;
	struct fetcher_layer f = { .digest = l->blob.digest, .size = l->blob.size };
	int r = layer_file(l, &file, &f.have, err);

	if (r > 0)
		return wait_for_file(l, err);
	if (r == 0 && !layer_is_part(l))
		r = start_unpacker(l, &pipe, err);
	if (r < 0)
		return r;
	layer_set_state(l, LAYER_FETCHING);
	l->request = ++p->last_request;
	f.file_fd = file;
	f.pipe_fd = pipe;
	return fetcher_layer(p->fetcher, l->request, p->ref.path, &f, err);
}

/* Layers that wait: those that are there are shared, others are started if there is room. */
static int advance(struct layer *l, bool *ret_started, struct err *err)
{
	struct image_pull *p = l->pull;
	int r = layer_is_part(l)
			? 0
			: layers_has(p->jobs->store, l->diff_id, l->group->layers.first > 0, err);

	if (r < 0)
		return r;
	if (r > 0)
		layer_set_state(l, LAYER_SHARED);
	else if (!room_for_one(p) || any_pull_fetches(p->jobs, l->diff_id))
		return 0;
	else
		r = layer_start(l, err);
	*ret_started = l->state == LAYER_FETCHING;
	return r < 0 ? err_wrap(err, r, "layer %zu of %zu", (size_t)(l - p->layers) + 1,
				p->n_layers)
		     : 0;
}

int pull_layers_start(struct image_pull *p, bool *ret_all, struct err *err)
{
	size_t ready = 0;
	bool started = false;
	int r = pull_groups_start(p, &started, err);

	for (size_t k = 0; r == 0 && k < p->n_layers; k++) {
		struct layer *l = &p->layers[k];

		if (l->state == LAYER_WAITING && !started)
			r = advance(l, &started, err);
		ready += layer_is_ready(l);
	}
	if (r == 0 && started)
		pull_schedule(p);
	if (r == 0)
		*ret_all = ready == p->n_layers;
	return r;
}
