/*
 * Reading what is stored again. A layer's file has no checksum of its own: it is read once soon
 * after it came ("noted"), and later readings are compared with that.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/job/checker.h"
#include "image/store/store.h"
#include "image/store/blobs.h"

#define NOTE_AFTER_NS (2 * NS_PER_S) /* of quiet */

struct object {
	bool is_layer;
	char digest[DIGEST_LEN + 1];
};

struct image_verify {
	struct image_store *s;
	struct image_verify *next;
	struct lease *lease;
	image_verify_fn fn;
	image_verify_done_fn done;
	void *arg;
	struct object *objects;
	size_t n, at, problems;
	struct checker *checker;
	size_t in_hand; /* objects that the checker has not told of */
	struct ev_timer step;
	bool *freed; /* set when it is cancelled while the caller's function runs */
};

/* ---- one layer ---- */

static int open_layer(struct image_store *s, const char *diff_id, int *ret_fd, struct err *err)
{
	cleanup_free char *path = store_layer_path(s, diff_id);
	int fd;

	if (!path)
		return err_set(err, -ENOMEM, "no memory");
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, -errno, "open it");
	*ret_fd = fd;
	return 0;
}

/* What the layer's file was when it was read first; "" = it never was. */
static int noted_content(struct image_store *s, const char *diff_id, char content[DIGEST_LEN + 1],
			 struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT content FROM layers WHERE diff_id=?", &st, err, diff_id,
			   NULL);

	if (r < 0)
		return r;
	*content = 0;
	r = sqlite3_step(st);
	if (r == SQLITE_ROW)
		snprintf(content, DIGEST_LEN + 1, "%s", (const char *)sqlite3_column_text(st, 0));
	return r == SQLITE_ROW || r == SQLITE_DONE ? 0 : db_error(s, err);
}

static int note_content(struct image_store *s, const char *diff_id, const char *content,
			struct err *err)
{
	return db_run(s, err, "UPDATE layers SET content=? WHERE diff_id=? AND content=''", content,
		      diff_id, NULL);
}

static int mark_damaged(struct image_store *s, const char *diff_id, struct err *err)
{
	return db_run(s, err, "UPDATE layers SET damaged=1 WHERE diff_id=?", diff_id, NULL);
}

/* ---- verify: one object after the other ---- */

static void next_soon(struct image_verify *v);

static void verify_free(struct image_verify *v)
{
	struct image_verify **at = &v->s->verifies;

	while (*at && *at != v)
		at = &(*at)->next;
	if (*at)
		*at = v->next;
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

	verify_free(v);
	done(arg, code, problems, &err);
}

static int images_of(struct image_verify *v, const struct object *o, char ***ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(v->s,
			   o->is_layer ? "SELECT DISTINCT image FROM image_layers WHERE diff_id=?"
					 " ORDER BY image"
				       : "SELECT image FROM manifest_layers l JOIN manifests m ON"
					 " m.digest=l.manifest WHERE l.digest=?1 UNION"
					 " SELECT image FROM manifests WHERE digest=?1 UNION"
					 " SELECT image FROM names WHERE target=?1 UNION"
					 " SELECT id FROM images WHERE id=?1",
			   &st, err, o->digest, NULL);

	return r < 0 ? r : db_column(v->s, st, ret, err);
}

/* Tells about the object at hand and goes on. `problem`: NULL = it is well. */
static void object_done(struct image_verify *v, const char *problem)
{
	const struct object *o = &v->objects[v->at];
	cleanup_strv char **images = NULL;
	struct err err = { 0 };
	bool freed = false;
	int r = 0;

	if (problem) {
		v->problems++;
		r = images_of(v, o, &images, &err);
		if (r >= 0)
			r = o->is_layer ? mark_damaged(v->s, o->digest, &err)
					: blob_delete(v->s, o->digest, &err);
	}
	if (r < 0) {
		verify_end(v, r, &err);
		return;
	}
	struct image_verified told = { .kind = o->is_layer ? "layer" : "blob",
				       .digest = o->digest,
				       .done = ++v->at,
				       .total = v->n,
				       .problem = problem,
				       .images = images };
	if (v->fn) {
		v->freed = &freed;
		v->fn(v->arg, &told);
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
	char content[DIGEST_LEN + 1];
	struct err err = { 0 };
	int r = noted_content(v->s, o->digest, content, &err);

	if (r >= 0 && !*content)
		r = note_content(v->s, o->digest, digest, &err);
	if (r < 0)
		verify_end(v, r, &err);
	else
		object_done(v,
			    *content && !str_eq(content, digest) ? "its bytes have changed" : NULL);
}

static void on_checked(void *arg, int code, const char *digest, const struct err *err)
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
		r = o->is_layer ? open_layer(v->s, o->digest, &files[n].fd, err)
				: blob_open(v->s, o->digest, &files[n].fd, NULL, err);
		if (r < 0)
			break;
	}
	return n;
}

static void on_step(struct ev_timer *t)
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
	r = checker_new(&v->s->procs, files, n, false, on_checked, v, &v->checker, &err);
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
	int r = ev_timer_add(v->s->loop, &v->step, 0, on_step, v);

	if (r < 0) {
		err_set(&err, r, "no memory");
		verify_end(v, r, &err);
	}
}

/* ---- what there is to verify ---- */

