#include "cri/store/statedb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/util.h"
#include "cri/store/object.h"

struct statedb {
	sqlite3 *sql;
	sqlite3_stmt *put_pod, *update_pod, *delete_pod;
	sqlite3_stmt *put_container, *update_container, *delete_container;
};

static const char schema[] =
	"CREATE TABLE pods("
	" id TEXT PRIMARY KEY, state INTEGER NOT NULL, created_at INTEGER NOT NULL,"
	" handler TEXT NOT NULL, address TEXT NOT NULL, config BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE containers("
	" id TEXT PRIMARY KEY, pod TEXT NOT NULL, state INTEGER NOT NULL,"
	" created_at INTEGER NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER NOT NULL,"
	" exit_code INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,"
	" image_id TEXT NOT NULL, image_name TEXT NOT NULL, image_ref TEXT NOT NULL,"
	" stop_signal INTEGER NOT NULL, stop_chosen INTEGER NOT NULL,"
	" config BLOB NOT NULL) WITHOUT ROWID;"
	"PRAGMA user_version = 1;";

static int sql_err(struct statedb *db, int rc, const char *what, struct err *err)
{
	int code = -EIO;

	switch (rc & 0xff) {
	case SQLITE_FULL:
		code = -ENOSPC;
		break;
	case SQLITE_NOMEM:
		code = -ENOMEM;
		break;
	case SQLITE_CONSTRAINT:
		code = -EEXIST;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		code = -EBUSY;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		code = -EPROTO;
		break;
	}
	return err_set(err, code, "%s: %s", what,
		       db->sql ? sqlite3_errmsg(db->sql) : "out of memory");
}

