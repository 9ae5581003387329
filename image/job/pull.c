/*
 * A pull, as a machine driven by its children:
 *	RESOLVE	what the reference names: an index or a manifest
 *	PLATFORM	the manifest that the index has for us (left out without an index)
 *	CONFIG	the configuration, which is the image's identity and has the diff ids
 *	LAYERS	each layer: shared when it is there; else, one of all pulls fetches and unpacks it.
 *		Layers that are to be one disk (merge.h) are fetched first, and unpacked together
 *
 * Who verifies what: huskd hashes the documents (digest of the reference -> manifest ->
 * configuration -> diff ids). The fetch process hashes each blob. The decoder hashes each tar, and
 * huskd compares with the diff id. A layer gets its name only when all agree, so a process that lies
 * can spoil but not forge.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/job/load.h"
#include "image/credentials.h"
#include "image/failure.h"
#include "image/job/fetcher.h"
#include "image/manifest.h"
#include "image/job/merge.h"
#include "image/job/proc.h"
#include "image/job/pull_internal.h"
#include "image/store/store.h"
#include "image/store/blobs.h"
#include "image/job/unpacker.h"

#define PROGRESS_NS (100 * NS_PER_MS)
#define LAYER_ID 16u   /* request id of layer 0 */
#define MAX_RESTARTS 2 /* of a layer whose bytes had the wrong digest */
#define BUSY_NS (20 * NS_PER_MS)

/* ---- the end ---- */

static void pull_free(struct image_pull *p)
{
	if (p->freed)
		*p->freed = true;
	ev_timer_del(&p->kick_timer);
	ev_timer_del(&p->busy_timer);
	ev_timer_del(&p->progress_timer);
	fetcher_free(p->fetcher);
	for (size_t k = 0; k < p->n_layers; k++) {
		unpacker_free(p->layers[k].unpacker);
		ingest_keep(p->layers[k].ingest);
	}
	for (size_t k = 0; k < p->n_runs; k++)
		merge_free(p->runs[k].merge);
	free(p->layers);
	image_config_fini(&p->config);
	free(p->config_bytes);
	credentials_fini(&p->credentials);
	free(p);
}

/*
 * Out of the list, with all it has; others may go on without it. What it has finished stays for the
 * next one to go on with, unless `code` says that it is of no use.
 */
static void pull_end(struct image_pull *p, int code)
{
	bool useless = code == -EBADMSG || code == -EPROTO || code == -ENOTSUP || code == -EFBIG;
	struct lease *lease = take_ptr(&p->lease);
	struct image_store *s = p->s;
	struct image_pull **at = &s->pulls;

	while (*at && *at != p)
		at = &(*at)->next;
	if (*at)
		*at = p->next;
	pull_free(p);
	lease_end(lease, useless);
	if (code == -ENOSPC || code == -EDQUOT)
		store_make_room(s);
	for (struct image_pull *o = s->pulls; o; o = o->next)
		pull_kick(o);
}

void pull_fail(struct image_pull *p, int code, struct err *err)
{
	image_done_fn done = p->done;
	void *arg = p->arg;
	char name[REFERENCE_MAX + 1];

	reference_canonical(&p->ref, name);
	code = p->from_archive ? err_wrap(err, code, "load %s", p->ref.digest)
			       : err_wrap(err, code, "pull %s", name);
	pull_end(p, code);
	done(arg, code, NULL, err);
}

