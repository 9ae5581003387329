#include "image/store/images.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/image.h"
#include "image/manifest.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/internal.h"
#include "image/store/layers.h"

#define MIN_PREFIX 4u

/* ---- writing ---- */

static int add_layer_rows(struct store *s, const struct image_commit *c, struct err *err)
{
	char pos[24];
	char *const *disks = c->disks ? c->disks : c->diff_ids;
	int r = db_run(s, err, "DELETE FROM image_layers WHERE image=?", c->id, NULL);

	for (size_t k = 0; r == 0 && disks[k]; k++) {
		snprintf(pos, sizeof(pos), "%zu", k);
		r = db_run(s, err,
			   "INSERT INTO image_layers(image, pos, diff_id)"
			   " VALUES(?, CAST(? AS INTEGER), ?)",
			   c->id, pos, disks[k], NULL);
	}
	return r;
}

static int add_manifest_rows(struct store *s, const struct image_commit *c, struct err *err)
{
	const struct manifest *m = c->manifest;
	char pos[24], size[24];
	int r;

	if (!m)
		return 0;
	snprintf(size, sizeof(size), "%zu", c->manifest_size);
	r = db_run(s, err,
		   "INSERT OR REPLACE INTO manifests(digest, image, media_type, size)"
		   " VALUES(?, ?, ?, CAST(? AS INTEGER))",
		   c->manifest_digest, c->id, m->media_type, size, NULL);
	for (size_t k = 0; r == 0 && k < m->n_layers; k++) {
		snprintf(pos, sizeof(pos), "%zu", k);
		snprintf(size, sizeof(size), "%llu", (unsigned long long)m->layers[k].size);
		r = db_run(s, err,
			   "INSERT OR REPLACE INTO manifest_layers(manifest, pos, digest, size,"
			   " diff_id) VALUES(?, CAST(? AS INTEGER), ?, CAST(? AS INTEGER), ?)",
			   c->manifest_digest, pos, m->layers[k].digest, size, c->diff_ids[k],
			   NULL);
	}
	return r;
}

static int add_name(struct store *s, const struct image_commit *c, const char *name,
		    struct err *err)
{
	return db_run(s, err,
		      "INSERT OR REPLACE INTO names(name, image, target, manifest)"
		      " VALUES(?, ?, ?, ?)",
		      name, c->id, c->digest, c->manifest ? c->manifest_digest : "", NULL);
}

/* What it is made of is not "left by a broken pull" any more. */
static int clear_pending(struct store *s, const struct image_commit *c, struct err *err)
{
	int r = db_run(s, err,
		       "UPDATE layers SET pending=0 WHERE pending AND diff_id IN"
		       " (SELECT diff_id FROM image_layers WHERE image=?)",
		       c->id, NULL);

	if (r < 0 || !c->manifest)
		return r;
	return db_run(s, err,
		      "UPDATE blobs SET pending=0 WHERE pending AND (digest IN (?1, ?2, ?3)"
		      " OR digest IN (SELECT digest FROM manifest_layers WHERE manifest=?2))",
		      c->id, c->manifest_digest, c->digest ? c->digest : "", NULL);
}

static int add_rows(struct store *s, const struct image_commit *c, struct err *err)
{
	const struct sql_value image[] = { sql_text(c->id), sql_blob(c->config, c->config_len),
					   sql_int(now_real_ns()) };
	char name[REFERENCE_MAX + 1];
	int r = db_write(s,
			 "INSERT INTO images(id, config, created) VALUES(?1, ?2, ?3)"
			 " ON CONFLICT(id) DO UPDATE SET removed=0",
			 image, ARRAY_SIZE(image), err);

	if (r == 0)
		r = add_layer_rows(s, c, err);
	if (r == 0)
		r = add_manifest_rows(s, c, err);
	if (r == 0 && c->ref) {
		reference_with_digest(c->ref, c->digest, name);
		r = add_name(s, c, name, err);
	}
	if (r == 0 && c->ref && !*c->ref->digest) {
		reference_with_tag(c->ref, name);
		r = add_name(s, c, name, err);
	}
	for (char *const *n = c->names; r == 0 && n && *n; n++)
		r = add_name(s, c, *n, err);
	return r < 0 ? r : clear_pending(s, c, err);
}

int images_add(struct store *s, const struct image_commit *c, struct err *err)
{
	int r = db_may_grow(s, err);

	if (r == 0)
		r = db_begin(s, err);
	return r == 0 ? db_end(s, add_rows(s, c, err), err) : r;
}

/* ---- look-up ---- */

static bool is_hex(const char *s, size_t min, size_t max)
{
	size_t n = strspn(s, "0123456789abcdef");

	return !s[n] && n >= min && n <= max;
}

