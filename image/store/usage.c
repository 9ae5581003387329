#include "image/store/usage.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/store/blobs.h"
#include "image/store/db.h"
#include "image/store/gc.h"
#include "image/store/images.h"
#include "image/store/internal.h"

/* ---- use ---- */

static void add_file(const char *path, struct image_use *u)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	u->bytes += (uint64_t)st.st_blocks * 512;
	u->inodes++;
}

/* Few files: what is being made. */
static void add_files_in(const char *dir, struct image_use *u)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		cleanup_free char *path = str_fmt("%s/%s", dir, e->d_name);

		if (!path || str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		add_file(path, u);
		u->count++;
	}
	if (d)
		closedir(d);
}

static void add_metadata(struct store *s, struct image_use *u)
{
	static const char *const files[] = {
		"",	 "images.db",	 "images.db-wal", "images.db-shm",
		"lock",	 "tmp",		 "layers",	  "layers/sha256",
		"blobs", "blobs/sha256", "ingest",	  "ingest/sha256",
	};

	for (size_t k = 0; k < ARRAY_SIZE(files); k++) {
		cleanup_free char *path = str_fmt("%s/%s", s->dir, files[k]);

		if (path)
			add_file(path, u);
	}
	add_file(s->scratch, u);
}

/* One row of numbers: count, active, bytes, reclaimable, inodes. */
static int numbers(struct store *s, const char *sql, struct image_use *u, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, sql, &st, err, NULL);

	if (r < 0)
		return r;
	if (sqlite3_step(st) != SQLITE_ROW)
		return db_error(s, err);
	u->count = (uint64_t)sqlite3_column_int64(st, 0);
	u->active = (uint64_t)sqlite3_column_int64(st, 1);
	u->bytes = (uint64_t)sqlite3_column_int64(st, 2);
	u->reclaimable = (uint64_t)sqlite3_column_int64(st, 3);
	u->inodes = (uint64_t)sqlite3_column_int64(st, 4);
	return 0;
}

/* Image disks that no image has had yet are not images', but left for the next pull. */
static int pending_layers(struct store *s, struct image_use *u, struct err *err)
{
	struct image_use p = { 0 };
	int r = numbers(s,
			"SELECT COUNT(*), 0, COALESCE(SUM(bytes), 0), 0, COUNT(*) FROM layers"
			" WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)",
			&p, err);

	u->count += p.count;
	u->bytes += p.bytes;
	u->inodes += p.inodes;
	return r;
}

/* What image_prune leaves of images: those in use and those that are pinned. */
static int images_reclaimable(struct store *s, uint64_t *ret, struct err *err)
{
	const struct image_prune_options all = { .all = true, .dry_run = true };
	struct image_pruned p = { 0 };
	int r = usage_prune(s, &all, &p, err);

	if (r < 0)
		return r;
	*ret = p.layer_bytes;
	image_pruned_fini(&p);
	return 0;
}

int usage_get(struct store *s, struct image_use ret[IMAGE_USE_KINDS], struct err *err)
{
	struct image_use u[IMAGE_USE_KINDS] = { 0 };
	struct image_use *images = &u[IMAGE_USE_IMAGES], *partial = &u[IMAGE_USE_PARTIAL];
	int r = numbers(s,
			"SELECT (SELECT COUNT(*) FROM images WHERE NOT removed),"
			" (SELECT COUNT(DISTINCT image) FROM holds), COALESCE(SUM(bytes), 0), 0,"
			" COUNT(*) FROM layers WHERE diff_id IN (SELECT diff_id FROM image_layers)",
			images, err);

	if (r == 0)
		r = images_reclaimable(s, &images->reclaimable, err);
	images->reclaimable = MIN_OF(images->reclaimable, images->bytes);
	if (r == 0)
		r = numbers(s,
			    "SELECT COUNT(*), COUNT(*) - (SELECT COUNT(*) FROM unused_blobs u"
			    "  WHERE NOT EXISTS (SELECT 1 FROM manifest_layers m WHERE"
			    "  m.digest=u.digest)), COALESCE(SUM(bytes), 0),"
			    " (SELECT COALESCE(SUM(bytes), 0) FROM unused_blobs), COUNT(*)"
			    " FROM blobs",
			    &u[IMAGE_USE_BLOBS], err);
	if (r < 0)
		return r;
	add_files_in(s->ingest_dir, partial);
	add_files_in(s->tmp_dir, partial);
	r = pending_layers(s, partial, err);
	if (r < 0)
		return r;
	partial->reclaimable = partial->bytes;
	add_metadata(s, &u[IMAGE_USE_METADATA]);
	u[IMAGE_USE_METADATA].count = u[IMAGE_USE_METADATA].inodes;
	memcpy(ret, u, sizeof(u));
	return 0;
}

const char *image_use_name(enum image_use_kind kind)
{
	static const char *const names[] = { "images", "blobs", "partial", "metadata" };

	return kind < IMAGE_USE_KINDS ? names[kind] : "?";
}

/* Rows know what complete files take, so that this costs the same however many there are. */
int usage_fs_info(struct store *s, struct image_fs_usage *ret, struct err *err)
{
	struct image_fs_usage u = { .mountpoint = s->dir, .timestamp_ns = now_real_ns() };
	struct image_use files = { 0 }, rows = { 0 };
	int r = numbers(s,
			"SELECT 0, 0, (SELECT COALESCE(SUM(bytes), 0) FROM layers) +"
			" (SELECT COALESCE(SUM(bytes), 0) FROM blobs), 0,"
			" (SELECT COUNT(*) FROM layers) + (SELECT COUNT(*) FROM blobs)",
			&rows, err);

	if (r < 0)
		return r;
	add_files_in(s->ingest_dir, &files);
	add_files_in(s->tmp_dir, &files);
	add_metadata(s, &files);
	u.used_bytes = rows.bytes + files.bytes;
	u.inodes_used = rows.inodes + files.inodes;
	*ret = u;
	return 0;
}