static void pull_succeed(struct image_pull *p)
{
	struct image_pull_result res = { 0 };
	char id[DIGEST_LEN + 1];
	image_done_fn done = p->done;
	char *disks[MERGE_MAX_DISKS + 1] = { NULL };
	struct err err = { 0 };
	void *arg = p->arg;
	struct image_commit c = {
		.id = p->manifest.config_digest,
		.config = p->config_bytes,
		.config_len = p->config_len,
		.ref = p->from_archive ? NULL : &p->ref,
		.digest = p->digest,
		.diff_ids = p->config.diff_ids,
		.manifest = &p->manifest,
		.manifest_digest = *p->choice ? p->choice : p->digest,
		.manifest_size = p->manifest_size,
		.disks = disks,
	};
	int r;

	for (size_t k = 0; k < p->n_runs; k++)
		disks[k] = p->runs[k].what.id;
	r = store_add_image(p->s, &c, &err);
	if (r < 0) {
		pull_fail(p, r, &err);
		return;
	}
	memcpy(id, p->manifest.config_digest, sizeof(id));
	res.id = id;
	res.total_ns = now_mono_ns() - p->start_ns;
	res.fetch_ns = p->fetched_ns ? p->fetched_ns - p->start_ns : res.total_ns;
	pull_end(p, 0);
	done(arg, 0, &res, &err);
}

/* ---- progress ---- */

/* False when the caller has cancelled the pull meanwhile. */
static bool show_progress(struct image_pull *p)
{
	struct image_layer_progress v[IMAGE_MAX_LAYERS];
	struct image_progress pr = { .layers = v, .n_layers = p->n_layers };
	bool freed = false;

	if (!p->progress)
		return true;
	p->changed = false;
	for (size_t k = 0; k < p->n_layers; k++) {
		struct layer *l = &p->layers[k];

		v[k] = (struct image_layer_progress){ .digest = l->what.digest,
						      .fetched = l->fetched,
						      .size = l->what.size,
						      .state = l->state };
	}
	p->freed = &freed;
	p->progress(p->arg, &pr);
	if (!freed)
		p->freed = NULL;
	return !freed;
}

static void on_progress_timer(struct ev_timer *t)
{
	struct image_pull *p = t->arg;

	if (p->changed)
		(void)show_progress(p);
}

void pull_note_change(struct image_pull *p)
{
	if (p->changed || !p->progress)
		return;
	p->changed = true;
	/* Without memory for a timer there is no progress to be seen, and nothing else lost. */
	(void)!ev_timer_add(p->s->loop, &p->progress_timer, PROGRESS_NS, on_progress_timer, p);
}

/* ---- layers ---- */

static struct layer *layer_of(struct image_pull *p, uint32_t id)
{
	return id >= LAYER_ID && id - LAYER_ID < p->n_layers ? &p->layers[id - LAYER_ID] : NULL;
}

static size_t active_layers(const struct image_pull *p)
{
	size_t n = 0;

	for (size_t k = 0; k < p->n_layers; k++)
		n += is_active(&p->layers[k]);
	return n;
}

/* Of this pull and of all. */
static bool room_for_one(const struct image_pull *p)
{
	size_t n = 0;

	for (const struct image_pull *o = p->s->pulls; o; o = o->next)
		n += active_layers(o);
	return active_layers(p) < p->s->max_layers_at_once && n < p->s->max_layers_in_all;
}

static bool somebody_fetches(const struct image_store *s, const char *diff_id)
{
	for (struct image_pull *p = s->pulls; p; p = p->next)
		for (size_t k = 0; k < p->n_layers; k++)
			if (is_active(&p->layers[k]) && !is_part(&p->layers[k]) &&
			    str_eq(p->layers[k].diff_id, diff_id))
				return true;
	return false;
}

/* Is what has come so far worth keeping for the next pull? */
static bool may_go_on(int code)
{
	return failure_unavailable(code) || code == -EBUSY || code == -EACCES ||
	       code == -ECANCELED || code == -ENOMEM;
}

/* `why` may be the layer's own: a copy outlives the pull. */
static void layer_fail(struct layer *l, int code, const struct err *why)
{
	struct image_pull *p = l->pull;
	struct err err = *why;

	if (!may_go_on(code)) {
		ingest_drop(l->ingest);
		l->ingest = NULL;
	}
	code = err_wrap(&err, code, "layer %zu of %zu", (size_t)(l - p->layers) + 1, p->n_layers);
	pull_fail(p, code, &err);
}