static int take_id(struct store *s, sqlite3_stmt *st, char id[DIGEST_LEN + 1], struct err *err)
{
	int r = sqlite3_step(st);

	if (r == SQLITE_ROW)
		snprintf(id, DIGEST_LEN + 1, "%s", (const char *)sqlite3_column_text(st, 0));
	else
		*id = 0;
	return r == SQLITE_ROW || r == SQLITE_DONE ? 0 : db_error(s, err);
}

/* The id that `name` stands for in the names table; "" when there is none. */
static int find_name(struct store *s, const char *name, char id[DIGEST_LEN + 1], struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s,
			   "SELECT image FROM names JOIN images ON id=image"
			   " WHERE name=? AND NOT removed",
			   &st, err, name, NULL);

	return r < 0 ? r : take_id(s, st, id, err);
}

/*
 * name@digest without a row of its own: any name of that repository that stands for the digest, as
 * index or as the manifest for this machine. So a tag that was given here, or came with an archive,
 * is found by digest as one that was pulled.
 */
static int find_by_target(struct store *s, const struct reference *ref, char id[DIGEST_LEN + 1],
			  struct err *err)
{
	char name[REFERENCE_MAX + 1];
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r;

	reference_name(ref, name);
	/* "NAME:TAG" lies between "NAME:" and "NAME;", "NAME@DIGEST" between "NAME@" and "NAMEA" */
	r = db_prepare(s,
		       "SELECT image FROM names JOIN images ON id=image WHERE NOT removed"
		       " AND ((name>?1||':' AND name<?1||';') OR (name>?1||'@' AND name<?1||'A'))"
		       " AND (target=?2 OR manifest=?2) LIMIT 1",
		       &st, err, name, ref->digest, NULL);
	return r < 0 ? r : take_id(s, st, id, err);
}

