#include "image/job/push.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/credentials.h"
#include "image/job/fetcher.h"
#include "image/job/jobs.h"
#include "image/reference.h"
#include "image/store/blobs.h"
#include "image/store/content.h"
#include "image/store/images.h"
#include "image/store/names.h"

#define AT_ONCE 3u
#define BLOB_ID 16u /* request id of blob 0 */
#define MANIFEST_ID 1u
#define PROGRESS_NS (100 * NS_PER_MS)

struct blob {
	const char *digest; /* in the content */
	uint64_t size, sent;
	enum image_push_state state;
};

struct image_push {
	struct job job;
	struct jobs *jobs;
	struct reference ref;
	struct content *content;
	struct credentials credentials;
	struct fetcher *fetcher;
	struct blob blobs[IMAGE_MAX_LAYERS + 1]; /* layers, lowest first; the configuration */
	size_t n_blobs;
	image_push_progress_fn progress;
	image_push_done_fn done;
	void *arg;
	struct ev_timer timer;
	bool changed;
	uint64_t start_ns;
};

static void push_free(struct image_push *p)
{
	ev_timer_del(&p->timer);
	fetcher_free(p->fetcher);
	content_free(p->content);
	credentials_fini(&p->credentials);
	free(p);
}

void image_push_cancel(struct image_push *p)
{
	job_remove(&p->job);
	push_free(p);
}

static void push_fail(struct image_push *p, int code, const struct err *why)
{
	image_push_done_fn done = p->done;
	char name[REFERENCE_MAX + 1];
	struct err err = *why;
	void *arg = p->arg;

	reference_with_tag(&p->ref, name);
	code = err_wrap(&err, code, "push %s", name);
	job_remove(&p->job);
	push_free(p);
	done(arg, code, NULL, &err);
}

static void push_on_stop(struct job *j, const struct err *why)
{
	push_fail(container_of(j, struct image_push, job), why->code, why);
}

/* ---- progress ---- */

static void show_progress(struct image_push *p)
{
	struct image_blob_progress v[IMAGE_MAX_LAYERS + 1];

	p->changed = false;
	for (size_t k = 0; k < p->n_blobs; k++)
		v[k] = (struct image_blob_progress){ p->blobs[k].digest, p->blobs[k].sent,
						     p->blobs[k].size, p->blobs[k].state };
	p->progress(p->arg, v, p->n_blobs);
}

static void push_on_timer(struct ev_timer *t)
{
	struct image_push *p = t->arg;

	if (p->changed)
		show_progress(p);
}

static void note_change(struct image_push *p)
{
	if (p->changed || !p->progress)
		return;
	p->changed = true;
	(void)!ev_timer_add(p->jobs->loop, &p->timer, PROGRESS_NS, push_on_timer, p);
}

/* ---- blobs ---- */

/* Another repository of this registry that has had the blob, as our names tell. "": none. */
static int other_repository(struct image_push *p, const char *digest,
			    char ret[REFERENCE_MAX_NAME + 1], struct err *err)
{
	cleanup_strv char **names = NULL;
	int r = names_with_blob(p->jobs->store, p->ref.host, digest, &names, err);

	*ret = '\0';
	if (r < 0)
		return r;
	for (char **name = names; *name && !*ret; name++) {
		struct reference ref;

		if (reference_parse(*name, &ref, NULL) == 0 && str_eq(ref.host, p->ref.host) &&
		    !str_eq(ref.path, p->ref.path))
			memcpy(ret, ref.path, sizeof(ref.path));
	}
	return 0;
}

static int start_blob(struct image_push *p, size_t k, struct err *err)
{
	struct blob *b = &p->blobs[k];
	char from[REFERENCE_MAX_NAME + 1];
	cleanup_fd int fd = -1;
	struct fetcher_push q = { .repository = p->ref.path, .digest = b->digest, .size = b->size };
	int r = blob_open(p->jobs->store, b->digest, &fd, NULL, err);

	/* One that is not kept need not be sent, if the registry has it. */
	if (r < 0 && r != -ENOENT)
		return r;
	r = other_repository(p, b->digest, from, err);
	if (r < 0)
		return r;
	q.fd = fd;
	q.from = *from ? from : NULL;
	b->state = IMAGE_PUSH_SENDING;
	note_change(p);
	return fetcher_push(p->fetcher, BLOB_ID + (uint32_t)k, &q, err);
}

static int start_manifest(struct image_push *p, struct err *err)
{
	const struct content *c = p->content;
	cleanup_fd int fd = -1;
	struct fetcher_push q = { .repository = p->ref.path,
				  .digest = c->manifest_digest,
				  .size = c->manifest_len,
				  .reference = p->ref.tag,
				  .media_type = c->manifest.media_type };
	int r = blob_open(p->jobs->store, c->manifest_digest, &fd, NULL, err);

	q.fd = fd;
	return r < 0 ? r : fetcher_push(p->fetcher, MANIFEST_ID, &q, err);
}