/* ---- prune ---- */

void image_pruned_fini(struct image_pruned *p)
{
	strv_free(p->images);
	*p = (struct image_pruned){ 0 };
}

/* The ids of images that may go. */
static int candidates(struct store *s, const struct image_prune_options *o, char ***ret,
		      struct err *err)
{
	cleanup_strv char **ids = NULL, **kept = NULL;
	size_t n = 0;
	int r = db_strings(s, &ids, err,
			   "SELECT id FROM images WHERE NOT removed AND NOT pinned AND"
			   " id NOT IN (SELECT image FROM holds) AND (?='all' OR NOT EXISTS"
			   " (SELECT 1 FROM names WHERE image=id AND instr(name, '@')=0))"
			   " ORDER BY id",
			   o->all ? "all" : "dangling", NULL);

	if (r < 0)
		return r;
	kept = calloc(strv_len(ids) + 1, sizeof(*kept));
	if (!kept)
		return err_nomem(err);
	for (char **id = ids; *id; id++) {
		cleanup_image_info struct image_info *i = NULL;

		r = images_get(s, *id, &i, err);
		if (r < 0)
			return r;
		if (i->pinned || lease_covers(s, *id))
			continue;
		kept[n] = strdup(*id);
		if (!kept[n++])
			return err_nomem(err);
	}
	*ret = take_ptr(&kept);
	return 0;
}

/* Adds up what `sql` gives (digest, bytes), of what no lease has. */
static int add_up(struct store *s, const char *sql, uint64_t *count, uint64_t *bytes,
		  struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int c, r = db_prepare(s, sql, &st, err, NULL);

	if (r < 0)
		return r;
	while ((c = sqlite3_step(st)) == SQLITE_ROW) {
		if (lease_covers(s, (const char *)sqlite3_column_text(st, 0)))
			continue;
		*count += 1;
		*bytes += (uint64_t)sqlite3_column_int64(st, 1);
	}
	return c == SQLITE_DONE ? 0 : db_error(s, err);
}

#define UNUSED_LAYERS                                                                              \
	" FROM layers l WHERE NOT EXISTS"                                                          \
	" (SELECT 1 FROM image_layers i WHERE i.diff_id=l.diff_id)"
#define UNUSED_BLOBS                                                                               \
	" FROM unused_blobs b WHERE NOT EXISTS"                                                    \
	" (SELECT 1 FROM manifest_layers m WHERE m.digest=b.digest)"

/* In a transaction that may be undone: rows only. */
static int prune_rows(struct store *s, const struct image_prune_options *o, struct image_pruned *p,
		      struct err *err)
{
	const bool b = o->blobs;
	int r = 0;

	for (char **id = p->images; r == 0 && *id; id++)
		r = images_remove_rows(s, *id, err);
	if (r == 0)
		r = add_up(s,
			   b ? "SELECT diff_id, bytes" UNUSED_LAYERS
			     : "SELECT diff_id, bytes" UNUSED_LAYERS " AND NOT pending",
			   &p->layers, &p->layer_bytes, err);
	p->bytes = p->layer_bytes;
	if (r == 0)
		r = add_up(s,
			   b ? "SELECT digest, bytes FROM unused_blobs"
			     : "SELECT digest, bytes" UNUSED_BLOBS " AND NOT pending",
			   &p->blobs, &p->bytes, err);
	return r;
}

static int prune_blobs(struct store *s, struct err *err)
{
	cleanup_strv char **all = NULL;
	int r = db_strings(s, &all, err, "SELECT digest FROM unused_blobs", NULL);

	for (char **d = all; r == 0 && *d; d++)
		if (!lease_covers(s, *d))
			r = blob_delete(s, *d, err);
	return r;
}

static void partial_bytes(struct store *s, struct image_pruned *p)
{
	struct image_use before = { 0 };

	add_files_in(s->ingest_dir, &before);
	p->bytes += before.bytes - MIN_OF(before.bytes, ingest_owned_bytes(s));
}

int usage_prune(struct store *s, const struct image_prune_options *o, struct image_pruned *ret,
		struct err *err)
{
	struct image_pruned p = { .images = calloc(1, sizeof(char *)) };
	int r = p.images ? 0 : err_nomem(err);

	if (r == 0 && (o->all || o->dangling)) {
		free(p.images);
		p.images = NULL;
		r = candidates(s, o, &p.images, err);
	}
	if (r == 0)
		r = db_begin(s, err);
	if (r < 0) {
		image_pruned_fini(&p);
		return r;
	}
	r = prune_rows(s, o, &p, err);
	if (r == 0 && o->blobs)
		partial_bytes(s, &p);
	if (r == 0 && o->dry_run)
		(void)!db_end(s, -ECANCELED, NULL);
	else
		r = db_end(s, r, err);
	if (r == 0 && !o->dry_run) {
		if (o->blobs) {
			r = prune_blobs(s, err);
			gc_make_room(s);
		} else {
			r = gc_collect(s, err);
		}
	}
	if (r < 0) {
		image_pruned_fini(&p);
		return r;
	}
	*ret = p;
	return 0;
}
