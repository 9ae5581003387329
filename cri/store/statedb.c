#include "cri/store/statedb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sql/file.h"
#include "base/util.h"
#include "cri/store/object.h"

struct statedb {
	struct sqlfile *file;
};

/* Step k makes user_version k + 1; never edited once released. */
static const char *const steps[] = {
	"CREATE TABLE pods("
	" id TEXT PRIMARY KEY, state INTEGER NOT NULL, created_at INTEGER NOT NULL,"
	" handler TEXT NOT NULL, address TEXT NOT NULL, config BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE containers("
	" id TEXT PRIMARY KEY, pod TEXT NOT NULL, state INTEGER NOT NULL,"
	" created_at INTEGER NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER NOT NULL,"
	" exit_code INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,"
	" image_id TEXT NOT NULL, image_name TEXT NOT NULL, image_ref TEXT NOT NULL,"
	" stop_signal INTEGER NOT NULL, stop_chosen INTEGER NOT NULL,"
	" config BLOB NOT NULL) WITHOUT ROWID;",
};

int statedb_open(struct loop *l, const char *path, struct statedb **ret, struct err *err)
{
	struct statedb *db = calloc(1, sizeof(*db));
	int r = db ? sqlfile_open(l, path, steps, ARRAY_SIZE(steps), &db->file, err)
		   : err_nomem(err);

	if (r < 0) {
		free(db);
		return r;
	}
	(void)sqlite3_limit(sqlfile_db(db->file), SQLITE_LIMIT_LENGTH, 2 * STATEDB_BLOB_MAX);
	*ret = db;
	return 0;
}

void statedb_close(struct statedb *db)
{
	if (!db)
		return;
	sqlfile_close(db->file);
	free(db);
}

/* ---- writing ---- */

static int change(struct statedb *db, const char *sql, const struct sql_value *v, size_t n,
		  wait_fn done, void *arg, struct err *err)
{
	cleanup_sql_tx struct sql_tx *t = sql_tx_new();

	if (!t || sql_tx_add(t, sql, v, n) < 0)
		return err_nomem(err);
	sqlfile_write(db->file, take_ptr(&t), done, arg);
	return 0;
}

/* The caller frees *buf when *ret is of no more use. */
static int blob_of(const ProtobufCMessage *m, uint8_t **buf, struct sql_value *ret, struct err *err)
{
	size_t n = protobuf_c_message_get_packed_size(m);

	if (n > STATEDB_BLOB_MAX)
		return err_set(err, -EFBIG, "the configuration is larger than 16 MiB");
	*buf = malloc(n + 1);
	if (!*buf)
		return err_nomem(err);
	protobuf_c_message_pack(m, *buf);
	*ret = sql_blob(*buf, n);
	return 0;
}

int statedb_put_pod(struct statedb *db, const struct pod *p, struct err *err)
{
	cleanup_free uint8_t *buf = NULL;
	struct sql_value v[] = { sql_text(p->id),      sql_int(p->state),    sql_int(p->created_at),
				 sql_text(p->handler), sql_text(p->address), { 0 } };
	int r = sqlfile_failing(db->file, err);

	if (r == 0)
		r = blob_of(&p->config->base, &buf, &v[5], err);
	return r < 0 ? r
		     : change(db, "INSERT INTO pods VALUES(?1,?2,?3,?4,?5,?6)", v, ARRAY_SIZE(v),
			      NULL, NULL, err);
}

int statedb_update_pod(struct statedb *db, const struct pod *p, enum pod_state state, wait_fn done,
		       void *arg, struct err *err)
{
	const struct sql_value v[] = { sql_text(p->id), sql_int(state), sql_int(p->created_at),
				       sql_text(p->address) };

	return change(db, "UPDATE pods SET state=?2, created_at=?3, address=?4 WHERE id=?1", v,
		      ARRAY_SIZE(v), done, arg, err);
}

int statedb_delete_pod(struct statedb *db, const char *id, struct err *err)
{
	const struct sql_value v[] = { sql_text(id) };

	return change(db, "DELETE FROM pods WHERE id=?1", v, 1, NULL, NULL, err);
}

int statedb_put_container(struct statedb *db, const struct container *c, struct err *err)
{
	cleanup_free uint8_t *buf = NULL;
	struct sql_value v[] = {
		sql_text(c->id),	 sql_text(c->pod->id),	  sql_int(c->state),
		sql_int(c->created_at),	 sql_int(c->started_at),  sql_int(c->finished_at),
		sql_int(c->exit_code),	 sql_text(c->reason),	  sql_text(c->message),
		sql_text(c->image_id),	 sql_text(c->image_name), sql_text(c->image_ref),
		sql_int(c->stop_signal), sql_int(c->stop_chosen), { 0 },
	};
	int r = sqlfile_failing(db->file, err);

	if (r == 0)
		r = blob_of(&c->config->base, &buf, &v[14], err);
	return r < 0 ? r
		     : change(db,
			      "INSERT INTO containers VALUES"
			      "(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
			      v, ARRAY_SIZE(v), NULL, NULL, err);
}

int statedb_update_container(struct statedb *db, const struct container *c,
			     enum container_state state, wait_fn done, void *arg, struct err *err)
{
	const struct sql_value v[] = {
		sql_text(c->id),	 sql_int(state),	  sql_int(c->created_at),
		sql_int(c->started_at),	 sql_int(c->finished_at), sql_int(c->exit_code),
		sql_text(c->reason),	 sql_text(c->message),	  sql_int(c->stop_signal),
		sql_int(c->stop_chosen),
	};

	return change(db,
		      "UPDATE containers SET state=?2, created_at=?3, started_at=?4,"
		      " finished_at=?5, exit_code=?6, reason=?7, message=?8, stop_signal=?9,"
		      " stop_chosen=?10 WHERE id=?1",
		      v, ARRAY_SIZE(v), done, arg, err);
}

int statedb_delete_container(struct statedb *db, const char *id, struct err *err)
{
	const struct sql_value v[] = { sql_text(id) };

	return change(db, "DELETE FROM containers WHERE id=?1", v, 1, NULL, NULL, err);
}

int statedb_written(struct statedb *db, wait_fn done, void *arg, struct err *err)
{
	return sqlfile_written(db->file, done, arg, err);
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
	sqlite3 *from = sqlfile_db(db->file);
	int r, rc = sqlite3_prepare_v2(from, sql, -1, &st, NULL);

	while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		const char *id = (const char *)sqlite3_column_text(st, 0);

		if (!row(st, l))
			log_limited(LOG_ERROR, "a damaged record is left out", "id", id ? id : "?",
				    "kind", kind);
		rc = SQLITE_OK;
	}
	r = rc == SQLITE_DONE ? 0 : sql_error(from, "read the records", err);
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
