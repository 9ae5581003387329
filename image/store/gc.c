#include "image/store/gc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/loop.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/store/blobs.h"
#include "image/store/db.h"
#include "image/store/disk.h"
#include "image/store/internal.h"
#include "image/store/layers.h"
#include "image/store/space.h"

struct lease {
	struct store *s;
	struct lease *next;
	char (*digests)[DIGEST_LEN + 1];
	size_t n, cap;
};

/* ---- leases ---- */

int lease_new(struct store *s, struct lease **ret, struct err *err)
{
	struct lease *l = calloc(1, sizeof(*l));

	if (!l)
		return err_nomem(err);
	l->s = s;
	l->next = s->leases;
	s->leases = l;
	*ret = l;
	return 0;
}

int lease_add(struct lease *l, const char *digest, struct err *err)
{
	if (!digest_valid(digest))
		return err_set(err, -EINVAL, "bad digest \"%.100s\"", digest ? digest : "");
	for (size_t k = 0; k < l->n; k++)
		if (str_eq(l->digests[k], digest))
			return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 8;
		void *more = realloc(l->digests, cap * sizeof(*l->digests));

		if (!more)
			return err_nomem(err);
		l->digests = more;
		l->cap = cap;
	}
	memcpy(l->digests[l->n++], digest, DIGEST_LEN + 1);
	return 0;
}

bool lease_covers(const struct store *s, const char *digest)
{
	for (const struct lease *l = s->leases; l; l = l->next)
		for (size_t k = 0; k < l->n; k++)
			if (str_eq(l->digests[k], digest))
				return true;
	return false;
}

static void forget(struct store *s, const char *digest)
{
	/* What fails here goes when it is old enough. */
	ingest_forget(s, digest);
	(void)!db_run(s, NULL, "UPDATE layers SET pending=0 WHERE pending AND diff_id=?", digest,
		      NULL);
	(void)!db_run(s, NULL, "UPDATE blobs SET pending=0 WHERE pending AND digest=?", digest,
		      NULL);
}

void lease_end(struct lease *l, bool forget_it)
{
	struct store *s;
	struct lease **at;

	if (!l)
		return;
	s = l->s;
	at = &s->leases;
	while (*at && *at != l)
		at = &(*at)->next;
	check(*at == l);
	*at = l->next;
	for (size_t k = 0; forget_it && k < l->n; k++)
		forget(s, l->digests[k]);
	free(l->digests);
	free(l);
	/* What cannot be deleted now is deleted by the next collection. */
	if (s->room_wanted)
		gc_make_room(s);
	else
		(void)!gc_collect(s, NULL);
}

/* ---- collection ---- */

/*
 * A file leaves its place at once and is removed by the disk thread: one that comes to the same
 * place meanwhile is not touched.
 */
void gc_discard(struct store *s, const char *path)
{
	cleanup_free char *tmp = store_tmp_path(s, "-gone");

	if (!tmp || !s->disk || rename(path, tmp) < 0)
		(void)unlink(path);
	else
		disk_remove(s->disk, tmp);
}

static int64_t pending_limit(void)
{
	return (int64_t)time(NULL) - GC_PENDING_S;
}

/* Runs fn for every digest that the query (with one limit of time in it) gives and no lease has. */
static int sweep(struct store *s, const char *sql,
		 int (*fn)(struct store *, const char *, struct err *), struct err *err)
{
	cleanup_strv char **all = NULL;
	char limit[24];
	int r;

	snprintf(limit, sizeof(limit), "%lld", (long long)pending_limit());
	r = db_strings(s, &all, err, sql, limit, NULL);
	for (char **d = all; r == 0 && *d; d++)
		if (!lease_covers(s, *d))
			r = fn(s, *d, err);
	return r;
}

int gc_collect(struct store *s, struct err *err)
{
	static const char unused[] =
		"SELECT digest FROM unused_blobs WHERE pending < CAST(? AS INTEGER)";
	static const char not_in_layers[] =
		"SELECT digest FROM unused_blobs b WHERE pending < CAST(? AS INTEGER) AND"
		" NOT EXISTS (SELECT 1 FROM manifest_layers m WHERE m.digest=b.digest)";
	int r = sweep(s,
		      "SELECT diff_id FROM layers l WHERE pending < CAST(? AS INTEGER) AND"
		      " NOT EXISTS (SELECT 1 FROM image_layers i WHERE i.diff_id=l.diff_id)",
		      layers_delete, err);

	if (r == 0)
		r = ingest_expire(s, err);
	return r < 0 ? r : sweep(s, s->drop_blobs ? unused : not_in_layers, blob_delete, err);
}

/* ---- making room ---- */

static int try_make_room(struct store *s)
{
	int r = ingest_drop_unowned(s, NULL);

	if (r < 0)
		return r;
	ingest_forget(s, NULL);
	r = db_run(s, NULL, "UPDATE layers SET pending=0 WHERE pending", NULL);
	if (r == 0)
		r = db_run(s, NULL, "UPDATE blobs SET pending=0 WHERE pending", NULL);
	return r < 0 ? r : gc_collect(s, NULL);
}

/* What dying processes and the disk thread still have is free in a moment: if this fails, the next
 * lease that ends, and the end of the store, try again. */
void gc_make_room(struct store *s)
{
	s->room_wanted = try_make_room(s) < 0;
}

int gc_wait_room(struct store *s, uint64_t need, uint64_t patience_ns, uint64_t *until_ns,
		 struct err *err)
{
	uint64_t now = now_mono_ns();
	int r = space_check(s, need, err);

	if (r == 0) {
		*until_ns = 0;
		return 1;
	}
	if (!*until_ns) {
		*until_ns = now + patience_ns;
		gc_make_room(s);
	}
	return now < *until_ns ? 0 : r;
}

void gc_make_room_at_end(struct store *s)
{
	const struct timespec pause = { 0, 20 * 1000 * 1000 };

	for (int k = 0; s->room_wanted && k < 20; k++) {
		gc_make_room(s);
		if (s->room_wanted) /* children of children die on their own time */
			(void)nanosleep(&pause, NULL);
	}
}
