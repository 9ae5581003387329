#include "image/store/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/image.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/images.h"
#include "image/store/internal.h"

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
static int untag_rows(struct store *s, const char *id, const char *name, bool whole,
		      char *const *names, struct image_untagged *u, struct err *err)
{
	bool last = *name && !is_digest_name(name) && other_tags(names, name, true) == 0;
	size_t n = 0;
	int r = 0;

	u->names = calloc(strv_len(names) + 1, sizeof(*u->names));
	if (!u->names)
		return err_nomem(err);
	for (; *names && r == 0; names++) {
		if (!goes(*names, name, whole, last))
			continue;
		u->names[n] = strdup(*names);
		r = u->names[n++] ? db_run(s, err, "DELETE FROM names WHERE name=?", *names, NULL)
				  : err_nomem(err);
	}
	if (r == 0 && whole) {
		u->deleted = strdup(id);
		r = u->deleted ? images_remove_rows(s, id, err) : err_nomem(err);
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

int names_untag(struct store *s, const char *ref, bool force, struct image_untagged *ret,
		struct err *err)
{
	char id[DIGEST_LEN + 1], name[REFERENCE_MAX + 1];
	cleanup_image_info struct image_info *i = NULL;
	struct image_untagged u = { 0 };
	cleanup_strv char **names = NULL;
	bool whole;
	int r = images_resolve(s, ref ? ref : "", id, name, err);

	if (r == 0)
		r = images_get(s, id, &i, err);
	if (r == 0)
		r = db_strings(s, &names, err, "SELECT name FROM names WHERE image=? ORDER BY name",
			       id, NULL);
	if (r < 0)
		return r;
	whole = !*name ||
		(is_digest_name(name) ? strv_len(names) == 1 : other_tags(names, name, false) == 0);
	if (whole && !force)
		r = may_go(i, name, names, err);
	if (r == 0)
		r = db_begin(s, err);
	if (r < 0)
		return r;
	r = db_end(s, untag_rows(s, id, name, whole, names, &u, err), err);
	if (r == 0)
		r = gc_collect(s, err);
	if (r < 0) {
		image_untagged_fini(&u);
		return r;
	}
	*ret = u;
	return 0;
}

/* ---- tag, pin ---- */

/* The manifest and what it came with, of any name of the image; of a name given, that name's. */
static int copy_name(struct store *s, const char *id, const char *from, const char *to,
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

int names_tag(struct store *s, const char *ref, const char *name, char **ret_name, struct err *err)
{
	char id[DIGEST_LEN + 1], from[REFERENCE_MAX + 1], to[REFERENCE_MAX + 1];
	cleanup_free char *copy = NULL;
	struct reference parsed;
	int r = reference_parse(name ? name : "", &parsed, err);

	if (r < 0)
		return r;
	if (*parsed.digest)
		return err_set(err, -EINVAL, "a new name cannot have a digest: %s", name);
	r = images_resolve(s, ref ? ref : "", id, from, err);
	if (r < 0)
		return r;
	reference_with_tag(&parsed, to);
	copy = strdup(to);
	if (!copy)
		return err_nomem(err);
	r = copy_name(s, id, from, to, err);
	if (r == 0 && ret_name)
		*ret_name = take_ptr(&copy);
	return r;
}

/* ---- for pushes ---- */

int names_add_pushed(struct store *s, const char *name, const char *id, const char *digest,
		     struct err *err)
{
	return db_run(s, err,
		      "INSERT OR REPLACE INTO names(name, image, target, manifest)"
		      " VALUES(?1, ?2, ?3, ?3)",
		      name, id, digest, NULL);
}

int names_with_blob(struct store *s, const char *host, const char *digest, char ***ret,
		    struct err *err)
{
	cleanup_free char *first = str_fmt("%s/", host);

	if (!first)
		return err_nomem(err);
	return db_strings(s, ret, err,
			  "SELECT DISTINCT n.name FROM names n JOIN manifests m ON m.image=n.image"
			  " JOIN manifest_layers l ON l.manifest=m.digest WHERE l.digest=?1"
			  " AND substr(n.name, 1, length(?2))=?2 AND instr(n.name, '@')"
			  " ORDER BY n.name LIMIT 16",
			  digest, first, NULL);
}
