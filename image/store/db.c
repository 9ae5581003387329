#include "image/store/db.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/limits.h"
#include "base/util.h"
#include "image/store/internal.h"

/*
 * Step k brings a database from user_version k to k + 1. Never edited once released: a change of
 * shape is one more step.
 */
static const char *const steps[] = {
	"CREATE TABLE layers(diff_id TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE images(id TEXT PRIMARY KEY, config BLOB NOT NULL, created INTEGER NOT NULL,"
	" pinned INTEGER NOT NULL DEFAULT 0,"
	" removed INTEGER NOT NULL DEFAULT 0);" /* held, but gone for all but its holders */
	"CREATE TABLE image_layers(image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,"
	" pos INTEGER NOT NULL, diff_id TEXT NOT NULL REFERENCES layers(diff_id),"
	" PRIMARY KEY(image, pos)) WITHOUT ROWID;"
	"CREATE INDEX image_layers_by_diff_id ON image_layers(diff_id);"
	"CREATE TABLE names(name TEXT PRIMARY KEY, image TEXT NOT NULL"
	" REFERENCES images(id) ON DELETE CASCADE) WITHOUT ROWID;"
	"CREATE INDEX names_by_image ON names(image);"
	"CREATE TABLE holds(holder TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id))"
	" WITHOUT ROWID;"
	"CREATE INDEX holds_by_image ON holds(image);",

	/* size: of the content; bytes: allocated */
	"CREATE TABLE blobs(digest TEXT PRIMARY KEY, size INTEGER NOT NULL,"
	" bytes INTEGER NOT NULL) WITHOUT ROWID;",

	/* pending: when it came (s), as long as no image has had it. content: digest of the file as
	 * first read. */
	"ALTER TABLE layers ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE layers ADD COLUMN content TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE layers ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE blobs ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;"
	/* target: what the name stood for in the registry, index or manifest; '' when unknown */
	"ALTER TABLE names ADD COLUMN target TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE names ADD COLUMN manifest TEXT NOT NULL DEFAULT '';"
	"CREATE INDEX names_by_target ON names(target);"
	"CREATE TABLE manifests(digest TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id)"
	" ON DELETE CASCADE, media_type TEXT NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX manifests_by_image ON manifests(image);"
	"CREATE TABLE manifest_layers(manifest TEXT NOT NULL REFERENCES manifests(digest)"
	" ON DELETE CASCADE, pos INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,"
	" diff_id TEXT NOT NULL, PRIMARY KEY(manifest, pos)) WITHOUT ROWID;"
	"CREATE INDEX manifest_layers_by_digest ON manifest_layers(digest);"
	/* ... but perhaps as layers of an image */
	"CREATE VIEW unused_blobs AS SELECT * FROM blobs b"
	" WHERE NOT EXISTS (SELECT 1 FROM manifests WHERE digest=b.digest)"
	" AND NOT EXISTS (SELECT 1 FROM names WHERE target=b.digest)"
	" AND NOT EXISTS (SELECT 1 FROM images WHERE id=b.digest);",

	/* struct layer_facts. implied: -1 = made by a version that did not look. root: 0 not named,
	 * 1 named, 2 with attributes of its own. */
	"ALTER TABLE layers ADD COLUMN implied INTEGER NOT NULL DEFAULT -1;"
	"ALTER TABLE layers ADD COLUMN root INTEGER NOT NULL DEFAULT 0;",
};

void stmt_freep(sqlite3_stmt **s)
{
	sqlite3_finalize(*s);
}

int db_error(struct store *s, struct err *err)
{
	int code = sqlite3_errcode(s->db) & 0xff;
	int r = code == SQLITE_FULL    ? -ENOSPC
		: code == SQLITE_NOMEM ? -ENOMEM
		: code == SQLITE_BUSY  ? -EBUSY
				       : -EIO;

	return err_set(err, r, "image database: %s", sqlite3_errmsg(s->db));
}

static int vprepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct err *err,
		    va_list ap)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	const char *arg;
	int k = 1, c = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

	while (c == SQLITE_OK && (arg = va_arg(ap, const char *)))
		c = sqlite3_bind_text(st, k++, arg, -1, SQLITE_TRANSIENT);
	if (c != SQLITE_OK)
		return db_error(s, err);
	*ret = take_ptr(&st);
	return 0;
}

int db_prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct err *err, ...)
{
	va_list ap;
	int r;

	va_start(ap, err);
	r = vprepare(s, sql, ret, err, ap);
	va_end(ap);
	return r;
}