static int find_prefix(struct store *s, const char *hex, char id[DIGEST_LEN + 1], struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	cleanup_free char *low = str_fmt("sha256:%s", hex), *high = str_fmt("sha256:%sg", hex);
	int r;

	*id = 0;
	if (!low || !high)
		return err_nomem(err);
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

int images_resolve(struct store *s, const char *ref, char id[DIGEST_LEN + 1],
		   char ret_name[REFERENCE_MAX + 1], struct err *err)
{
	const char *hex = str_starts(ref, "sha256:") ? ref + 7 : ref;
	char name[REFERENCE_MAX + 1];
	struct reference parsed;
	struct err perr = { 0 };
	int r, p;

	*id = 0;
	if (ret_name)
		*ret_name = 0;
	if (is_hex(hex, 64, 64)) {
		r = find_prefix(s, hex, id, err);
		return r < 0 || *id ? r : err_set(err, -ENOENT, "no image %s", ref);
	}
	p = hex == ref ? reference_parse(ref, &parsed, &perr) : -EINVAL;
	if (p == 0) {
		reference_canonical(&parsed, name);
		r = find_name(s, name, id, err);
		if (r == 0 && *id && ret_name)
			memcpy(ret_name, name, sizeof(name));
		if (r == 0 && !*id && *parsed.digest)
			r = find_by_target(s, &parsed, id, err);
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
		int r;

		if (k == 0) {
			snprintf(id, sizeof(id), "%s", diff_ids[k]);
			continue;
		}
		snprintf(pair, sizeof(pair), "%s %s", id, diff_ids[k]);
		r = digest_of(pair, strlen(pair), id);
		if (r < 0)
			return r;
	}
	*ret = strdup(id);
	return *ret ? 0 : -ENOMEM;
}

static int load_names(struct store *s, struct image_info *i, struct err *err)
{
	int r = db_strings(s, &i->repo_tags, err,
			   "SELECT name FROM names WHERE image=? AND instr(name, '@')=0"
			   " ORDER BY name",
			   i->id, NULL);

	if (r < 0)
		return r;
	/* rtrim: a tag without what follows its last colon */
	return db_strings(s, &i->repo_digests, err,
			  "SELECT name FROM names WHERE image=?1 AND instr(name, '@')>0 UNION"
			  " SELECT rtrim(rtrim(name, replace(name, ':', '')), ':') || '@' ||"
			  " CASE target WHEN '' THEN manifest ELSE target END FROM names"
			  " WHERE image=?1 AND instr(name, '@')=0"
			  " AND (target<>'' OR manifest<>'') ORDER BY 1",
			  i->id, NULL);
}

static bool is_pinned(const struct store *s, char *const *names)
{
	for (char *const *n = names; *n; n++)
		for (char *const *p = s->pinned; *p; p++)
			if (str_eq(*n, *p))
				return true;
	return false;
}

static int fill_info(struct store *s, const char *id, struct image_info *i, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	const void *config;
	size_t len;
	int r = db_prepare(
		s,
		"SELECT config, created, pinned, (SELECT COALESCE(SUM(bytes), 0) FROM layers"
		" WHERE diff_id IN (SELECT diff_id FROM image_layers WHERE image=id)),"
		" (SELECT COUNT(*) FROM holds WHERE image=id),"
		" EXISTS (SELECT 1 FROM image_layers JOIN layers USING(diff_id)"
		"  WHERE image=id AND damaged)"
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
	i->holders = (uint32_t)sqlite3_column_int(st, 4);
	i->damaged = sqlite3_column_int(st, 5) != 0;
	r = image_config_parse(config, len, &i->config, err);
	if (r < 0)
		return r;
	i->id = strdup(id);
	i->config_json = strndup(config, len);
	user_of(i);
	if (!i->id || !i->config_json || !i->username ||
	    chain_id(i->config.diff_ids, &i->chain_id) < 0)
		return err_nomem(err);
	r = load_names(s, i, err);
	if (r == 0)
		i->pinned |= is_pinned(s, i->repo_tags) || is_pinned(s, i->repo_digests);
	return r;
}

static int load_info(struct store *s, const char *id, struct image_info **ret, struct err *err)
{
	cleanup_image_info struct image_info *i = calloc(1, sizeof(*i));
	int r;

	if (!i)
		return err_nomem(err);
	r = fill_info(s, id, i, err);
	if (r < 0)
		return err_wrap(err, r, "image %s", id);
	*ret = take_ptr(&i);
	return 0;
}

int images_get(struct store *s, const char *ref, struct image_info **ret, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = images_resolve(s, ref ? ref : "", id, NULL, err);

	return r < 0 ? r : load_info(s, id, ret, err);
}

int images_list(struct store *s, const char *ref, struct image_info ***ret, size_t *ret_n,
		struct err *err)
{
	cleanup_strv char **ids = NULL;
	struct image_info **list;
	char id[DIGEST_LEN + 1];
	size_t n = 0;
	int r;

	if (str_empty(ref)) {
		r = db_strings(s, &ids, err, "SELECT id FROM images WHERE NOT removed ORDER BY id",
			       NULL);
	} else {
		r = images_resolve(s, ref, id, NULL, err);
		ids = calloc(2, sizeof(*ids));
		if (!ids || (r == 0 && !(ids[0] = strdup(id))))
			return err_nomem(err);
		if (r == -ENOENT)
			r = 0;
	}
	if (r < 0)
		return r;
	list = calloc(strv_len(ids) + 1, sizeof(*list));
	if (!list)
		return err_nomem(err);
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

/* ---- removal, pins ---- */

int images_exists(struct store *s, const char *id, struct err *err)
{
	return db_exists(s, err, "SELECT 1 FROM images WHERE id=?", id, NULL);
}

int images_remove_rows(struct store *s, const char *id, struct err *err)
{
	int r = db_run(s, err, "DELETE FROM names WHERE image=?", id, NULL);

	if (r == 0)
		r = db_run(s, err, "DELETE FROM manifests WHERE image=?", id, NULL);
	if (r == 0)
		r = db_run(s, err, "UPDATE images SET removed=1, pinned=0 WHERE id=?", id, NULL);
	if (r == 0)
		r = db_run(s, err,
			   "DELETE FROM images WHERE removed AND id=?"
			   " AND id NOT IN (SELECT image FROM holds)",
			   id, NULL);
	return r;
}

int images_remove(struct store *s, const char *ref, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = images_resolve(s, ref ? ref : "", id, NULL, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	r = db_begin(s, err);
	if (r == 0)
		r = db_end(s, images_remove_rows(s, id, err), err);
	return r < 0 ? r : gc_collect(s, err);
}

int images_pin(struct store *s, const char *ref, bool pinned, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = images_resolve(s, ref ? ref : "", id, NULL, err);

	return r < 0 ? r
		     : db_run(s, err, "UPDATE images SET pinned=CAST(? AS INTEGER) WHERE id=?",
			      pinned ? "1" : "0", id, NULL);
}

/* ---- what uses what ---- */

int images_with_layer(struct store *s, const char *diff_id, char ***ret, struct err *err)
{
	return db_strings(s, ret, err,
			  "SELECT DISTINCT image FROM image_layers WHERE diff_id=? ORDER BY image",
			  diff_id, NULL);
}

int images_with_blob(struct store *s, const char *digest, char ***ret, struct err *err)
{
	return db_strings(s, ret, err,
			  "SELECT image FROM manifest_layers l JOIN manifests m ON"
			  " m.digest=l.manifest WHERE l.digest=?1 UNION"
			  " SELECT image FROM manifests WHERE digest=?1 UNION"
			  " SELECT image FROM names WHERE target=?1 UNION"
			  " SELECT id FROM images WHERE id=?1",
			  digest, NULL);
}