static void start_more(struct image_push *p)
{
	size_t busy = 0, left = 0;
	struct err err = { 0 };
	int r = 0;

	for (size_t k = 0; k < p->n_blobs; k++)
		busy += p->blobs[k].state == IMAGE_PUSH_SENDING;
	for (size_t k = 0; k < p->n_blobs && r == 0; k++) {
		struct blob *b = &p->blobs[k];
		bool same = false;

		/* The same layer twice is one blob. */
		for (size_t i = 0; i < k && !same; i++)
			same = str_eq(p->blobs[i].digest, b->digest) &&
			       p->blobs[i].state < IMAGE_PUSH_DONE;
		if (b->state == IMAGE_PUSH_WAITING && busy < AT_ONCE && !same) {
			r = start_blob(p, k, &err);
			busy++;
		}
		left += b->state < IMAGE_PUSH_DONE;
	}
	if (r == 0 && !left)
		r = start_manifest(p, &err);
	if (r < 0)
		push_fail(p, r, &err);
}

/* ---- the end ---- */

/* From now on we know a digest in that repository. */
static int remember(struct image_push *p, struct err *err)
{
	const struct content *c = p->content;
	char name[REFERENCE_MAX + 1];

	reference_with_digest(&p->ref, c->manifest_digest, name);
	return names_add_pushed(p->jobs->store, name, c->id, c->manifest_digest, err);
}

static void push_succeed(struct image_push *p)
{
	image_push_done_fn done = p->done;
	struct image_push_result res = { .total_ns = now_mono_ns() - p->start_ns };
	char digest[DIGEST_LEN + 1];
	struct err err = { 0 };
	void *arg = p->arg;
	int r = remember(p, &err);

	if (r < 0) {
		push_fail(p, r, &err);
		return;
	}
	if (p->progress)
		show_progress(p);
	memcpy(digest, p->content->manifest_digest, sizeof(digest));
	res.digest = digest;
	job_remove(&p->job);
	push_free(p);
	done(arg, 0, &res, &err);
}

/* ---- what the process says ---- */

static struct blob *blob_of(struct image_push *p, uint32_t id)
{
	return id >= BLOB_ID && id - BLOB_ID < p->n_blobs ? &p->blobs[id - BLOB_ID] : NULL;
}

static void push_on_pushed(void *arg, uint32_t id, enum fetcher_pushed how)
{
	struct image_push *p = arg;
	struct blob *b = blob_of(p, id);

	if (id == MANIFEST_ID) {
		push_succeed(p);
		return;
	}
	if (!b || b->state != IMAGE_PUSH_SENDING)
		return;
	b->state = how == FETCHER_MOUNTED   ? IMAGE_PUSH_MOUNTED
		   : how == FETCHER_PRESENT ? IMAGE_PUSH_THERE
					    : IMAGE_PUSH_DONE;
	b->sent = b->state == IMAGE_PUSH_DONE ? b->size : 0;
	note_change(p);
	start_more(p);
}

static void push_on_progress(void *arg, uint32_t id, uint64_t sent)
{
	struct image_push *p = arg;
	struct blob *b = blob_of(p, id);

	if (!b || b->state != IMAGE_PUSH_SENDING)
		return;
	b->sent = MIN_OF(sent, b->size);
	note_change(p);
}

static void push_on_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	push_fail(arg, code, err);
}

static const struct fetcher_ops push_ops = {
	.progress = push_on_progress,
	.pushed = push_on_pushed,
	.error = push_on_error,
};

/* ---- the beginning ---- */

static int set_content(struct image_push *p, const char *ref, struct err *err)
{
	char name[REFERENCE_MAX + 1], id[DIGEST_LEN + 1];
	int r = reference_parse(ref, &p->ref, err);

	if (r < 0)
		return r;
	if (*p->ref.digest)
		return err_set(err, -EINVAL,
			       "'%.200s': a name to push to has no digest; 'husk tag' gives an "
			       "image a name",
			       ref);
	reference_with_tag(&p->ref, name);
	r = images_resolve(p->jobs->store, name, id, NULL, err);
	if (r == -ENOENT)
		return err_set(err, r,
			       "no image has the name %s; 'husk tag IMAGE %s' gives it to one",
			       name, ref);
	if (r == 0)
		r = content_open(p->jobs->store, name, &p->content, err);
	if (r < 0)
		return r;
	for (size_t k = 0; k < p->content->manifest.n_layers; k++)
		p->blobs[p->n_blobs++] =
			(struct blob){ .digest = p->content->manifest.layers[k].digest,
				       .size = p->content->manifest.layers[k].size };
	p->blobs[p->n_blobs++] = (struct blob){ .digest = p->content->manifest.config_digest,
						.size = p->content->manifest.config_size };
	return 0;
}

int push_new(struct jobs *js, const char *ref, const struct image_auth *auth,
	     image_push_progress_fn progress, image_push_done_fn done, void *arg,
	     struct image_push **ret, struct err *err)
{
	struct image_push *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_nomem(err);
	p->jobs = js;
	p->progress = progress;
	p->done = done;
	p->arg = arg;
	p->start_ns = now_mono_ns();
	r = set_content(p, ref, err);
	if (r == 0)
		r = fetcher_open(&js->procs, &js->fetcher_config, p->ref.host, auth,
				 &p->credentials, &push_ops, p, &p->fetcher, err);
	for (size_t k = 0; r == 0 && k < MIN_OF((size_t)AT_ONCE, p->n_blobs); k++)
		if (k == 0 || !str_eq(p->blobs[k].digest, p->blobs[k - 1].digest))
			r = start_blob(p, k, err);
	if (r < 0) {
		push_free(p);
		return r;
	}
	job_add(js, &p->job, JOB_PUSH, push_on_stop);
	*ret = p;
	return 0;
}