static int sql_exec(struct statedb *db, const char *sql, const char *what, struct err *err)
{
	int rc = sqlite3_exec(db->sql, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : sql_err(db, rc, what, err);
}

static int migrate(struct statedb *db, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int version = -1;
	int rc = sqlite3_prepare_v2(db->sql, "PRAGMA user_version", -1, &st, NULL);
	int r;

	if (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
		version = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	if (version < 0)
		return sql_err(db, rc, "read the schema version", err);
	if (version > STATEDB_SCHEMA_VERSION)
		return err_set(err, -EPROTO,
			       "has schema version %d, made by a newer huskd (this one knows %d)",
			       version, STATEDB_SCHEMA_VERSION);
	if (version == STATEDB_SCHEMA_VERSION)
		return 0;
	r = sql_exec(db, "BEGIN IMMEDIATE", "begin a transaction", err);
	if (r == 0)
		r = sql_exec(db, schema, "make the tables", err);
	if (r == 0)
		r = sql_exec(db, "COMMIT", "commit the tables", err);
	return r;
}

static int prepare_all(struct statedb *db, struct err *err)
{
	const struct {
		sqlite3_stmt **st;
		const char *sql;
	} all[] = {
		{ &db->put_pod, "INSERT INTO pods VALUES(?1,?2,?3,?4,?5,?6)" },
		{ &db->update_pod,
		  "UPDATE pods SET state=?2, created_at=?3, address=?4 WHERE id=?1" },
		{ &db->delete_pod, "DELETE FROM pods WHERE id=?1" },
		{ &db->put_container,
		  "INSERT INTO containers "
		  "VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)" },
		{ &db->update_container,
		  "UPDATE containers SET state=?2, created_at=?3, started_at=?4, finished_at=?5,"
		  " exit_code=?6, reason=?7, message=?8, stop_signal=?9, stop_chosen=?10"
		  " WHERE id=?1" },
		{ &db->delete_container, "DELETE FROM containers WHERE id=?1" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		int rc = sqlite3_prepare_v3(db->sql, all[i].sql, -1, SQLITE_PREPARE_PERSISTENT,
					    all[i].st, NULL);

		if (rc != SQLITE_OK)
			return sql_err(db, rc, "prepare a statement", err);
	}
	return 0;
}

/* A full disk must not keep what is on it from being removed. The log is kept at the end, too, with
 * its blocks; where they cannot be had, removal may fail as any write. */
static void reserve(struct statedb *db, const char *path)
{
	cleanup_free char *wal = str_fmt("%s-wal", path);
	int on = 1;

	(void)sqlite3_file_control(db->sql, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
	if (wal)
		(void)!file_reserve(wal, DB_WAL_RESERVE);
}

int statedb_open(const char *path, struct statedb **ret, struct err *err)
{
	struct statedb *db = calloc(1, sizeof(*db));
	cleanup_fd int fd = -1;
	int rc, r;

	if (!db)
		return err_nomem(err);
	/* It holds environment variables of containers; SQLite's other files get the same mode. */
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		free(db);
		return err_errno(err, -errno, "open %s", path);
	}
	fd_close(&fd); /* before SQLite opens it: closing drops a process's locks */
	rc = sqlite3_open_v2(path, &db->sql,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			     NULL);
	r = rc == SQLITE_OK ? 0 : sql_err(db, rc, "cannot be opened", err);
	if (r == 0) {
		sqlite3_busy_timeout(db->sql, 2000);
		sqlite3_limit(db->sql, SQLITE_LIMIT_LENGTH, 2 * STATEDB_BLOB_MAX);
		/* NORMAL: a crash of the host may lose the last writes, but then the pods are gone,
		 * too. */
		r = sql_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
			     "choose the journal", err);
	}
	if (r == 0) {
		reserve(db, path);
		r = migrate(db, err);
	}
	if (r == 0)
		r = prepare_all(db, err);
	if (r < 0) {
		statedb_close(db);
		return err_wrap(err, r, "database %s", path);
	}
	*ret = db;
	return 0;
}

void statedb_close(struct statedb *db)
{
	if (!db)
		return;
	sqlite3_finalize(db->put_pod);
	sqlite3_finalize(db->update_pod);
	sqlite3_finalize(db->delete_pod);
	sqlite3_finalize(db->put_container);
	sqlite3_finalize(db->update_container);
	sqlite3_finalize(db->delete_container);
	sqlite3_close(db->sql);
	free(db);
}

static int sql_run(struct statedb *db, sqlite3_stmt *st, const char *what, struct err *err)
{
	int rc = sqlite3_step(st);
	int r = rc == SQLITE_DONE ? 0 : sql_err(db, rc, what, err);

	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return r;
}

static void bind_text(sqlite3_stmt *st, int i, const char *s)
{
	sqlite3_bind_text(st, i, s, -1, SQLITE_STATIC);
}

/* Packs and binds; the caller frees *buf after the step. */
static int bind_message(sqlite3_stmt *st, int i, const ProtobufCMessage *m, uint8_t **buf,
			struct err *err)
{
	size_t n = protobuf_c_message_get_packed_size(m);

	if (n > STATEDB_BLOB_MAX)
		return err_set(err, -EFBIG, "the configuration is larger than 16 MiB");
	*buf = malloc(n + 1);
	if (!*buf)
		return err_nomem(err);
	protobuf_c_message_pack(m, *buf);
	sqlite3_bind_blob(st, i, *buf, (int)n, SQLITE_STATIC);
	return 0;
}

int statedb_put_pod(struct statedb *db, const struct pod *p, struct err *err)
{
	cleanup_free uint8_t *blob = NULL;
	sqlite3_stmt *st = db->put_pod;
	int r;

	bind_text(st, 1, p->id);
	sqlite3_bind_int(st, 2, p->state);
	sqlite3_bind_int64(st, 3, p->created_at);
	bind_text(st, 4, p->handler);
	bind_text(st, 5, p->address);
	r = bind_message(st, 6, &p->config->base, &blob, err);
	return r < 0 ? r : sql_run(db, st, "write a pod", err);
}

int statedb_update_pod(struct statedb *db, const struct pod *p, enum pod_state state,
		       struct err *err)
{
	sqlite3_stmt *st = db->update_pod;

	bind_text(st, 1, p->id);
	sqlite3_bind_int(st, 2, (int)state);
	sqlite3_bind_int64(st, 3, p->created_at);
	bind_text(st, 4, p->address);
	return sql_run(db, st, "update a pod", err);
}

int statedb_delete_pod(struct statedb *db, const char *id, struct err *err)
{
	bind_text(db->delete_pod, 1, id);
	return sql_run(db, db->delete_pod, "delete a pod", err);
}

int statedb_put_container(struct statedb *db, const struct container *c, struct err *err)
{
	cleanup_free uint8_t *blob = NULL;
	sqlite3_stmt *st = db->put_container;
	int r;

	bind_text(st, 1, c->id);
	bind_text(st, 2, c->pod->id);
	sqlite3_bind_int(st, 3, c->state);
	sqlite3_bind_int64(st, 4, c->created_at);
	sqlite3_bind_int64(st, 5, c->started_at);
	sqlite3_bind_int64(st, 6, c->finished_at);
	sqlite3_bind_int(st, 7, c->exit_code);
	bind_text(st, 8, c->reason);
	bind_text(st, 9, c->message);
	bind_text(st, 10, c->image_id);
	bind_text(st, 11, c->image_name);
	bind_text(st, 12, c->image_ref);
	sqlite3_bind_int(st, 13, c->stop_signal);
	sqlite3_bind_int(st, 14, c->stop_chosen);
	r = bind_message(st, 15, &c->config->base, &blob, err);
	return r < 0 ? r : sql_run(db, st, "write a container", err);
}

int statedb_update_container(struct statedb *db, const struct container *c,
			     enum container_state state, struct err *err)
{
	sqlite3_stmt *st = db->update_container;

	bind_text(st, 1, c->id);
	sqlite3_bind_int(st, 2, (int)state);
	sqlite3_bind_int64(st, 3, c->created_at);
	sqlite3_bind_int64(st, 4, c->started_at);
	sqlite3_bind_int64(st, 5, c->finished_at);
	sqlite3_bind_int(st, 6, c->exit_code);
	bind_text(st, 7, c->reason);
	bind_text(st, 8, c->message);
	sqlite3_bind_int(st, 9, c->stop_signal);
	sqlite3_bind_int(st, 10, c->stop_chosen);
	return sql_run(db, st, "update a container", err);
}

int statedb_delete_container(struct statedb *db, const char *id, struct err *err)
{
	bind_text(db->delete_container, 1, id);
	return sql_run(db, db->delete_container, "delete a container", err);
}

/* ---- loading ---- */

static char *column_text(sqlite3_stmt *st, int i)
{
	const char *s = (const char *)sqlite3_column_text(st, i);

	return strdup(s ? s : "");
}

static bool column_id(sqlite3_stmt *st, int i, char id[OBJECT_ID_LEN + 1])
{
	const char *s = (const char *)sqlite3_column_text(st, i);

	if (!s || strlen(s) != OBJECT_ID_LEN)
		return false;
	memcpy(id, s, OBJECT_ID_LEN + 1);
	return true;
}

static struct pod *load_pod(sqlite3_stmt *st)
{
	struct pod *p = pod_new();
	int state = sqlite3_column_int(st, 1);

	if (!p)
		return NULL;
	p->state = (enum pod_state)state;
	p->created_at = sqlite3_column_int64(st, 2);
	p->handler = column_text(st, 3);
	p->address = column_text(st, 4);
	p->config = cri__pod_sandbox_config__unpack(NULL, (size_t)sqlite3_column_bytes(st, 5),
						    sqlite3_column_blob(st, 5));
	if (!column_id(st, 0, p->id) || state < POD_CREATING || state > POD_NOTREADY ||
	    !p->handler || !p->address || !p->config || !p->config->metadata) {
		pod_unref(p);
		return NULL;
	}
	return p;
}

static struct container *load_container(sqlite3_stmt *st)
{
	struct container *c = container_new();
	int state = sqlite3_column_int(st, 2);

	if (!c)
		return NULL;
	c->state = (enum container_state)state;
	c->created_at = sqlite3_column_int64(st, 3);
	c->started_at = sqlite3_column_int64(st, 4);
	c->finished_at = sqlite3_column_int64(st, 5);
	c->exit_code = sqlite3_column_int(st, 6);
	c->reason = column_text(st, 7);
	c->message = column_text(st, 8);
	c->image_id = column_text(st, 9);
	c->image_name = column_text(st, 10);
	c->image_ref = column_text(st, 11);
	c->stop_signal = sqlite3_column_int(st, 12);
	c->stop_chosen = sqlite3_column_int(st, 13) != 0;
	c->config = cri__container_config__unpack(NULL, (size_t)sqlite3_column_bytes(st, 14),
						  sqlite3_column_blob(st, 14));
	if (!column_id(st, 0, c->id) || state < CONTAINER_CREATING || state > CONTAINER_EXITED ||
	    !c->reason || !c->message || !c->image_id || !c->image_name || !c->image_ref ||
	    !c->config || !c->config->metadata) {
		container_unref(c);
		return NULL;
	}
	return c;
}

struct load {
	statedb_pod_fn on_pod;
	statedb_container_fn on_container;
	void *arg;
};

/* One row each; false: it is damaged. */
static bool statedb_load_pod_row(sqlite3_stmt *st, const struct load *l)
{
	struct pod *p = load_pod(st);

	if (p)
		l->on_pod(l->arg, p);
	return p;
}

static bool statedb_load_container_row(sqlite3_stmt *st, const struct load *l)
{
	const char *pod_id = (const char *)sqlite3_column_text(st, 1);
	struct container *c = pod_id ? load_container(st) : NULL;

	if (c && l->on_container(l->arg, c, pod_id))
		return true;
	container_unref(c);
	return false;
}

static int load_rows(struct statedb *db, const char *sql, const char *kind,
		     bool (*row)(sqlite3_stmt *st, const struct load *l), const struct load *l,
		     struct err *err)
{
	sqlite3_stmt *st = NULL;
	int r, rc = sqlite3_prepare_v2(db->sql, sql, -1, &st, NULL);

	while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		const char *id = (const char *)sqlite3_column_text(st, 0);

		if (!row(st, l))
			log_limited(LOG_ERROR, "a damaged record is left out", "id", id ? id : "?",
				    "kind", kind);
		rc = SQLITE_OK;
	}
	r = rc == SQLITE_DONE ? 0 : sql_err(db, rc, "read the records", err);
	sqlite3_finalize(st);
	return r;
}

int statedb_load(struct statedb *db, statedb_pod_fn on_pod, statedb_container_fn on_container,
		 void *arg, struct err *err)
{
	const struct load l = { on_pod, on_container, arg };
	int r = load_rows(db, "SELECT * FROM pods ORDER BY created_at, id", "pod",
			  statedb_load_pod_row, &l, err);

	if (r == 0)
		r = load_rows(db, "SELECT * FROM containers ORDER BY created_at, id", "container",
			      statedb_load_container_row, &l, err);
	return r;
}
