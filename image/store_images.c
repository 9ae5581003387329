/* Images, their names, and who uses them. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/manifest.h"
#include "image/store.h"

#define MIN_PREFIX 4u
#define MAX_HOLDER 255u

/* ---- writing ---- */

static int add_rows(struct image_store *s, const struct image_commit *c, struct err *err)
{
	char digest_name[REFERENCE_MAX + 1], tag_name[REFERENCE_MAX + 1], pos[24];
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s,
			   "INSERT INTO images(id, config, created) VALUES(?1, ?2, ?3)"
			   " ON CONFLICT(id) DO UPDATE SET removed=0",
			   &st, err, c->id, NULL);

	if (r < 0)
		return r;
	if (sqlite3_bind_blob64(st, 2, c->config, c->config_len, SQLITE_STATIC) != SQLITE_OK ||
	    sqlite3_bind_int64(st, 3, now_real_ns()) != SQLITE_OK ||
	    sqlite3_step(st) != SQLITE_DONE)
		return db_error(s, err);
	for (size_t k = 0; c->diff_ids[k] && r >= 0; k++) {
		snprintf(pos, sizeof(pos), "%zu", k);
		r = db_run(s, err,
			   "INSERT OR REPLACE INTO image_layers(image, pos, diff_id)"
			   " VALUES(?, CAST(? AS INTEGER), ?)",
			   c->id, pos, c->diff_ids[k], NULL);
	}
	reference_with_digest(c->ref, c->digest, digest_name);
	if (r >= 0)
		r = db_run(s, err, "INSERT OR REPLACE INTO names(name, image) VALUES(?, ?)",
			   digest_name, c->id, NULL);
	if (r >= 0 && !*c->ref->digest) {
		reference_with_tag(c->ref, tag_name);
		r = db_run(s, err, "INSERT OR REPLACE INTO names(name, image) VALUES(?, ?)",
			   tag_name, c->id, NULL);
	}
	return r;
}

int store_add_image(struct image_store *s, const struct image_commit *c, struct err *err)
{
	int r = db_begin(s, err);

	return r < 0 ? r : db_end(s, add_rows(s, c, err), err);
}

/* ---- look-up ---- */

static bool is_hex(const char *s, size_t min, size_t max)
{
	size_t n = strspn(s, "0123456789abcdef");

	return !s[n] && n >= min && n <= max;
}

/* The id that `name` stands for in the names table; "" when there is none. */
static int find_name(struct image_store *s, const char *name, char id[DIGEST_LEN + 1],
		     struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s,
			   "SELECT image FROM names JOIN images ON id=image"
			   " WHERE name=? AND NOT removed",
			   &st, err, name, NULL);

	if (r < 0)
		return r;
	r = sqlite3_step(st);
	if (r == SQLITE_ROW)
		snprintf(id, DIGEST_LEN + 1, "%s", (const char *)sqlite3_column_text(st, 0));
	else
		*id = 0;
	return r == SQLITE_ROW || r == SQLITE_DONE ? 0 : db_error(s, err);
}

static int find_prefix(struct image_store *s, const char *hex, char id[DIGEST_LEN + 1],
		       struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_free char *low = str_fmt("sha256:%s", hex), *high = str_fmt("sha256:%sg", hex);
	int r;

	*id = 0;
	if (!low || !high)
		return err_set(err, -ENOMEM, "no memory");
	r = db_prepare(s, "SELECT id FROM images WHERE id>=? AND id<? AND NOT removed LIMIT 2", &st,
		       err, low, high, NULL);
	if (r < 0)
		return r;
	r = sqlite3_step(st);
	if (r == SQLITE_DONE)
		return 0;
	if (r != SQLITE_ROW)
		return db_error(s, err);
	snprintf(id, DIGEST_LEN + 1, "%s", (const char *)sqlite3_column_text(st, 0));
	if (sqlite3_step(st) == SQLITE_ROW)
		return err_set(err, -EINVAL, "several images have an id that begins with %s", hex);
	return 0;
}

