#include "base/sql/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/thread/work.h"
#include "base/util.h"

#define BUSY_MS 2000 /* somebody looks at the file with a tool */
#define AGAIN_NS NS_PER_S

struct statement {
	struct statement *next;
	const char *sql;
	size_t n;
	struct sql_value values[]; /* and their bytes behind */
};

/* What the thread is asked for. */
struct request {
	struct work_job job;
	struct sqlfile *f;
	struct sql_tx *tx; /* NULL: none of its own */
	bool sync;
	int stuck; /* out: why the file lags behind */
	wait_fn done;
	void *arg;
};

struct sql_tx {
	struct sql_tx *next;
	struct statement *first, **last;
	char *dir;		 /* synced before; may be NULL */
	struct request *request; /* until it is given to the thread, so that this cannot fail */
};

struct sqlfile {
	struct loop *loop;
	char *path, *wal;
	struct work *work;
	/* The thread's. */
	sqlite3 *db;
	struct sql_tx *owed, **owed_last; /* not in the file yet */
	/* The loop's. */
	struct err why; /* code 0: nothing is owed as far as we know */
	struct ev_timer again;
};

/* ---- errors ---- */

/* Will it be the same the next time? */
static bool refused(int code)
{
	switch (code & 0xff) {
	case SQLITE_CONSTRAINT:
	case SQLITE_ERROR:
	case SQLITE_MISMATCH:
	case SQLITE_TOOBIG:
	case SQLITE_RANGE:
	case SQLITE_MISUSE:
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return true;
	default:
		return false;
	}
}

int sql_error(sqlite3 *db, const char *what, struct err *err)
{
	int code = -EIO;

	if (!db)
		return err_nomem(err);
	switch (sqlite3_errcode(db) & 0xff) {
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
	default:
		break;
	}
	return err_set(err, code, "%s: %s", what, sqlite3_errmsg(db));
}

/* ---- transactions ---- */

int sql_bind(sqlite3_stmt *st, const struct sql_value *v, size_t n)
{
	int c = SQLITE_OK;

	for (int k = 0; c == SQLITE_OK && (size_t)k < n; k++) {
		switch (v[k].type) {
		case SQL_INT:
			c = sqlite3_bind_int64(st, k + 1, v[k].n);
			break;
		case SQL_TEXT:
			c = sqlite3_bind_text(st, k + 1, v[k].data, -1, SQLITE_STATIC);
			break;
		case SQL_BLOB:
			c = sqlite3_bind_blob64(st, k + 1, v[k].data, v[k].len, SQLITE_STATIC);
			break;
		case SQL_NULL:
			c = sqlite3_bind_null(st, k + 1);
			break;
		}
	}
	return c;
}

struct sql_tx *sql_tx_new(void)
{
	struct sql_tx *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->last = &t->first;
	t->request = calloc(1, sizeof(*t->request));
	if (t->request)
		return t;
	free(t);
	return NULL;
}

void sql_tx_free(struct sql_tx *t)
{
	struct statement *s;

	if (!t)
		return;
	while ((s = t->first)) {
		t->first = s->next;
		free(s);
	}
	free(t->request);
	free(t->dir);
	free(t);
}

void sql_tx_freep(struct sql_tx **t)
{
	sql_tx_free(*t);
}

static size_t bytes_of(const struct sql_value *v)
{
	return v->type == SQL_TEXT ? strlen(v->data) + 1 : v->type == SQL_BLOB ? v->len : 0;
}

int sql_tx_add(struct sql_tx *t, const char *sql, const struct sql_value *v, size_t n)
{
	size_t len = sizeof(struct statement) + n * sizeof(*v);
	struct statement *s;
	char *bytes;

	for (size_t k = 0; k < n; k++)
		len += bytes_of(&v[k]);
	s = malloc(len);
	if (!s)
		return -ENOMEM;
	s->next = NULL;
	s->sql = sql;
	s->n = n;
	bytes = (char *)&s->values[n];
	for (size_t k = 0; k < n; k++) {
		size_t size = bytes_of(&v[k]);

		s->values[k] = v[k];
		if (v[k].type != SQL_TEXT && v[k].type != SQL_BLOB)
			continue;
		s->values[k].data = bytes;
		if (size)
			memcpy(bytes, v[k].data, size);
		bytes += size;
	}
	*t->last = s;
	t->last = &s->next;
	return 0;
}

int sql_tx_sync_dir(struct sql_tx *t, const char *path)
{
	free(t->dir);
	t->dir = strdup(path);
	return t->dir ? 0 : -ENOMEM;
}

/* ---- in the thread ---- */

static int sync_path(const char *path, int flags, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | flags);
	int r;

	if (fd < 0)
		return err_errno(err, -errno, "sync %s", path);
	r = flags & O_DIRECTORY ? fsync(fd) : fdatasync(fd);
	return r < 0 ? err_errno(err, -errno, "sync %s", path) : 0;
}