/* Both children have had their say, and both are content: does the content have the right name? */
static int layer_store(struct layer *l, struct err *err)
{
	int r;

	if (!str_eq(l->found, l->diff_id))
		return err_set(err, -EBADMSG, "its content is %s, but the configuration says %s",
			       l->found, l->diff_id);
	r = store_add_layer(l->pull->s, l->diff_id, unpacker_path(l->unpacker), err);
	if (r < 0)
		return r;
	unpacker_free(l->unpacker);
	l->unpacker = NULL;
	l->state = IMAGE_LAYER_DONE;
	pull_note_change(l->pull);
	for (struct image_pull *o = l->pull->s->pulls; o; o = o->next)
		pull_kick(o);
	return 0;
}

/*
 * Which failure is told? The fetcher's, when it is about the blob (it explains damaged data); else
 * the unpacker's. A fetcher that found nobody reading (-EPIPE) says nothing of its own.
 */
static void layer_settle(struct layer *l)
{
	bool fetch_failed = l->fetch_ended && l->fetch_code < 0 && l->fetch_code != -EPIPE;
	bool unpack_failed = l->unpack_ended && l->unpack_code < 0;
	struct err err = { 0 };
	int r;

	if (is_part(l) && l->fetch_code >= 0)
		pull_kick(l->pull);
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

static void on_unpacked(void *arg, int code, const char *diff_id, const struct err *err)
{
	struct layer *l = arg;

	l->unpack_ended = true;
	l->unpack_code = code;
	if (code < 0)
		l->unpack_err = *err;
	else
		memcpy(l->found, diff_id, sizeof(l->found));
	layer_settle(l);
}

/* The blob as it is in the store: complete, or its first bytes, or none. 1: not now. */
static int layer_file(struct layer *l, int *ret_fd, uint64_t *ret_have, struct err *err)
{
	struct image_store *s = l->pull->s;
	int r = ingest_open(s, l->what.digest, &l->ingest, err);

	if (r == -EEXIST) {
		r = blob_open(s, l->what.digest, ret_fd, ret_have, err);
		if (r >= 0 && *ret_have != l->what.size)
			r = err_set(
				err, -EBADMSG, "its blob is of %llu bytes, the manifest says %llu",
				(unsigned long long)*ret_have, (unsigned long long)l->what.size);
		return r < 0 ? r : 0;
	}
	if (r < 0)
		return r == -EBUSY ? 1 : r;
	*ret_fd = fcntl(ingest_fd(l->ingest), F_DUPFD_CLOEXEC, 3);
	if (*ret_fd < 0)
		return err_errno(err, -errno, "blob %s", l->what.digest);
	*ret_have = ingest_had(l->ingest);
	if (*ret_have > l->what.size) {
		*ret_have = 0;
		return ingest_reset(l->ingest, err);
	}
	return 0;
}

static void on_kick(struct ev_timer *t);

/* 1: not now. */
static int layer_start(struct layer *l, struct err *err)
{
	struct image_pull *p = l->pull;
	cleanup_fd int file = -1, pipe = -1;
	struct fetcher_layer what = { .digest = l->what.digest, .size = l->what.size };
	int r = layer_file(l, &file, &what.have, err);

	if (r > 0) {
		(void)!ev_timer_add(p->s->loop, &p->busy_timer, BUSY_NS, on_kick, p);
		return r;
	}
	if (r >= 0 && !is_part(l)) {
		cleanup_free char *path = store_tmp_path(p->s, ".ext4");

		if (!path)
			return err_set(err, -ENOMEM, "no memory");
		r = unpacker_new(&p->s->procs, path, l->what.compression, l->diff_id, on_unpacked,
				 l, &l->unpacker, &pipe, err);
	}
	if (r < 0)
		return r;
	l->state = IMAGE_LAYER_FETCHING;
	what.file_fd = file;
	what.pipe_fd = pipe;
	return fetcher_layer(p->fetcher, LAYER_ID + (uint32_t)(l - p->layers), p->ref.path, &what,
			     err);
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
		(void)!blob_delete(l->pull->s, l->what.digest, NULL);
	l->ingest = NULL;
	l->fetch_ended = l->unpack_ended = false;
	l->fetch_code = l->unpack_code = 0;
	l->fetched = 0;
	l->state = IMAGE_LAYER_WAITING;
	pull_note_change(l->pull);
	pull_kick(l->pull);
}

static int layers_go_on(struct image_pull *p, bool *ret_all, struct err *err)
{
	size_t ready = 0;
	int go = runs_go_on(p, err);

	if (go < 0)
		return go;
	for (size_t k = 0; k < p->n_layers; k++) {
		struct layer *l = &p->layers[k];
		int r;

		if (l->state == IMAGE_LAYER_WAITING) {
			r = is_part(l) ? 0 : store_has_layer(p->s, l->diff_id, err);
			if (r < 0)
				return r;
			if (r) {
				l->state = IMAGE_LAYER_SHARED;
				pull_note_change(p);
			} else if (room_for_one(p) && !somebody_fetches(p->s, l->diff_id)) {
				r = layer_start(l, err);
				if (r < 0)
					return err_wrap(err, r, "layer %zu of %zu", k + 1,
							p->n_layers);
				pull_note_change(p);
			}
		}
		ready += is_ready(l);
	}
	*ret_all = ready == p->n_layers;
	return 0;
}

static void on_kick(struct ev_timer *t)
{
	struct image_pull *p = t->arg;
	struct err err = { 0 };
	bool all = false;
	int r;

	if (p->step != PULL_LAYERS)
		return;
	r = layers_go_on(p, &all, &err);
	if (r < 0)
		pull_fail(p, r, &err);
	else if (all && (!p->changed || show_progress(p)))
		pull_succeed(p);
}

void pull_kick(struct image_pull *p)
{
	if (p->step == PULL_LAYERS)
		(void)!ev_timer_add(p->s->loop, &p->kick_timer, 0, on_kick, p);
}

/* ---- documents ---- */

static int check_digest(const void *data, size_t len, const char *want, const char *what,
			struct err *err)
{
	char digest[DIGEST_LEN + 1];
	int r = digest_of(data, len, digest);

	if (r < 0)
		return err_set(err, r, "no memory");
	if (!str_eq(digest, want))
		return err_set(err, -EBADMSG, "%s %s has the wrong digest: it is %s", what, want,
			       digest);
	return 0;
}

/* For push and save. Its digest is right. */
static int keep_document(struct image_pull *p, const void *data, size_t len, struct err *err)
{
	char digest[DIGEST_LEN + 1];
	int r = blob_put(p->s, data, len, digest, err);

	if (r == -EBUSY) /* another pull has it in its hands */
		return 0;
	return r < 0 ? r : lease_add(p->lease, digest, err);
}

static int ask_config(struct image_pull *p, size_t manifest_size, struct err *err)
{
	p->manifest_size = manifest_size;
	p->step = PULL_CONFIG;
	return fetcher_blob(p->fetcher, PULL_CONFIG + 1, p->ref.path, p->manifest.config_digest,
			    p->manifest.config_size, err);
}

static int on_resolved(struct image_pull *p, const void *data, size_t len, struct err *err)
{
	int r;

	if (*p->ref.digest) {
		r = check_digest(data, len, p->ref.digest, "manifest", err);
		if (r < 0)
			return r;
	}
	r = digest_of(data, len, p->digest);
	if (r < 0)
		return err_set(err, r, "no memory");
	r = manifest_parse(data, len, p->s->arch, &p->manifest, p->choice, err);
	if (r >= 0)
		r = keep_document(p, data, len, err);
	if (r < 0)
		return r;
	if (!*p->choice)
		return ask_config(p, len, err);
	p->step = PULL_PLATFORM;
	return fetcher_manifest(p->fetcher, PULL_PLATFORM + 1, p->ref.path, p->choice, err);
}

static int on_platform(struct image_pull *p, const void *data, size_t len, struct err *err)
{
	char choice[DIGEST_LEN + 1] = "";
	int r = check_digest(data, len, p->choice, "manifest", err);

	if (r >= 0)
		r = manifest_parse(data, len, p->s->arch, &p->manifest, choice, err);
	if (r >= 0 && *choice)
		r = err_set(err, -ENOTSUP, "the index has an index in it");
	if (r >= 0)
		r = keep_document(p, data, len, err);
	return r < 0 ? r : ask_config(p, len, err);
}

static int make_layers(struct image_pull *p, struct err *err)
{
	size_t n = p->manifest.n_layers;

	if (strv_len(p->config.diff_ids) != n)
		return err_set(err, -EPROTO, "the manifest has %zu layers, the configuration %zu",
			       n, strv_len(p->config.diff_ids));
	p->layers = calloc(n + 1, sizeof(*p->layers));
	if (!p->layers)
		return err_set(err, -ENOMEM, "no memory");
	for (size_t k = 0; k < n; k++)
		p->layers[k] = (struct layer){ .pull = p,
					       .what = p->manifest.layers[k],
					       .diff_id = p->config.diff_ids[k] };
	p->n_layers = n;
	for (size_t k = 0; k < n; k++) {
		int r = lease_add(p->lease, p->layers[k].diff_id, err);

		if (r >= 0)
			r = lease_add(p->lease, p->layers[k].what.digest, err);
		if (r < 0)
			return r;
	}
	return runs_make(p, err);
}

static int on_config(struct image_pull *p, const void *data, size_t len, struct err *err)
{
	int r = check_digest(data, len, p->manifest.config_digest, "configuration", err);

	if (r >= 0)
		r = image_config_parse(data, len, &p->config, err);
	if (r < 0)
		return r;
	if (!str_eq(p->config.os, "linux") || !str_eq(p->config.arch, p->s->arch))
		return err_set(err, -ENOTSUP,
			       "the image is for %.40s/%.40s, this machine is linux/%s",
			       *p->config.os ? p->config.os : "?",
			       *p->config.arch ? p->config.arch : "?", p->s->arch);
	p->config_bytes = malloc(len + 1);
	if (!p->config_bytes)
		return err_set(err, -ENOMEM, "no memory");
	memcpy(p->config_bytes, data, len);
	p->config_len = len;
	r = keep_document(p, data, len, err);
	if (r >= 0)
		r = make_layers(p, err);
	if (r < 0)
		return r;
	p->step = PULL_LAYERS;
	pull_kick(p);
	pull_note_change(p);
	return 0;
}

static void on_document(void *arg, uint32_t id, const void *data, size_t len)
{
	struct image_pull *p = arg;
	struct err err = { 0 };
	int r;

	if (p->step == PULL_LAYERS || id != (uint32_t)p->step + 1)
		r = err_set(&err, -EPROTO, "an answer to no question");
	else if (p->step == PULL_RESOLVE)
		r = on_resolved(p, data, len, &err);
	else if (p->step == PULL_PLATFORM)
		r = on_platform(p, data, len, &err);
	else
		r = on_config(p, data, len, &err);
	if (r < 0)
		pull_fail(p, r, &err);
}

static void on_fetch_progress(void *arg, uint32_t id, uint64_t fetched)
{
	struct image_pull *p = arg;
	struct layer *l = layer_of(p, id);

	if (!l || l->state != IMAGE_LAYER_FETCHING)
		return;
	l->fetched = MIN_OF(fetched, l->what.size);
	pull_note_change(p);
}

static void on_fetched(void *arg, uint32_t id, uint64_t fetched)
{
	struct image_pull *p = arg;
	struct layer *l = layer_of(p, id);

	if (!l || !is_active(l) || l->fetch_ended)
		return;
	if (l->ingest)
		ingest_commit(l->ingest);
	l->ingest = NULL;
	l->fetched = l->what.size;
	l->fetch_ended = true;
	l->state = IMAGE_LAYER_UNPACKING;
	p->fetched_ns = now_mono_ns();
	pull_note_change(p);
	layer_settle(l);
}

static void on_fetch_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	struct image_pull *p = arg;
	struct layer *l = layer_of(p, id);
	struct err copy = *err;

	if (!l) {
		pull_fail(p, code, &copy);
		return;
	}
	if (!is_active(l) || l->fetch_ended)
		return;
	if (again && l->restarts < MAX_RESTARTS) {
		layer_restart(l);
		return;
	}
	l->fetch_ended = true;
	l->fetch_code = code;
	l->fetch_err = copy;
	layer_settle(l);
}