static int add_objects(struct image_verify *v, const char *sql, const char *id, bool is_layer,
		       struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_strv char **all = NULL;
	struct object *more;
	int r = db_prepare(v->s, sql, &st, err, id, NULL);

	if (r >= 0)
		r = db_column(v->s, st, &all, err);
	if (r < 0)
		return r;
	more = realloc(v->objects, (v->n + strv_len(all) + 1) * sizeof(*more));
	if (!more)
		return err_set(err, -ENOMEM, "no memory");
	v->objects = more;
	for (char **d = all; r >= 0 && *d; d++) {
		bool known = false;

		for (size_t k = 0; id && k < v->n; k++)
			known |= more[k].is_layer == is_layer && str_eq(more[k].digest, *d);
		if (known)
			continue;
		more[v->n].is_layer = is_layer;
		snprintf(more[v->n++].digest, DIGEST_LEN + 1, "%s", *d);
		r = lease_add(v->lease, *d, err);
	}
	return r;
}

static int add_image(struct image_verify *v, const char *ref, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = store_resolve(v->s, ref, id, NULL, err);

	if (r >= 0)
		r = add_objects(v, "SELECT diff_id FROM image_layers WHERE image=? ORDER BY pos",
				id, true, err);
	if (r >= 0)
		r = add_objects(v,
				"SELECT digest FROM blobs WHERE digest IN ("
				"SELECT l.digest FROM manifest_layers l JOIN manifests m ON"
				" m.digest=l.manifest WHERE m.image=?1 UNION"
				" SELECT digest FROM manifests WHERE image=?1 UNION"
				" SELECT target FROM names WHERE image=?1 UNION SELECT ?1)",
				id, false, err);
	return r;
}

static int add_everything(struct image_verify *v, struct err *err)
{
	int r = add_objects(v, "SELECT diff_id FROM layers ORDER BY diff_id", NULL, true, err);

	return r < 0 ? r
		     : add_objects(v, "SELECT digest FROM blobs ORDER BY digest", NULL, false, err);
}

int image_verify(struct image_store *s, char *const *refs, image_verify_fn fn,
		 image_verify_done_fn done, void *arg, struct image_verify **ret, struct err *err)
{
	struct image_verify *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return err_set(err, -ENOMEM, "no memory");
	v->s = s;
	v->fn = fn;
	v->done = done;
	v->arg = arg;
	r = lease_new(s, &v->lease, err);
	if (r >= 0 && (!refs || !*refs))
		r = add_everything(v, err);
	for (; r >= 0 && refs && *refs; refs++)
		r = add_image(v, *refs, err);
	if (r >= 0 && ev_timer_add(s->loop, &v->step, 0, on_step, v) < 0)
		r = err_set(err, -ENOMEM, "no memory");
	if (r < 0) {
		verify_free(v);
		return r;
	}
	v->next = s->verifies;
	s->verifies = v;
	*ret = v;
	return 0;
}

void image_verify_cancel(struct image_verify *v)
{
	verify_free(v);
}

/* ---- noting ---- */

struct noting {
	struct image_store *s;
	struct ev_timer timer;
	struct checker *checker;
	char diff_id[DIGEST_LEN + 1];
	bool failed; /* no worker, no memory: not again before the next start */
};

static void on_quiet(struct ev_timer *t);

/* Without a timer it is done after the next layer, or start. */
static void note_after(struct noting *n, uint64_t ns)
{
	if (!n->checker && !n->failed)
		(void)!ev_timer_add(n->s->loop, &n->timer, ns, on_quiet, n);
}

static void on_noted(void *arg, int code, const char *digest, const struct err *err)
{
	struct noting *n = arg;

	checker_free(n->checker);
	n->checker = NULL;
	if (code == -EBADMSG)
		code = mark_damaged(n->s, n->diff_id, NULL);
	else if (code >= 0)
		code = note_content(n->s, n->diff_id, digest, NULL);
	n->failed = code < 0;
	note_after(n, 0);
}

static int unnoted(struct noting *n)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(n->s,
			   "SELECT diff_id FROM layers WHERE content='' AND NOT damaged LIMIT 1",
			   &st, NULL, NULL);

	if (r < 0 || sqlite3_step(st) != SQLITE_ROW)
		return -ENOENT;
	snprintf(n->diff_id, sizeof(n->diff_id), "%s", (const char *)sqlite3_column_text(st, 0));
	return 0;
}

static int note(struct noting *n, int fd)
{
	const struct checker_file file = { .is_layer = true, .fd = fd };

	return checker_new(&n->s->procs, &file, 1, true, on_noted, n, &n->checker, NULL);
}

static void on_quiet(struct ev_timer *t)
{
	struct noting *n = t->arg;
	cleanup_fd int fd = -1;

	if (n->s->pulls) {
		note_after(n, NOTE_AFTER_NS);
		return;
	}
	if (unnoted(n) < 0)
		return;
	n->failed = open_layer(n->s, n->diff_id, &fd, NULL) < 0 || note(n, fd) < 0;
}

void store_note_later(struct image_store *s)
{
	if (!s->noting) {
		s->noting = calloc(1, sizeof(*s->noting));
		if (!s->noting)
			return;
		s->noting->s = s;
	}
	note_after(s->noting, NOTE_AFTER_NS);
}

void verifies_close(struct image_store *s)
{
	while (s->verifies) {
		struct err err = { 0 };

		err_set(&err, -ECANCELED, "the image store is closing");
		verify_end(s->verifies, -ECANCELED, &err);
	}
	if (s->noting) {
		ev_timer_del(&s->noting->timer);
		checker_free(s->noting->checker);
		free(s->noting);
		s->noting = NULL;
	}
}