/* -ENOENT when nothing has that name; -EINVAL when it cannot be a name of anything. */
static int resolve(struct image_store *s, const char *ref, char id[DIGEST_LEN + 1], struct err *err)
{
	const char *hex = str_starts(ref, "sha256:") ? ref + 7 : ref;
	char name[REFERENCE_MAX + 1];
	struct reference parsed;
	struct err perr = { 0 };
	int r, p;

	*id = 0;
	if (is_hex(hex, 64, 64)) {
		r = find_prefix(s, hex, id, err);
		return r < 0 || *id ? r : err_set(err, -ENOENT, "no image %s", ref);
	}
	p = hex == ref ? reference_parse(ref, &parsed, &perr) : -EINVAL;
	if (p >= 0) {
		reference_canonical(&parsed, name);
		r = find_name(s, name, id, err);
		if (r < 0 || *id)
			return r;
	}
	if (is_hex(hex, MIN_PREFIX, 63)) {
		r = find_prefix(s, hex, id, err);
		if (r < 0 || *id)
			return r;
	} else if (p < 0) {
		return err_set(err, p, "%s", perr.code ? err_text(&perr) : "bad image id");
	}
	return err_set(err, -ENOENT, "no image %s", ref);
}

static void user_of(struct image_info *i)
{
	size_t n = strcspn(i->config.user, ":");
	cleanup_free char *name = strndup(i->config.user, n);

	if (name && n && str_to_i64(name, 0, INT64_MAX, &i->uid) == 0)
		i->has_uid = true;
	i->username = i->has_uid || !name ? strdup("") : take_ptr(&name);
}

/* OCI image-spec, "Layer ChainID". */
static int chain_id(char *const *diff_ids, char **ret)
{
	char id[DIGEST_LEN + 1] = "", pair[2 * DIGEST_LEN + 2];

	for (size_t k = 0; diff_ids[k]; k++) {
		if (k == 0) {
			snprintf(id, sizeof(id), "%s", diff_ids[k]);
			continue;
		}
		snprintf(pair, sizeof(pair), "%s %s", id, diff_ids[k]);
		int r = digest_of(pair, strlen(pair), id);
		if (r < 0)
			return r;
	}
	*ret = strdup(id);
	return *ret ? 0 : -ENOMEM;
}

static int load_names(struct image_store *s, struct image_info *i, struct err *err)
{
	cleanup_stmt sqlite3_stmt *tags = NULL, *digests = NULL;
	int r = db_prepare(
		s, "SELECT name FROM names WHERE image=? AND instr(name, '@')=0 ORDER BY name",
		&tags, err, i->id, NULL);

	if (r >= 0)
		r = db_column(s, tags, &i->repo_tags, err);
	if (r >= 0)
		r = db_prepare(
			s,
			"SELECT name FROM names WHERE image=? AND instr(name, '@')>0 ORDER BY name",
			&digests, err, i->id, NULL);
	return r < 0 ? r : db_column(s, digests, &i->repo_digests, err);
}

static int fill_info(struct image_store *s, const char *id, struct image_info *i, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	const void *config;
	size_t len;
	int r = db_prepare(
		s,
		"SELECT config, created, pinned, (SELECT COALESCE(SUM(bytes), 0) FROM layers"
		" WHERE diff_id IN (SELECT diff_id FROM image_layers WHERE image=id))"
		" FROM images WHERE id=?",
		&st, err, id, NULL);

	if (r < 0)
		return r;
	if (sqlite3_step(st) != SQLITE_ROW)
		return db_error(s, err);
	config = sqlite3_column_blob(st, 0);
	len = (size_t)sqlite3_column_bytes(st, 0);
	i->created_ns = sqlite3_column_int64(st, 1);
	i->pinned = sqlite3_column_int(st, 2) != 0;
	i->size = (uint64_t)sqlite3_column_int64(st, 3) + len;
	r = image_config_parse(config, len, &i->config, err);
	if (r < 0)
		return r;
	i->id = strdup(id);
	i->config_json = strndup(config, len);
	user_of(i);
	if (!i->id || !i->config_json || !i->username ||
	    chain_id(i->config.diff_ids, &i->chain_id) < 0)
		return err_set(err, -ENOMEM, "no memory");
	return load_names(s, i, err);
}

