#include "image/store/db.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/sql/file.h"
#include "base/util.h"
#include "image/store/internal.h"

#define ARGS_MAX 8u

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
	return sql_error(s->db, "image database", err);
}

/* ---- statements ---- */

struct args {
	struct sql_value v[ARGS_MAX];
	size_t n;
};

/* Texts up to NULL. */
static struct args args_of(va_list ap)
{
	struct args a = { .n = 0 };
	const char *text;

	while ((text = va_arg(ap, const char *))) {
		check(a.n < ARGS_MAX);
		a.v[a.n++] = sql_text(text);
	}
	return a;
}

/* With values that stay as they are until the statement is gone. */
static int prepare(struct store *s, const char *sql, const struct sql_value *v, size_t n,
		   sqlite3_stmt **ret, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int c = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

	if (c == SQLITE_OK)
		c = sql_bind(st, v, n);
	if (c != SQLITE_OK)
		return db_error(s, err);
	*ret = take_ptr(&st);
	return 0;
}

int db_prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct err *err, ...)
{
	struct args a;
	va_list ap;

	va_start(ap, err);
	a = args_of(ap);
	va_end(ap);
	return prepare(s, sql, a.v, a.n, ret, err);
}

static int run_once(struct store *s, const char *sql, const struct sql_value *v, size_t n,
		    struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	int r = prepare(s, sql, v, n, &st, err);

	if (r == 0 && sqlite3_step(st) != SQLITE_DONE)
		r = db_error(s, err);
	return r;
}

int db_write(struct store *s, const char *sql, const struct sql_value *v, size_t n, struct err *err)
{
	cleanup_sql_tx struct sql_tx *own = NULL;
	struct sql_tx *t = s->tx;
	int r;

	if (!t)
		t = own = sql_tx_new();
	/* First what can fail: what is in memory must come to the file, too. */
	if (!t || sql_tx_add(t, sql, v, n) < 0)
		return err_nomem(err);
	r = run_once(s, sql, v, n, err);
	if (r == 0 && own)
		sqlfile_write(s->file, take_ptr(&own), NULL, NULL);
	return r;
}

int db_run(struct store *s, struct err *err, const char *sql, ...)
{
	struct args a;
	va_list ap;

	va_start(ap, sql);
	a = args_of(ap);
	va_end(ap);
	return db_write(s, sql, a.v, a.n, err);
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
	struct args a;
	va_list ap;
	int r;

	va_start(ap, sql);
	a = args_of(ap);
	va_end(ap);
	r = prepare(s, sql, a.v, a.n, &st, err);
	return r < 0 ? r : column(s, st, ret, err);
}

int db_exists(struct store *s, struct err *err, const char *sql, ...)
{
	cleanup_stmt sqlite3_stmt *st = NULL;
	struct args a;
	va_list ap;
	int r;

	va_start(ap, sql);
	a = args_of(ap);
	va_end(ap);
	r = prepare(s, sql, a.v, a.n, &st, err);
	if (r < 0)
		return r;
	r = sqlite3_step(st);
	return r == SQLITE_ROW ? 1 : r == SQLITE_DONE ? 0 : db_error(s, err);
}

/* ---- transactions ---- */

int db_begin(struct store *s, struct err *err)
{
	cleanup_sql_tx struct sql_tx *t = sql_tx_new();

	check(!s->tx);
	if (!t)
		return err_nomem(err);
	if (sqlite3_exec(s->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
		return db_error(s, err);
	s->tx = take_ptr(&t);
	return 0;
}

int db_end(struct store *s, int r, struct err *err)
{
	cleanup_sql_tx struct sql_tx *t = take_ptr(&s->tx);

	if (r == 0 && sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		r = db_error(s, err);
	if (r < 0)
		(void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	else
		sqlfile_write(s->file, take_ptr(&t), NULL, NULL);
	return r;
}

int db_sync_dir_before(struct store *s, const char *path, struct err *err)
{
	check(s->tx);
	return sql_tx_sync_dir(s->tx, path) < 0 ? err_nomem(err) : 0;
}

int db_may_grow(const struct store *s, struct err *err)
{
	return sqlfile_failing(s->file, err);
}

int db_written(struct store *s, wait_fn done, void *arg, struct err *err)
{
	return sqlfile_written(s->file, done, arg, err);
}

/* ---- opening ---- */

static int copy_to_memory(struct store *s, struct err *err)
{
	sqlite3_backup *b;

	if (sqlite3_open_v2(":memory:", &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return db_error(s, err);
	b = sqlite3_backup_init(s->db, "main", sqlfile_db(s->file), "main");
	if (!b)
		return db_error(s, err);
	(void)sqlite3_backup_step(b, -1);
	if (sqlite3_backup_finish(b) != SQLITE_OK ||
	    sqlite3_exec(s->db, "PRAGMA foreign_keys=ON", NULL, NULL, NULL) != SQLITE_OK)
		return db_error(s, err);
	return 0;
}

int db_open(struct store *s, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" DB_FILE, s->dir);
	int r = path ? sqlfile_open(s->loop, path, steps, ARRAY_SIZE(steps), &s->file, err)
		     : err_nomem(err);

	return r == 0 ? copy_to_memory(s, err) : r;
}

void db_close(struct store *s)
{
	sqlfile_close(take_ptr(&s->file));
	(void)sqlite3_close(take_ptr(&s->db));
}
