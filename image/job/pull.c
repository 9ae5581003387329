#include "image/job/pull.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/loop.h"
#include "base/util.h"
#include "image/job/fetcher.h"
#include "image/job/pull_internal.h"
#include "image/store/blobs.h"
#include "image/store/disk.h"
#include "image/store/gc.h"
#include "image/store/images.h"
#include "image/store/space.h"

#define PROGRESS_NS (100 * NS_PER_MS)

/* ---- the end ---- */

static void pull_free(struct image_pull *p)
{
	if (p->freed)
		*p->freed = true;
	fetcher_free(p->fetcher);
	for (size_t k = 0; k < p->n_layers; k++)
		layer_fini(&p->layers[k]);
	for (size_t k = 0; k < p->n_groups; k++)
		merge_free(p->groups[k].merge);
	merge_free(p->top_merge);
	disk_sync_forget(p->sync);
	/* Not earlier: an ingest file that is given back wakes layers of this pull, too. */
	ev_timer_del(&p->work_timer);
	ev_timer_del(&p->progress_timer);
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
	struct jobs *js = p->jobs;

	job_remove(&p->job);
	pull_free(p);
	lease_end(lease, useless);
	if (code == -ENOSPC || code == -EDQUOT)
		gc_make_room(js->store);
	pull_schedule_all(js);
}

void pull_fail(struct image_pull *p, int code, struct err *err)
{
	image_done_fn done = p->done;
	void *arg = p->arg;
	char name[REFERENCE_MAX + 1];

	/* Whose words they are: of a child that sees no path, or the kernel's; these say more. */
	if (code == -ENOSPC)
		(void)!space_check(p->jobs->store, 0, err);
	reference_canonical(&p->ref, name);
	code = p->from_archive ? err_wrap(err, code, "load %s", p->ref.digest)
			       : err_wrap(err, code, "pull %s", name);
	pull_end(p, code);
	done(arg, code, NULL, err);
}

static void pull_on_stop(struct job *j, const struct err *why)
{
	struct err err = *why;

	pull_fail(container_of(j, struct image_pull, job), why->code, &err);
}

static void pull_on_synced(void *arg, int code, const struct err *err)
{
	struct image_pull_result res = { 0 };
	struct image_pull *p = arg;
	char id[DIGEST_LEN + 1];
	image_done_fn done = p->done;
	struct err copy = *err;

	arg = p->arg;
	p->sync = NULL;
	if (code < 0) {
		pull_fail(p, code, &copy);
		return;
	}
	memcpy(id, p->manifest.config_digest, sizeof(id));
	res.id = id;
	res.total_ns = now_mono_ns() - p->start_ns;
	res.fetch_ns = p->fetched_ns ? p->fetched_ns - p->start_ns : res.total_ns;
	pull_end(p, 0);
	done(arg, 0, &res, &copy);
}

/* All layers are there: the image can be seen now, and is reported when it is on the disk. */
static void pull_add_image(struct image_pull *p)
{
	char *disks[MERGE_MAX_DISKS + 2] = { NULL };
	struct err err = { 0 };
	struct image_commit c = {
		.id = p->manifest.config_digest,
		.config = p->config_bytes,
		.config_len = p->config_len,
		.ref = p->from_archive ? NULL : &p->ref,
		.names = p->names,
		.digest = p->digest,
		.diff_ids = p->config.diff_ids,
		.manifest = &p->manifest,
		.manifest_digest = *p->choice ? p->choice : p->digest,
		.manifest_size = p->manifest_size,
		.disks = disks,
	};
	int r;

	for (size_t k = 0; k < p->n_groups; k++)
		disks[k] = p->groups[k].layers.id;
	if (*p->top)
		disks[p->n_groups] = p->top;
	r = images_add(p->jobs->store, &c, &err);
	if (r == 0)
		r = disk_sync(p->jobs->store, pull_on_synced, p, &p->sync, &err);
	if (r < 0) {
		pull_fail(p, r, &err);
		return;
	}
	p->step = PULL_SYNC;
	/* A fetch process that ends now, or fails, is nobody's business any more. */
	fetcher_free(p->fetcher);
	p->fetcher = NULL;
}

/* ---- progress ---- */

/* A layer whose group is not complete yet has its blob, and is shown as one that is unpacked. */
static enum image_layer_state shown_state(enum layer_state state)
{
	static const enum image_layer_state shown[] = {
		[LAYER_WAITING] = IMAGE_LAYER_WAITING,	   [LAYER_FETCHING] = IMAGE_LAYER_FETCHING,
		[LAYER_UNPACKING] = IMAGE_LAYER_UNPACKING, [LAYER_FETCHED] = IMAGE_LAYER_UNPACKING,
		[LAYER_DONE] = IMAGE_LAYER_DONE,	   [LAYER_SHARED] = IMAGE_LAYER_SHARED,
	};