static int load_info(struct image_store *s, const char *id, struct image_info **ret,
		     struct err *err)
{
	cleanup_image_info struct image_info *i = calloc(1, sizeof(*i));
	int r;

	if (!i)
		return err_set(err, -ENOMEM, "no memory");
	r = fill_info(s, id, i, err);
	if (r < 0)
		return err_wrap(err, r, "image %s", id);
	*ret = take_ptr(&i);
	return 0;
}

int image_get(struct image_store *s, const char *ref, struct image_info **ret, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = resolve(s, ref ? ref : "", id, err);

	return r < 0 ? r : load_info(s, id, ret, err);
}

int image_matches(const struct image_info *i, const char *ref)
{
	const char *hex = str_starts(ref, "sha256:") ? ref + 7 : ref;
	char name[REFERENCE_MAX + 1];
	struct reference parsed;

	if (is_hex(hex, MIN_PREFIX, 64) && str_starts(i->id + 7, hex))
		return 1;
	if (hex != ref || reference_parse(ref, &parsed, NULL) < 0)
		return is_hex(hex, MIN_PREFIX, 64) ? 0 : -EINVAL;
	reference_canonical(&parsed, name);
	for (char *const *v = *parsed.digest ? i->repo_digests : i->repo_tags; *v; v++)
		if (str_eq(*v, name))
			return 1;
	return 0;
}

static int list_all(struct image_store *s, char ***ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT id FROM images WHERE NOT removed ORDER BY id", &st, err,
			   NULL);

	return r < 0 ? r : db_column(s, st, ret, err);
}

int image_list(struct image_store *s, const char *ref, struct image_info ***ret, size_t *ret_n,
	       struct err *err)
{
	cleanup_strv char **ids = NULL;
	struct image_info **list;
	char id[DIGEST_LEN + 1];
	size_t n = 0;
	int r;