static const struct fetcher_ops fetch_ops = {
	.document = on_document,
	.progress = on_fetch_progress,
	.done = on_fetched,
	.error = on_fetch_error,
};

/* ---- the beginning ---- */

static struct image_pull *pull_new(struct image_store *s, image_progress_fn progress,
				   image_done_fn done, void *arg)
{
	struct image_pull *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->s = s;
	p->progress = progress;
	p->done = done;
	p->arg = arg;
	p->start_ns = now_mono_ns();
	return p;
}

/* r: what asking for `reference` needed, or why it cannot be. From here on the pull runs, or is
 * gone. */
static int pull_start(struct image_pull *p, int r, const char *reference, struct image_pull **ret,
		      struct err *err)
{
	if (r >= 0)
		r = fetcher_manifest(p->fetcher, PULL_RESOLVE + 1, p->ref.path, reference, err);
	if (r < 0) {
		lease_end(p->lease, false);
		pull_free(p);
		return r;
	}
	p->next = p->s->pulls;
	p->s->pulls = p;
	*ret = p;
	return 0;
}

int pull_archive(struct image_store *s, int archive_fd, const char *digest,
		 image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
		 struct err *err)
{
	const struct fetcher_options o = { .from_archive = true, .archive_fd = archive_fd };
	struct image_pull *p = pull_new(s, progress, done, arg);
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "no memory");
	p->from_archive = true;
	memcpy(p->ref.digest, digest, sizeof(p->ref.digest));
	r = lease_new(s, &p->lease, err);
	if (r >= 0)
		r = fetcher_new(&s->procs, &o, &fetch_ops, p, &p->fetcher, err);
	return pull_start(p, r, digest, ret, err);
}

int image_pull(struct image_store *s, const char *ref, const struct image_auth *auth,
	       image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
	       struct err *err)
{
	struct image_pull *p = pull_new(s, progress, done, arg);
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "no memory");
	r = reference_parse(ref, &p->ref, err);
	if (r >= 0)
		r = lease_new(s, &p->lease, err);
	if (r >= 0)
		r = fetcher_open(&s->procs, &s->fetcher_config, p->ref.host, auth, &p->credentials,
				 &fetch_ops, p, &p->fetcher, err);
	return pull_start(p, r, *p->ref.digest ? p->ref.digest : p->ref.tag, ret, err);
}

void image_pull_cancel(struct image_pull *p)
{
	pull_end(p, -ECANCELED);
}

void pulls_close(struct image_store *s)
{
	while (s->pulls) {
		struct err err = { 0 };

		err_set(&err, -ECANCELED, "the image store is closing");
		pull_fail(s->pulls, -ECANCELED, &err);
	}
	procs_close(&s->procs);
}

bool image_err_unavailable(int code)
{
	return failure_unavailable(code);
}
