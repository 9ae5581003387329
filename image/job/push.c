/*
 * A push, as a machine driven by one fetch process: the blobs, some at a time, then the manifest,
 * so that the name in the registry never stands for something that is not whole. And logins.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/credentials.h"
#include "image/job/fetcher.h"
#include "image/reference.h"
#include "image/store/store.h"
#include "image/store/blobs.h"
#include "image/store/content.h"

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
	struct image_store *s;
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
	push_free(p);
	done(arg, code, NULL, &err);
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

static void on_timer(struct ev_timer *t)
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
	(void)!ev_timer_add(p->s->loop, &p->timer, PROGRESS_NS, on_timer, p);
}

/* ---- blobs ---- */

/* Another repository of this registry that has had the blob, as our names tell. "": none. */
static int other_repository(struct image_push *p, const char *digest,
			    char ret[REFERENCE_MAX_NAME + 1], struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_free char *first = str_fmt("%s/", p->ref.host);
	int c, r;

	*ret = '\0';
	if (!first)
		return err_set(err, -ENOMEM, "no memory");
	/* Names with a digest came from a registry; a tag alone may be of this machine only. */
	r = db_prepare(p->s,
		       "SELECT DISTINCT n.name FROM names n JOIN manifests m ON m.image=n.image"
		       " JOIN manifest_layers l ON l.manifest=m.digest WHERE l.digest=?1"
		       " AND substr(n.name, 1, length(?2))=?2 AND instr(n.name, '@')"
		       " ORDER BY n.name LIMIT 16",
		       &st, err, digest, first, NULL);
	if (r < 0)
		return r;
	while ((c = sqlite3_step(st)) == SQLITE_ROW && !*ret) {
		const char *name = (const char *)sqlite3_column_text(st, 0);
		struct reference ref;

		if (name && reference_parse(name, &ref, NULL) >= 0 &&
		    str_eq(ref.host, p->ref.host) && !str_eq(ref.path, p->ref.path))
			memcpy(ret, ref.path, sizeof(ref.path));
	}
	return c == SQLITE_ROW || c == SQLITE_DONE ? 0 : db_error(p->s, err);
}

static int start_blob(struct image_push *p, size_t k, struct err *err)
{
	struct blob *b = &p->blobs[k];
	char from[REFERENCE_MAX_NAME + 1];
	cleanup_fd int fd = -1;
	struct fetcher_push q = { .repository = p->ref.path, .digest = b->digest, .size = b->size };
	int r = blob_open(p->s, b->digest, &fd, NULL, err);

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
	int r = blob_open(p->s, c->manifest_digest, &fd, NULL, err);

	q.fd = fd;
	return r < 0 ? r : fetcher_push(p->fetcher, MANIFEST_ID, &q, err);
}

static void go_on(struct image_push *p)
{
	size_t busy = 0, left = 0;
	struct err err = { 0 };
	int r = 0;

	for (size_t k = 0; k < p->n_blobs; k++)
		busy += p->blobs[k].state == IMAGE_PUSH_SENDING;
	for (size_t k = 0; k < p->n_blobs && r >= 0; k++) {
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
	if (r >= 0 && !left)
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
	return db_run(p->s, err,
		      "INSERT OR REPLACE INTO names(name, image, target, manifest)"
		      " VALUES(?1, ?2, ?3, ?3)",
		      name, c->id, c->manifest_digest, NULL);
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
	push_free(p);
	done(arg, 0, &res, &err);
}

/* ---- what the process says ---- */

static struct blob *blob_of(struct image_push *p, uint32_t id)
{
	return id >= BLOB_ID && id - BLOB_ID < p->n_blobs ? &p->blobs[id - BLOB_ID] : NULL;
}

static void on_pushed(void *arg, uint32_t id, const char *how)
{
	struct image_push *p = arg;
	struct blob *b = blob_of(p, id);

	if (id == MANIFEST_ID) {
		push_succeed(p);
		return;
	}
	if (!b || b->state != IMAGE_PUSH_SENDING)
		return;
	b->state = str_eq(how, "mounted") ? IMAGE_PUSH_MOUNTED
		   : str_eq(how, "there") ? IMAGE_PUSH_THERE
					  : IMAGE_PUSH_DONE;
	b->sent = b->state == IMAGE_PUSH_DONE ? b->size : 0;
	note_change(p);
	go_on(p);
}

static void on_progress(void *arg, uint32_t id, uint64_t sent)
{
	struct image_push *p = arg;
	struct blob *b = blob_of(p, id);

	if (!b || b->state != IMAGE_PUSH_SENDING)
		return;
	b->sent = MIN_OF(sent, b->size);
	note_change(p);
}

static void on_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	push_fail(arg, code, err);
}