	return shown[state];
}

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

		v[k] = (struct image_layer_progress){ .digest = l->blob.digest,
						      .fetched = l->fetched,
						      .size = l->blob.size,
						      .state = shown_state(l->state) };
	}
	p->freed = &freed;
	p->progress(p->arg, &pr);
	if (!freed)
		p->freed = NULL;
	return !freed;
}

static void pull_on_progress_timer(struct ev_timer *t)
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
	(void)!ev_timer_add(p->jobs->loop, &p->progress_timer, PROGRESS_NS, pull_on_progress_timer,
			    p);
}

/* ---- from one step to the next ---- */

static void pull_on_work(struct ev_timer *t)
{
	struct image_pull *p = t->arg;
	struct err err = { 0 };
	bool all = false;
	uint64_t again_ns = 0;
	int r;

	if (p->step != PULL_LAYERS)
		return;
	r = pull_room_wait(p, &again_ns, &err);
	if (r == 0) {
		(void)!ev_timer_add(p->jobs->loop, &p->work_timer, again_ns, pull_on_work, p);
		return;
	}
	if (r > 0)
		r = pull_layers_start(p, &all, &err);
	if (r == 0 && all)
		r = pull_groups_top(p, &all, &err);
	if (r < 0)
		pull_fail(p, r, &err);
	else if (all && (!p->changed || show_progress(p)))
		pull_add_image(p);
}

void pull_schedule(struct image_pull *p)
{
	if (p->step == PULL_LAYERS)
		(void)!ev_timer_add(p->jobs->loop, &p->work_timer, 0, pull_on_work, p);
}

void pull_schedule_all(const struct jobs *js)
{
	for (struct image_pull *p = pull_first(js); p; p = pull_next(p))
		pull_schedule(p);
}

/* ---- documents ---- */

static int check_digest(const void *data, size_t len, const char *want, const char *what,
			struct err *err)
{
	char digest[DIGEST_LEN + 1];
	int r = digest_of(data, len, digest);

	if (r < 0)
		return err_nomem(err);
	if (!str_eq(digest, want))
		return err_set(err, -EBADMSG, "%s %s has the wrong digest: it is %s", what, want,
			       digest);
	return 0;
}

/* For push and save. Its digest is right. */
static int keep_document(struct image_pull *p, const void *data, size_t len, struct err *err)
{
	char digest[DIGEST_LEN + 1];
	int r = blob_put(p->jobs->store, data, len, digest, err);

	if (r == -EBUSY) /* another pull has it in its hands */
		return 0;
	return r < 0 ? r : lease_add(p->lease, digest, err);
}

static int ask_manifest(struct image_pull *p, enum pull_step step, const char *reference,
			struct err *err)
{
	p->step = step;
	p->document_request = ++p->last_request;
	return fetcher_manifest(p->fetcher, p->document_request, p->ref.path, reference, err);
}

static int ask_config(struct image_pull *p, size_t manifest_size, struct err *err)
{
	p->manifest_size = manifest_size;
	p->step = PULL_CONFIG;
	p->document_request = ++p->last_request;
	return fetcher_blob(p->fetcher, p->document_request, p->ref.path, p->manifest.config_digest,
			    p->manifest.config_size, err);
}

static int take_first_manifest(struct image_pull *p, const void *data, size_t len, struct err *err)
{
	int r;

	if (*p->ref.digest) {
		r = check_digest(data, len, p->ref.digest, "manifest", err);
		if (r < 0)
			return r;
	}
	r = digest_of(data, len, p->digest);
	if (r < 0)
		return err_nomem(err);
	r = manifest_parse(data, len, p->jobs->arch, &p->manifest, p->choice, err);
	if (r == 0)
		r = keep_document(p, data, len, err);
	if (r < 0)
		return r;
	if (!*p->choice)
		return ask_config(p, len, err);
	return ask_manifest(p, PULL_PLATFORM, p->choice, err);
}

static int take_platform_manifest(struct image_pull *p, const void *data, size_t len,
				  struct err *err)
{
	char choice[DIGEST_LEN + 1] = "";
	int r = check_digest(data, len, p->choice, "manifest", err);

	if (r == 0)
		r = manifest_parse(data, len, p->jobs->arch, &p->manifest, choice, err);
	if (r == 0 && *choice)
		r = err_set(err, -ENOTSUP, "the index has an index in it");
	if (r == 0)
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
		return err_nomem(err);
	for (size_t k = 0; k < n; k++)
		p->layers[k] = (struct layer){ .pull = p,
					       .blob = p->manifest.layers[k],
					       .diff_id = p->config.diff_ids[k] };
	p->n_layers = n;
	for (size_t k = 0; k < n; k++) {
		int r = lease_add(p->lease, p->layers[k].diff_id, err);

		if (r == 0)
			r = lease_add(p->lease, p->layers[k].blob.digest, err);
		if (r < 0)
			return r;
	}
	return pull_groups_make(p, err);
}

