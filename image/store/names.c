/* Names of images that come and go, removal, and who uses an image. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "image/store/store.h"

#define MAX_HOLDER 255u

/* ---- removal ---- */

int store_remove_image(struct image_store *s, const char *id, struct err *err)
{
	int r = db_run(s, err, "DELETE FROM names WHERE image=?", id, NULL);

	if (r >= 0)
		r = db_run(s, err, "DELETE FROM manifests WHERE image=?", id, NULL);
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
	int r = store_resolve(s, ref ? ref : "", id, NULL, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	r = db_begin(s, err);
	if (r >= 0)
		r = db_end(s, store_remove_image(s, id, err), err);
	return r < 0 ? r : store_collect(s, err);
}

/* ---- untag ---- */

void image_untagged_fini(struct image_untagged *u)
{
	strv_free(u->names);
	free(u->deleted);
	*u = (struct image_untagged){ 0 };
}

static bool is_digest_name(const char *name)
{
	return strchr(name, '@') != NULL;
}

/* Length of "host/path" in a name in full. */
static size_t repository_len(const char *name)
{
	const char *slash = strrchr(name, '/');

	if (is_digest_name(name))
		return strcspn(name, "@");
	return (size_t)(slash ? slash - name : 0) + strcspn(slash ? slash : name, ":");
}

static bool same_repository(const char *a, const char *b)
{
	size_t n = repository_len(a);

	return n == repository_len(b) && memcmp(a, b, n) == 0;
}

/* In how many repositories, and how many tags other than `name` (in its repository, if so asked).
 */
static size_t other_tags(char *const *names, const char *name, bool in_repository)
{
	size_t n = 0;

	for (; *names; names++)
		n += !is_digest_name(*names) && !str_eq(*names, name) &&
		     (!in_repository || same_repository(*names, name));
	return n;
}

static bool many_repositories(char *const *names)
{
	for (char *const *n = names; *n; n++)
		if (!same_repository(*n, names[0]))
			return true;
	return false;
}

/* Does the name `n` go when the user wants `name` ("" = the image) to go? */
static bool goes(const char *n, const char *name, bool whole, bool last_of_repository)
{
	return whole || str_eq(n, name) ||
	       (last_of_repository && is_digest_name(n) && same_repository(n, name));
}

/* `u` owns what it got also when this fails. */
static int untag_rows(struct image_store *s, const char *id, const char *name, bool whole,
		      char *const *names, struct image_untagged *u, struct err *err)
{
	bool last = *name && !is_digest_name(name) && other_tags(names, name, true) == 0;
	size_t n = 0;
	int r = 0;

	u->names = calloc(strv_len(names) + 1, sizeof(*u->names));
	if (!u->names)
		return err_set(err, -ENOMEM, "no memory");
	for (; *names && r >= 0; names++) {
		if (!goes(*names, name, whole, last))
			continue;
		u->names[n] = strdup(*names);
		r = u->names[n++] ? db_run(s, err, "DELETE FROM names WHERE name=?", *names, NULL)
				  : err_set(err, -ENOMEM, "no memory");
	}
	if (r >= 0 && whole) {
		u->deleted = strdup(id);
		r = u->deleted ? store_remove_image(s, id, err)
			       : err_set(err, -ENOMEM, "no memory");
	}
	return r;
}

static int may_go(const struct image_info *i, const char *name, char *const *names, struct err *err)
{
	if (i->holders)
		return err_set(err, -EBUSY, "image %s is used by %u container%s", i->id, i->holders,
			       i->holders == 1 ? "" : "s");
	if (!*name && many_repositories(names))
		return err_set(err, -EBUSY, "image %s has names in several repositories", i->id);
	return 0;
}

static int names_of(struct image_store *s, const char *id, char ***ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "SELECT name FROM names WHERE image=? ORDER BY name", &st, err, id,
			   NULL);

	return r < 0 ? r : db_column(s, st, ret, err);
}

int image_untag(struct image_store *s, const char *ref, bool force, struct image_untagged *ret,
		struct err *err)
{
	char id[DIGEST_LEN + 1], name[REFERENCE_MAX + 1];
	cleanup_image_info struct image_info *i = NULL;
	struct image_untagged u = { 0 };
	cleanup_strv char **names = NULL;
	bool whole;
	int r = store_resolve(s, ref ? ref : "", id, name, err);

	if (r >= 0)
		r = image_get(s, id, &i, err);
	if (r >= 0)
		r = names_of(s, id, &names, err);
	if (r < 0)
		return r;
	whole = !*name ||
		(is_digest_name(name) ? strv_len(names) == 1 : other_tags(names, name, false) == 0);
	if (whole && !force)
		r = may_go(i, name, names, err);
	if (r >= 0)
		r = db_begin(s, err);
	if (r < 0)
		return r;
	r = db_end(s, untag_rows(s, id, name, whole, names, &u, err), err);
	if (r >= 0)
		r = store_collect(s, err);
	if (r < 0) {
		image_untagged_fini(&u);
		return r;
	}
	*ret = u;
	return 0;
}

/* ---- tag, pin ---- */

/* The manifest and what it came with, of any name of the image; of a name given, that name's. */
static int copy_name(struct image_store *s, const char *id, const char *from, const char *to,
		     struct err *err)
{
	int r = db_run(s, err,
		       "INSERT OR REPLACE INTO names(name, image, target, manifest) SELECT ?3, ?1,"
		       " target, manifest FROM names WHERE image=?1 ORDER BY name=?2 DESC,"
		       " manifest='' LIMIT 1",
		       id, from, to, NULL);

	if (r < 0 || sqlite3_changes(s->db) > 0)
		return r;
	return db_run(s, err,
		      "INSERT OR REPLACE INTO names(name, image, manifest) VALUES(?2, ?1,"
		      " COALESCE((SELECT digest FROM manifests WHERE image=?1), ''))",
		      id, to, NULL);
}

int image_tag(struct image_store *s, const char *ref, const char *name, char **ret_name,
	      struct err *err)
{
	char id[DIGEST_LEN + 1], from[REFERENCE_MAX + 1], to[REFERENCE_MAX + 1];
	cleanup_free char *copy = NULL;
	struct reference parsed;
	int r = reference_parse(name ? name : "", &parsed, err);

	if (r < 0)
		return r;
	if (*parsed.digest)
		return err_set(err, -EINVAL, "a new name cannot have a digest: %s", name);
	r = store_resolve(s, ref ? ref : "", id, from, err);
	if (r < 0)
		return r;
	reference_with_tag(&parsed, to);
	copy = strdup(to);
	if (!copy)
		return err_set(err, -ENOMEM, "no memory");
	db_durable(s, true);
	r = copy_name(s, id, from, to, err);
	db_durable(s, false);
	if (r >= 0 && ret_name)
		*ret_name = take_ptr(&copy);
	return r;
}

int image_pin(struct image_store *s, const char *ref, bool pinned, struct err *err)
{
	char id[DIGEST_LEN + 1];
	int r = store_resolve(s, ref ? ref : "", id, NULL, err);

	if (r < 0)
		return r;
	db_durable(s, true);
	r = db_run(s, err, "UPDATE images SET pinned=CAST(? AS INTEGER) WHERE id=?",
		   pinned ? "1" : "0", id, NULL);
	db_durable(s, false);
	return r;
}

/* ---- use by containers ---- */

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
