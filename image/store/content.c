#include "image/store/content.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/store/blobs.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/images.h"

/* The manifest of a name; else (id, name of old) any that the image has. */
static int find_manifest(struct store *s, struct content *c, const char *name, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s,
			   "SELECT digest, COALESCE(names.target, '') FROM manifests"
			   " LEFT JOIN names ON names.manifest=digest AND names.name=?2"
			   " WHERE manifests.image=?1 ORDER BY names.name IS NULL, digest LIMIT 1",
			   &st, err, c->id, name, NULL);

	if (r < 0)
		return r;
	r = sqlite3_step(st);
	if (r == SQLITE_DONE)
		return err_set(err, -ENODATA,
			       "the manifest of image %s is not kept: remove it and pull it again",
			       c->id);
	if (r != SQLITE_ROW)
		return db_error(s, err);
	snprintf(c->manifest_digest, sizeof(c->manifest_digest), "%s",
		 (const char *)sqlite3_column_text(st, 0));
	snprintf(c->target, sizeof(c->target), "%s", (const char *)sqlite3_column_text(st, 1));
	return 0;
}

static int protect(struct content *c, struct err *err)
{
	int r = lease_add(c->lease, c->manifest_digest, err);

	if (r == 0)
		r = lease_add(c->lease, c->manifest.config_digest, err);
	if (r == 0 && *c->target)
		r = lease_add(c->lease, c->target, err);
	for (size_t k = 0; r == 0 && k < c->manifest.n_layers; k++)
		r = lease_add(c->lease, c->manifest.layers[k].digest, err);
	return r;
}

static int load(struct store *s, struct content *c, const char *ref, struct err *err)
{
	char name[REFERENCE_MAX + 1], choice[DIGEST_LEN + 1] = "";
	int r = images_resolve(s, ref ? ref : "", c->id, name, err);

	if (r == 0)
		r = lease_new(s, &c->lease, err);
	if (r == 0)
		r = find_manifest(s, c, name, err);
	if (r < 0)
		return r;
	r = blob_read(s, c->manifest_digest, &c->manifest_bytes, &c->manifest_len, err);
	if (r == -ENOENT || r == -EBADMSG)
		return err_set(err, -ENODATA,
			       "the manifest of image %s is not kept: remove it and pull it again",
			       c->id);
	if (r == 0)
		r = manifest_parse(c->manifest_bytes, c->manifest_len, NULL, &c->manifest, choice,
				   err);
	return r < 0 ? r : protect(c, err);
}

int content_open(struct store *s, const char *ref, struct content **ret, struct err *err)
{
	struct content *c = calloc(1, sizeof(*c));
	int r = c ? load(s, c, ref, err) : err_nomem(err);

	if (r < 0) {
		content_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void content_free(struct content *c)
{
	if (!c)
		return;
	lease_end(c->lease, false);
	free(c->manifest_bytes);
	free(c);
}
