#include "image/store/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/images.h"
#include "image/store/internal.h"

static char *path_of(const struct store *s, const char *diff_id)
{
	return str_fmt("%s/%s.ext4", s->layers_dir, diff_id + strlen("sha256:"));
}

struct row {
	bool damaged, known; /* known: it has facts */
	struct layer_facts facts;
};

/* 1 when there is one. */
static int find_row(struct store *s, const char *diff_id, struct row *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT damaged, implied, root FROM layers WHERE diff_id=?", &st, err,
			   diff_id, NULL);

	if (r < 0)
		return r;
	r = sqlite3_step(st);
	if (r != SQLITE_ROW && r != SQLITE_DONE)
		return db_error(s, err);
	*ret = (struct row){ 0 };
	if (r == SQLITE_DONE)
		return 0;
	ret->damaged = sqlite3_column_int(st, 0) != 0;
	ret->known = sqlite3_column_int64(st, 1) >= 0;
	ret->facts = (struct layer_facts){
		.implied = ret->known ? (uint32_t)sqlite3_column_int64(st, 1) : 0,
		.root_named = sqlite3_column_int(st, 2) > 0,
		.root_unusual = sqlite3_column_int(st, 2) > 1,
	};
	return 1;
}

int layers_has(struct store *s, const char *diff_id, bool upper, struct err *err)
{
	struct row row;
	int r = find_row(s, diff_id, &row, err);

	return r > 0 && (row.damaged || (upper && !row.known)) ? 0 : r;
}

int layers_inherit(struct store *s, const char *const *disks, size_t n, struct err *err)
{
	bool unusual = false; /* the root, so far */

	for (size_t k = 0; k < n; k++) {
		struct row row;
		int r = find_row(s, disks[k], &row, err);

		if (r < 0)
			return r;
		if (k && (row.facts.implied || (unusual && !row.facts.root_named)))
			return 1;
		unusual |= row.facts.root_unusual;
	}
	return 0;
}

static int add_row(struct store *s, const char *diff_id, const struct stat *st,
		   const struct layer_facts *f, bool known, struct err *err)
{
	const struct sql_value v[] = {
		sql_text(diff_id),
		sql_int((int64_t)st->st_blocks * 512),
		sql_int(time(NULL)),
		sql_int(f->implied),
		sql_int(f->root_unusual ? 2 : f->root_named),
	};
	/* In place of a damaged one, which would be taken for this one after a loss of power. */
	int r = known ? db_sync_dir_before(s, s->layers_dir, err) : 0;

	if (r < 0)
		return r;
	return db_write(s,
			"INSERT INTO layers(diff_id, bytes, pending, implied, root)"
			" VALUES(?, ?, ?, ?, ?) ON CONFLICT(diff_id) DO UPDATE SET"
			" bytes=excluded.bytes, content='', damaged=0, implied=excluded.implied,"
			" root=excluded.root",
			v, ARRAY_SIZE(v), err);
}

int layers_add(struct store *s, const char *diff_id, const char *tmp, const struct layer_facts *f,
	       struct err *err)
{
	cleanup_free char *path = path_of(s, diff_id);
	struct row row;
	struct stat st;
	int known, r;

	if (!path)
		return err_nomem(err);
	known = find_row(s, diff_id, &row, err);
	if (known < 0)
		return known;
	r = db_may_grow(s, err);
	if (r < 0)
		return r;
	if (stat(tmp, &st) < 0 || chmod(tmp, 0400) < 0)
		return err_errno(err, -errno, "%s", tmp);
	if (rename(tmp, path) < 0)
		return err_errno(err, -errno, "rename %s", tmp);
	s->layers_unsynced = true;
	r = db_begin(s, err);
	if (r == 0)
		r = db_end(s, add_row(s, diff_id, &st, f, known, err), err);
	if (r < 0)
		(void)unlink(path);
	return r;
}

int layers_open(struct store *s, const char *diff_id, int *ret_fd, struct err *err)
{
	cleanup_free char *path = path_of(s, diff_id);
	int fd;

	if (!path)
		return err_nomem(err);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_errno(err, -errno, "open it");
	*ret_fd = fd;
	return 0;
}

int layers_list(struct store *s, const char *id, char ***ret, struct err *err)
{
	return db_strings(s, ret, err,
			  id ? "SELECT diff_id FROM image_layers WHERE image=? ORDER BY pos"
			     : "SELECT diff_id FROM layers ORDER BY diff_id",
			  id, NULL);
}