static void no_document(void *arg, uint32_t id, const void *data, size_t len)
{
}

static void no_done(void *arg, uint32_t id, uint64_t fetched)
{
}

static const struct fetcher_ops push_ops = {
	.document = no_document,
	.progress = on_progress,
	.done = no_done,
	.pushed = on_pushed,
	.error = on_error,
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
	r = store_resolve(p->s, name, id, NULL, err);
	if (r == -ENOENT)
		return err_set(err, r,
			       "no image has the name %s; 'husk tag IMAGE %s' gives it to one",
			       name, ref);
	if (r >= 0)
		r = content_open(p->s, name, &p->content, err);
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

int image_push(struct image_store *s, const char *ref, const struct image_auth *auth,
	       image_push_progress_fn progress, image_push_done_fn done, void *arg,
	       struct image_push **ret, struct err *err)
{
	struct image_push *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "no memory");
	p->s = s;
	p->progress = progress;
	p->done = done;
	p->arg = arg;
	p->start_ns = now_mono_ns();
	r = set_content(p, ref, err);
	if (r >= 0)
		r = fetcher_open(&s->procs, &s->fetcher_config, p->ref.host, auth, &p->credentials,
				 &push_ops, p, &p->fetcher, err);
	for (size_t k = 0; r >= 0 && k < MIN_OF((size_t)AT_ONCE, p->n_blobs); k++)
		if (k == 0 || !str_eq(p->blobs[k].digest, p->blobs[k - 1].digest))
			r = start_blob(p, k, err);
	if (r < 0) {
		push_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

/* ---- logins ---- */

struct image_login {
	struct credentials credentials;
	struct fetcher *fetcher;
	image_login_done_fn done;
	void *arg;
};

static void login_end(struct image_login *l, int code, const struct err *why)
{
	image_login_done_fn done = l->done;
	struct err err = { 0 };
	void *arg = l->arg;

	if (code < 0)
		err = *why;
	image_login_cancel(l);
	done(arg, code, &err);
}

static void on_ping(void *arg, uint32_t id, uint64_t fetched)
{
	login_end(arg, 0, NULL);
}

static void on_ping_error(void *arg, uint32_t id, int code, bool again, const struct err *err)
{
	login_end(arg, code, err);
}

static const struct fetcher_ops login_ops = {
	.document = no_document,
	.progress = no_done,
	.done = on_ping,
	.error = on_ping_error,
};

int image_login(struct image_store *s, const char *server, const struct image_auth *auth,
		image_login_done_fn done, void *arg, struct image_login **ret, struct err *err)
{
	struct image_login *l = calloc(1, sizeof(*l));
	cleanup_free char *name = str_fmt("%s/x/y", server);
	struct reference ref;
	int r;

	if (!l || !name) {
		free(l);
		return err_set(err, -ENOMEM, "no memory");
	}
	l->done = done;
	l->arg = arg;
	r = reference_parse(name, &ref, err);
	if (r < 0 || !str_eq(ref.host, server))
		r = err_set(err, -EINVAL, "'%.100s' is no registry's host name", server);
	else
		r = fetcher_open(&s->procs, &s->fetcher_config, server, auth, &l->credentials,
				 &login_ops, l, &l->fetcher, err);
	if (r >= 0)
		r = fetcher_ping(l->fetcher, MANIFEST_ID, err);
	if (r < 0) {
		image_login_cancel(l);
		return r;
	}
	*ret = l;
	return 0;
}

void image_login_cancel(struct image_login *l)
{
	fetcher_free(l->fetcher);
	credentials_fini(&l->credentials);
	free(l);
}