static int take_config(struct image_pull *p, const void *data, size_t len, struct err *err)
{
	int r = check_digest(data, len, p->manifest.config_digest, "configuration", err);

	if (r == 0)
		r = image_config_parse(data, len, &p->config, err);
	if (r < 0)
		return r;
	if (!str_eq(p->config.os, "linux") || !str_eq(p->config.arch, p->jobs->arch))
		return err_set(err, -ENOTSUP,
			       "the image is for %.40s/%.40s, this machine is linux/%s",
			       *p->config.os ? p->config.os : "?",
			       *p->config.arch ? p->config.arch : "?", p->jobs->arch);
	p->config_bytes = malloc(len + 1);
	if (!p->config_bytes)
		return err_nomem(err);
	memcpy(p->config_bytes, data, len);
	p->config_len = len;
	r = keep_document(p, data, len, err);
	if (r == 0)
		r = make_layers(p, err);
	if (r < 0)
		return r;
	p->step = PULL_LAYERS;
	pull_schedule(p);
	pull_note_change(p);
	return 0;
}

/* ---- what the fetch process says ---- */

static void pull_on_document(void *arg, uint32_t id, const void *data, size_t len)
{
	struct image_pull *p = arg;
	struct err err = { 0 };
	int r;

	check(p->step != PULL_LAYERS && id == p->document_request);
	if (p->step == PULL_MANIFEST)
		r = take_first_manifest(p, data, len, &err);
	else if (p->step == PULL_PLATFORM)
		r = take_platform_manifest(p, data, len, &err);
	else
		r = take_config(p, data, len, &err);
	if (r < 0)
		pull_fail(p, r, &err);
}

static void pull_on_progress(void *arg, uint32_t id, uint64_t fetched)
{
	struct layer *l = pull_layer_of(arg, id);

	if (l)
		layer_on_progress(l, fetched);
}

static void pull_on_fetched(void *arg, uint32_t id, uint64_t fetched)
{
	struct layer *l = pull_layer_of(arg, id);

	if (l)
		layer_on_fetched(l);
}

static void pull_on_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	struct image_pull *p = arg;
	struct layer *l = pull_layer_of(p, id);
	struct err copy = *err;

	if (l)
		layer_on_fetch_error(l, code, again, err);
	else
		pull_fail(p, code, &copy);
}

static const struct fetcher_ops fetch_ops = {
	.document = pull_on_document,
	.progress = pull_on_progress,
	.done = pull_on_fetched,
	.error = pull_on_error,
};

/* ---- the beginning ---- */

static struct image_pull *pull_alloc(struct jobs *js, image_progress_fn progress,
				     image_done_fn done, void *arg)
{
	struct image_pull *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->jobs = js;
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
	if (r == 0)
		r = ask_manifest(p, PULL_MANIFEST, reference, err);
	if (r < 0) {
		lease_end(p->lease, false);
		pull_free(p);
		return r;
	}
	job_add(p->jobs, &p->job, JOB_PULL, pull_on_stop);
	p->job.taken = pull_taken;
	jobs_watch_room(p->jobs);
	*ret = p;
	return 0;
}

int pull_archive(struct jobs *js, int archive_fd, const char *digest, char *const *names,
		 image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
		 struct err *err)
{
	const struct fetcher_options o = { .from_archive = true, .archive_fd = archive_fd };
	struct image_pull *p = pull_alloc(js, progress, done, arg);
	int r;

	if (!p)
		return err_nomem(err);
	p->from_archive = true;
	p->names = names;
	memcpy(p->ref.digest, digest, sizeof(p->ref.digest));
	r = lease_new(js->store, &p->lease, err);
	if (r == 0)
		r = fetcher_new(&js->procs, &o, &fetch_ops, p, &p->fetcher, err);
	return pull_start(p, r, digest, ret, err);
}

int pull_new(struct jobs *js, const char *ref, const struct image_auth *auth,
	     image_progress_fn progress, image_done_fn done, void *arg, struct image_pull **ret,
	     struct err *err)
{
	struct image_pull *p = pull_alloc(js, progress, done, arg);
	int r;

	if (!p)
		return err_nomem(err);
	r = reference_parse(ref, &p->ref, err);
	if (r == 0)
		r = lease_new(js->store, &p->lease, err);
	if (r == 0)
		r = fetcher_open(&js->procs, &js->fetcher_config, p->ref.host, auth,
				 &p->credentials, &fetch_ops, p, &p->fetcher, err);
	return pull_start(p, r, *p->ref.digest ? p->ref.digest : p->ref.tag, ret, err);
}

void image_pull_cancel(struct image_pull *p)
{
	pull_end(p, -ECANCELED);
}