int layers_paths(struct store *s, const char *id, char ***ret, struct err *err)
{
	cleanup_strv char **v = NULL;
	int r = images_exists(s, id, err);

	if (r <= 0)
		return r < 0 ? r : err_set(err, -ENOENT, "no image %s", id);
	r = layers_list(s, id, &v, err);
	if (r < 0)
		return r;
	for (char **d = v; *d; d++) {
		char *path = path_of(s, *d);

		if (!path)
			return err_nomem(err);
		free(*d);
		*d = path;
	}
	*ret = take_ptr(&v);
	return 0;
}

/* ---- baselines ---- */

/* The text in the first column of the only row. -ENOENT: there is no row. */
static int take_text(struct store *s, sqlite3_stmt *st, char ret[DIGEST_LEN + 1], struct err *err)
{
	int c = sqlite3_step(st);

	if (c == SQLITE_DONE)
		return err_set(err, -ENOENT, "no such layer");
	if (c != SQLITE_ROW)
		return db_error(s, err);
	snprintf(ret, DIGEST_LEN + 1, "%s", (const char *)sqlite3_column_text(st, 0));
	return 0;
}

int layers_baseline(struct store *s, const char *diff_id, char ret[DIGEST_LEN + 1], struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT content FROM layers WHERE diff_id=?", &st, err, diff_id,
			   NULL);

	if (r == 0)
		r = take_text(s, st, ret, err);
	if (r == -ENOENT) { /* removed meanwhile */
		*ret = '\0';
		return 0;
	}
	return r;
}

int layers_set_baseline(struct store *s, const char *diff_id, const char *baseline, struct err *err)
{
	return db_run(s, err, "UPDATE layers SET content=? WHERE diff_id=? AND content=''",
		      baseline, diff_id, NULL);
}

int layers_without_baseline(struct store *s, char ret_diff_id[DIGEST_LEN + 1], struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT diff_id FROM layers WHERE content='' AND NOT damaged LIMIT 1",
			   &st, err, NULL);

	return r < 0 ? r : take_text(s, st, ret_diff_id, err);
}

int layers_mark_damaged(struct store *s, const char *diff_id, struct err *err)
{
	return db_run(s, err, "UPDATE layers SET damaged=1 WHERE diff_id=?", diff_id, NULL);
}

/* ---- the store's own ---- */

/* A layer's file whose row did not get written, or whose removal was cut short. */
static int layers_on_name(struct store *s, const char *name, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", s->layers_dir, name);
	char diff_id[DIGEST_LEN + 1];
	struct row row;
	int r = 0;

	if (!path)
		return err_nomem(err);
	if (strlen(name) == 64 + 5 && str_ends(name, ".ext4")) {
		snprintf(diff_id, sizeof(diff_id), "sha256:%.64s", name);
		r = find_row(s, diff_id, &row, err);
	}
	return r == 0 ? remove_tree(path, err) : MIN_OF(r, 0);
}

int layers_remove_strays(struct store *s, struct err *err)
{
	return store_each_name(s, s->layers_dir, layers_on_name, err);
}

int layers_drop_rows(struct store *s, struct err *err)
{
	static const char *const sql[] = {
		("DELETE FROM holds WHERE image IN"
		 " (SELECT image FROM image_layers WHERE diff_id=?)"),
		"DELETE FROM images WHERE id IN (SELECT image FROM image_layers WHERE diff_id=?)",
		"DELETE FROM layers WHERE diff_id=?",
	};
	cleanup_strv char **all = NULL;
	int r = layers_list(s, NULL, &all, err);

	for (char **d = all; r == 0 && *d; d++) {
		cleanup_free char *path = digest_valid(*d) ? path_of(s, *d) : NULL;

		if (path && access(path, F_OK) == 0)
			continue;
		for (size_t k = 0; r == 0 && k < ARRAY_SIZE(sql); k++)
			r = db_run(s, err, sql[k], *d, NULL);
	}
	return r;
}

int layers_delete(struct store *s, const char *diff_id, struct err *err)
{
	cleanup_free char *path = path_of(s, diff_id);
	int r;

	if (!path)
		return err_nomem(err);
	r = db_run(s, err, "DELETE FROM layers WHERE diff_id=?", diff_id, NULL);
	if (r == 0)
		gc_discard(s, path);
	return r;
}