int db_run(struct store *s, struct err *err, const char *sql, ...)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	va_list ap;
	int r;

	va_start(ap, sql);
	r = vprepare(s, sql, &st, err, ap);
	va_end(ap);
	if (r == 0 && sqlite3_step(st) != SQLITE_DONE)
		r = db_error(s, err);
	return r;
}

static int column(struct store *s, sqlite3_stmt *st, char ***ret, struct err *err)
{
	cleanup_strv char **v = calloc(1, sizeof(*v));
	size_t n = 0;
	int c;

	if (!v)
		return err_nomem(err);
	while ((c = sqlite3_step(st)) == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(st, 0);
		char **more = realloc(v, (n + 2) * sizeof(*more));

		if (more)
			v = more;
		if (!more || !(v[n] = strdup(text ? text : "")))
			return err_nomem(err);
		v[++n] = NULL;
	}
	if (c != SQLITE_DONE)
		return db_error(s, err);
	*ret = take_ptr(&v);
	return 0;
}

int db_strings(struct store *s, char ***ret, struct err *err, const char *sql, ...)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	va_list ap;
	int r;

	va_start(ap, sql);
	r = vprepare(s, sql, &st, err, ap);
	va_end(ap);
	return r < 0 ? r : column(s, st, ret, err);
}

int db_exists(struct store *s, struct err *err, const char *sql, ...)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	va_list ap;
	int r;

	va_start(ap, sql);
	r = vprepare(s, sql, &st, err, ap);
	va_end(ap);
	if (r < 0)
		return r;
	r = sqlite3_step(st);
	return r == SQLITE_ROW ? 1 : r == SQLITE_DONE ? 0 : db_error(s, err);
}

int db_begin(struct store *s, struct err *err)
{
	return sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK
		       ? 0
		       : db_error(s, err);
}

int db_end(struct store *s, int r, struct err *err)
{
	if (r == 0 && sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		r = db_error(s, err);
	if (r < 0)
		(void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

static int version(struct store *s, int *ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = db_prepare(s, "PRAGMA user_version", &st, err, NULL);

	if (r < 0)
		return r;
	if (sqlite3_step(st) != SQLITE_ROW)
		return db_error(s, err);
	*ret = sqlite3_column_int(st, 0);
	return 0;
}

static int migrate(struct store *s, struct err *err)
{
	char mark[40];
	int at = 0, r = version(s, &at, err);

	if (r < 0)
		return r;
	if (at < 0 || (size_t)at > ARRAY_SIZE(steps))
		return err_set(err, -ENOTSUP,
			       "images.db was made by a newer version of Husk (%d, this one knows "
			       "%zu)",
			       at, ARRAY_SIZE(steps));
	for (size_t k = (size_t)at; k < ARRAY_SIZE(steps) && r == 0; k++) {
		snprintf(mark, sizeof(mark), "PRAGMA user_version=%zu", k + 1);
		r = db_begin(s, err);
		if (r < 0)
			return r;
		if (sqlite3_exec(s->db, steps[k], NULL, NULL, NULL) != SQLITE_OK ||
		    sqlite3_exec(s->db, mark, NULL, NULL, NULL) != SQLITE_OK)
			r = db_error(s, err);
		r = db_end(s, r, err);
	}
	return r;
}

/* A full disk must not keep images from being removed. The log is kept at the end, too, with its
 * blocks; where they cannot be had, removal may fail as any write. */
static void reserve(struct store *s, const char *path)
{
	cleanup_free char *wal = str_fmt("%s-wal", path);
	struct statvfs st;
	bool small = statvfs(s->dir, &st) == 0 &&
		     (uint64_t)st.f_blocks * st.f_frsize < 8 * DB_WAL_RESERVE;
	int on = wal && !small && file_reserve(wal, DB_WAL_RESERVE) == 0;

	/* A log without it is no reserve: on so small a disk it would only take room. */
	(void)sqlite3_file_control(s->db, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
}

int db_setup(struct store *s, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" DB_FILE, s->dir);
	int c;

	if (!path)
		return err_nomem(err);
	c = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
	if (c == SQLITE_OK)
		c = sqlite3_exec(s->db,
				 "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
				 "PRAGMA foreign_keys=ON;",
				 NULL, NULL, NULL);
	if (c != SQLITE_OK)
		return s->db ? db_error(s, err) : err_nomem(err);
	reserve(s, path);
	return migrate(s, err);
}