static int run_statement(sqlite3 *db, const struct statement *s)
{
	sqlite3_stmt *st = NULL;
	int c = sqlite3_prepare_v2(db, s->sql, -1, &st, NULL);

	if (c == SQLITE_OK)
		c = sql_bind(st, s->values, s->n);
	if (c == SQLITE_OK) {
		while ((c = sqlite3_step(st)) == SQLITE_ROW)
			;
		if (c == SQLITE_DONE)
			c = SQLITE_OK;
	}
	(void)sqlite3_finalize(st); /* its code is that of the step */
	return c;
}

/* *ret_refused: it makes no sense to try again. */
static int apply(struct sqlfile *f, const struct sql_tx *t, bool *ret_refused, struct err *err)
{
	int r, c;

	*ret_refused = false;
	r = t->dir ? sync_path(t->dir, O_DIRECTORY, err) : 0;
	if (r < 0)
		return r;
	c = sqlite3_exec(f->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	for (const struct statement *s = t->first; c == SQLITE_OK && s; s = s->next)
		c = run_statement(f->db, s);
	if (c == SQLITE_OK)
		c = sqlite3_exec(f->db, "COMMIT", NULL, NULL, NULL);
	if (c == SQLITE_OK)
		return 0;
	*ret_refused = refused(c);
	r = sql_error(f->db, f->path, err);
	(void)sqlite3_exec(f->db, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

static void drop_first_owed(struct sqlfile *f)
{
	struct sql_tx *t = f->owed;

	f->owed = t->next;
	if (!f->owed)
		f->owed_last = &f->owed;
	sql_tx_free(t);
}

/* The result of the last one. *ret_stuck: nothing behind this failure could be tried. */
static int write_owed(struct sqlfile *f, int *ret_stuck, struct err *err)
{
	bool no;
	int r = 0;

	*ret_stuck = 0;
	while (f->owed) {
		r = apply(f, f->owed, &no, err);
		if (r < 0 && !no) {
			*ret_stuck = r;
			return r;
		}
		drop_first_owed(f);
	}
	return r;
}

/*
 * A sync of the journal by anybody makes last what SQLite has written to it without waiting. It has
 * no locks on it that our close would drop (those are on the -shm file). Without a journal
 * everything is in the database already.
 */
static int sync_journal(const struct sqlfile *f, struct err *err)
{
	int r = sync_path(f->wal, 0, err);

	return r == -ENOENT ? 0 : r;
}

static int sqlfile_work(struct work_job *j, struct err *err)
{
	struct request *q = container_of(j, struct request, job);
	struct sqlfile *f = q->f;
	int r;

	if (q->tx) {
		*f->owed_last = q->tx;
		f->owed_last = &q->tx->next;
		q->tx = NULL;
	}
	r = write_owed(f, &q->stuck, err);
	return r == 0 && q->sync ? sync_journal(f, err) : r;
}

/* ---- on the loop ---- */

static void sqlfile_on_again(struct ev_timer *t)
{
	struct sqlfile *f = t->arg;

	/* Without memory nothing is asked; the next transaction does it. */
	(void)!sqlfile_written(f, NULL, NULL, NULL);
}

static void note_end(struct sqlfile *f, int stuck, const struct err *why)
{
	if (stuck == 0 && f->why.code < 0)
		log_info("a database is written again", "path", f->path);
	if (stuck < 0 && f->why.code == 0)
		log_error("a database cannot be written; it is tried again", "path", f->path, "err",
			  err_text(why));
	f->why = (struct err){ 0 };
	if (stuck == 0)
		return;
	f->why = *why;
	f->why.code = stuck;
	if (f->work)
		(void)!ev_timer_add(f->loop, &f->again, AGAIN_NS, sqlfile_on_again, f);
}

static void sqlfile_work_done(struct work_job *j, int code, const struct err *err)
{
	struct request *q = container_of(j, struct request, job);
	struct err copy = { 0 };

	if (code < 0)
		copy = *err;
	note_end(q->f, q->stuck, &copy);
	if (q->done)
		q->done(q->arg, code, &copy);
	else if (code < 0 && q->stuck == 0)
		log_limited(LOG_ERROR, "a database refused a change", "err", err_text(&copy));
	free(q);
}

static void ask(struct sqlfile *f, struct request *q, wait_fn done, void *arg)
{
	q->f = f;
	q->done = done;
	q->arg = arg;
	q->job.work = sqlfile_work;
	q->job.done = sqlfile_work_done;
	work_add(f->work, &q->job);
}

void sqlfile_write(struct sqlfile *f, struct sql_tx *t, wait_fn done, void *arg)
{
	struct request *q = take_ptr(&t->request);

	check(q && !t->next);
	q->tx = t;
	ask(f, q, done, arg);
}

static int ask_for(struct sqlfile *f, bool sync, wait_fn done, void *arg, struct err *err)
{
	struct request *q = calloc(1, sizeof(*q));

	if (!q)
		return err_nomem(err);
	q->sync = sync;
	ask(f, q, done, arg);
	return 0;
}

int sqlfile_written(struct sqlfile *f, wait_fn done, void *arg, struct err *err)
{
	return ask_for(f, false, done, arg, err);
}

int sqlfile_sync(struct sqlfile *f, wait_fn done, void *arg, struct err *err)
{
	return ask_for(f, true, done, arg, err);
}

int sqlfile_failing(const struct sqlfile *f, struct err *err)
{
	return f->why.code < 0 ? err_set(err, f->why.code, "%s", err_text(&f->why)) : 0;
}

/* ---- its life ---- */

sqlite3 *sqlfile_db(struct sqlfile *f)
{
	return f->db;
}

static int run(struct sqlfile *f, const char *sql, const char *what, struct err *err)
{
	return sqlite3_exec(f->db, sql, NULL, NULL, NULL) == SQLITE_OK
		       ? 0
		       : sql_error(f->db, what, err);
}

static int version(struct sqlfile *f, int *ret, struct err *err)
{
	sqlite3_stmt *st = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(f->db, "PRAGMA user_version", -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW)
		*ret = sqlite3_column_int(st, 0);
	else
		r = sql_error(f->db, "read the schema version", err);
	(void)sqlite3_finalize(st);
	return r;
}

static int migrate(struct sqlfile *f, const char *const *steps, size_t n, struct err *err)
{
	char mark[48];
	int at = 0, r = version(f, &at, err);

	if (r == 0 && (at < 0 || (size_t)at > n))
		return err_set(err, -ENOTSUP,
			       "has schema version %d, made by a newer version of huskd (this one "
			       "knows %zu)",
			       at, n);
	for (size_t k = (size_t)at; k < n && r == 0; k++) {
		(void)snprintf(mark, sizeof(mark), "PRAGMA user_version=%zu", k + 1);
		r = run(f, "BEGIN IMMEDIATE", "begin a transaction", err);
		if (r == 0)
			r = run(f, steps[k], "make the tables", err);
		if (r == 0)
			r = run(f, mark, "mark the tables", err);
		if (r == 0)
			r = run(f, "COMMIT", "commit the tables", err);
	}
	return r;
}

/* A full disk must not keep what is on it from being removed. The journal is kept at the end, too,
 * with its blocks; where they cannot be had, removal may have to wait as any write. */
static void reserve(struct sqlfile *f)
{
	struct statvfs st;
	bool small = statvfs(f->path, &st) == 0 &&
		     (uint64_t)st.f_blocks * st.f_frsize < 8 * DB_WAL_RESERVE;
	int on = !small && file_reserve(f->wal, DB_WAL_RESERVE) == 0;

	/* One without them is no reserve: on so small a disk it would only take room. */
	(void)sqlite3_file_control(f->db, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
}

static int open_file(struct sqlfile *f, const char *const *steps, size_t n, struct err *err)
{
	cleanup_fd int fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return err_errno(err, -errno, "open it");
	fd_close(&fd); /* before SQLite opens it: closing drops a process's locks */
	/* NOMUTEX: the thread has it alone once it runs. */
	if (sqlite3_open_v2(f->path, &f->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
	    SQLITE_OK)
		return sql_error(f->db, "open it", err);
	(void)sqlite3_busy_timeout(f->db, BUSY_MS);
	r = run(f, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
		"choose the journal", err);
	if (r < 0)
		return r;
	reserve(f);
	return migrate(f, steps, n, err);
}

int sqlfile_open(struct loop *l, const char *path, const char *const *steps, size_t n_steps,
		 struct sqlfile **ret, struct err *err)
{
	struct sqlfile *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_nomem(err);
	f->loop = l;
	f->owed_last = &f->owed;
	f->path = strdup(path);
	f->wal = str_fmt("%s-wal", path);
	r = f->path && f->wal ? open_file(f, steps, n_steps, err) : err_nomem(err);
	if (r == 0)
		r = work_new(l, &f->work, err);
	if (r < 0) {
		sqlfile_close(f);
		return err_wrap(err, r, "database %s", path);
	}
	*ret = f;
	return 0;
}

void sqlfile_close(struct sqlfile *f)
{
	struct err err = { 0 };
	int stuck = 0;

	if (!f)
		return;
	work_free(f->work); /* whose last jobs may bring more */
	f->work = NULL;
	ev_timer_del(&f->again);
	if (write_owed(f, &stuck, &err) < 0)
		log_error("the last changes of a database are lost", "path", f->path, "err",
			  err_text(&err));
	while (f->owed)
		drop_first_owed(f);
	(void)sqlite3_close(f->db);
	free(f->path);
	free(f->wal);
	free(f);
}