	if (str_empty(ref)) {
		r = list_all(s, &ids, err);
	} else {
		r = resolve(s, ref, id, err);
		ids = calloc(2, sizeof(*ids));
		if (!ids || (r >= 0 && !(ids[0] = strdup(id))))
			return err_set(err, -ENOMEM, "no memory");
		if (r == -ENOENT)
			r = 0;
	}
	if (r < 0)
		return r;
	list = calloc(strv_len(ids) + 1, sizeof(*list));
	if (!list)
		return err_set(err, -ENOMEM, "no memory");
	for (; ids[n]; n++) {
		r = load_info(s, ids[n], &list[n], err);
		if (r < 0) {
			image_list_free(list, n);
			return r;
		}
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

void image_list_free(struct image_info **list, size_t n)
{
	for (size_t k = 0; list && k < n; k++)
		image_info_free(list[k]);
	free(list);
}

void image_info_free(struct image_info *i)
{
	if (!i)
		return;
	free(i->id);
	strv_free(i->repo_tags);
	strv_free(i->repo_digests);
	free(i->username);
	image_config_fini(&i->config);
	free(i->config_json);
	free(i->chain_id);
	free(i);
}

void image_info_freep(struct image_info **i)
{
	image_info_free(*i);
}

int image_normalize(const char *ref, char **ret, struct err *err)
{
	char name[REFERENCE_MAX + 1];
	struct reference parsed;
	int r = reference_parse(ref, &parsed, err);

	if (r < 0)
		return r;
	reference_canonical(&parsed, name);
	*ret = strdup(name);
	return *ret ? 0 : err_set(err, -ENOMEM, "no memory");
}

/* ---- removal and holds ---- */

static int remove_rows(struct image_store *s, const char *id, struct err *err)
{
	int r = db_run(s, err, "DELETE FROM names WHERE image=?", id, NULL);

	if (r >= 0)
		r = db_run(s, err, "UPDATE images SET removed=1, pinned=0 WHERE id=?", id, NULL);
	if (r >= 0)
		r = db_run(s, err,
			   "DELETE FROM images WHERE removed AND id=?"
			   " AND id NOT IN (SELECT image FROM holds)",
			   id, NULL);
	return r;
}

int image_remove(struct image_store *s, const char *ref, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = resolve(s, ref ? ref : "", id, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	r = db_begin(s, err);
	if (r >= 0)
		r = db_end(s, remove_rows(s, id, err), err);
	return r < 0 ? r : store_collect(s, err);
}

int image_pin(struct image_store *s, const char *ref, bool pinned, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = resolve(s, ref ? ref : "", id, err);

	return r < 0 ? r
		     : db_run(s, err, "UPDATE images SET pinned=CAST(? AS INTEGER) WHERE id=?",
			      pinned ? "1" : "0", id, NULL);
}

/* 1 when there is such an image, also one that only its holders still see. */
static int exists(struct image_store *s, const char *id, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT 1 FROM images WHERE id=?", &st, err, id, NULL);

	if (r < 0)
		return r;
	r = sqlite3_step(st);
	return r == SQLITE_ROW ? 1 : r == SQLITE_DONE ? 0 : db_error(s, err);
}

int image_hold(struct image_store *s, const char *id, const char *holder, struct err *err)
{
	int r;

	if (str_empty(holder) || strlen(holder) > MAX_HOLDER)
		return err_set(err, -EINVAL, "bad holder of an image");
	r = exists(s, id, err);
	if (r <= 0)
		return r < 0 ? r : err_set(err, -ENOENT, "no image %s", id);
	return db_run(s, err, "INSERT OR REPLACE INTO holds(holder, image) VALUES(?, ?)", holder,
		      id, NULL);
}

int image_release(struct image_store *s, const char *holder, struct err *err)
{
	int r = db_begin(s, err);

	if (r < 0)
		return r;
	r = db_run(s, err, "DELETE FROM holds WHERE holder=?", holder, NULL);
	if (r >= 0)
		r = db_run(s, err,
			   "DELETE FROM images WHERE removed"
			   " AND id NOT IN (SELECT image FROM holds)",
			   NULL);
	r = db_end(s, r, err);
	return r < 0 ? r : store_collect(s, err);
}

int image_holders(struct image_store *s, char ***ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT holder FROM holds ORDER BY holder", &st, err, NULL);

	return r < 0 ? r : db_column(s, st, ret, err);
}

int image_layers(struct image_store *s, const char *id, char ***ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_strv char **v = NULL;
	int r = exists(s, id, err);

	if (r <= 0)
		return r < 0 ? r : err_set(err, -ENOENT, "no image %s", id);
	r = db_prepare(s, "SELECT diff_id FROM image_layers WHERE image=? ORDER BY pos", &st, err,
		       id, NULL);
	if (r >= 0)
		r = db_column(s, st, &v, err);
	if (r < 0)
		return r;
	for (char **d = v; *d; d++) {
		char *path = store_layer_path(s, *d);

		if (!path)
			return err_set(err, -ENOMEM, "no memory");
		free(*d);
		*d = path;
	}
	*ret = take_ptr(&v);
	return 0;
}

/* ---- disk use ---- */

static void add_file(const char *dir, const char *name, struct image_fs_usage *u)
{
	cleanup_free char *path = str_fmt("%s/%s", dir, name);
	struct stat st;

	if (path && stat(path, &st) == 0) {
		u->used_bytes += (uint64_t)st.st_blocks * 512;
		u->inodes_used++;
	}
}

int image_fs_info(struct image_store *s, struct image_fs_usage *ret, struct err *err)
{
	static const char *const files[] = {
		"",	  "images.db",	   "images.db-wal", "images.db-shm",
		"layers", "layers/sha256", "tmp",	    "lock"
	};
	struct image_fs_usage u = { .mountpoint = s->dir, .timestamp_ns = now_real_ns() };
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT COALESCE(SUM(bytes), 0), COUNT(*) FROM layers", &st, err,
			   NULL);

	if (r < 0)
		return r;
	if (sqlite3_step(st) != SQLITE_ROW)
		return db_error(s, err);
	u.used_bytes = (uint64_t)sqlite3_column_int64(st, 0);
	u.inodes_used = (uint64_t)sqlite3_column_int64(st, 1);
	for (size_t k = 0; k < ARRAY_SIZE(files); k++)
		add_file(s->dir, files[k], &u);
	add_file("", s->scratch, &u);
	*ret = u;
	return 0;
}
