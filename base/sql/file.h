/*
 * A database file of SQLite whose owner never waits for its disk. Opening reads it on the loop;
 * from then on a thread has the connection and writes the transactions that it is given, in order.
 * Who wants to read later keeps what it needs in memory (sqlfile_db). Loop's thread.
 *
 * What is in the file is at any moment the beginning of what was written here, whole transactions.
 * One that cannot be written for a reason that may pass (a full disk, a failing one) keeps its
 * place, and those behind it theirs: all are tried again with each new one, and every second. One
 * that the database refuses is dropped, and its `done` says why.
 *
 * Survives a kill -9: a transaction whose `done` came with 0. A loss of power: after a sqlfile_sync
 * (journal in WAL mode, synchronous=NORMAL).
 */
#ifndef HUSK_BASE_SQL_FILE_H
#define HUSK_BASE_SQL_FILE_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/waits.h"

struct loop;
struct sqlfile;

/* ---- transactions ---- */

struct sql_value {
	enum { SQL_NULL, SQL_INT, SQL_TEXT, SQL_BLOB } type;
	int64_t n;	  /* SQL_INT */
	const void *data; /* of the others; of SQL_BLOB `len` bytes */
	size_t len;
};

static inline struct sql_value sql_int(int64_t n)
{
	return (struct sql_value){ .type = SQL_INT, .n = n };
}

/* NULL is NULL. */
static inline struct sql_value sql_text(const char *s)
{
	return (struct sql_value){ .type = s ? SQL_TEXT : SQL_NULL, .data = s };
}

static inline struct sql_value sql_blob(const void *data, size_t len)
{
	return (struct sql_value){ .type = SQL_BLOB, .data = data, .len = len };
}

/* ?1, ?2, ... SQLITE_OK or its code; the values must stay as long as the statement has them. */
int sql_bind(sqlite3_stmt *st, const struct sql_value *v, size_t n) must_check;

struct sql_tx;
struct sql_tx *sql_tx_new(void);    /* NULL: out of memory */
void sql_tx_free(struct sql_tx *t); /* NULL is fine */
void sql_tx_freep(struct sql_tx **t);
#define cleanup_sql_tx cleanup_with(sql_tx_freep)
/* One more statement; values are copied, `sql` must stay (a literal). -ENOMEM. */
int sql_tx_add(struct sql_tx *t, const char *sql, const struct sql_value *v, size_t n) must_check;
/* The directory is synced before the transaction is written; path is copied. -ENOMEM. */
int sql_tx_sync_dir(struct sql_tx *t, const char *path) must_check;

/* ---- the file ---- */

/*
 * Opens the file, made with mode 0600 when it is missing, and brings it to the shape of this
 * version: step k, which is never edited once released, from user_version k to k + 1. -EPROTO: it
 * is damaged; -ENOTSUP: of a newer version. Blocks.
 */
int sqlfile_open(struct loop *l, const char *path, const char *const *steps, size_t n_steps,
		 struct sqlfile **ret, struct err *err) must_check;
/* Waits until all is written, or has failed once more. Each `done` still comes. NULL is fine. */
void sqlfile_close(struct sqlfile *f);
/* The connection, to read by; for as long as nothing was written. */
sqlite3 *sqlfile_db(struct sqlfile *f);

/*
 * Takes t over. `done` (may be NULL) comes on the loop, never from inside: 0, or why it is not in
 * the file (yet).
 */
void sqlfile_write(struct sqlfile *f, struct sql_tx *t, wait_fn done, void *arg);
/* `done` comes when what was given to sqlfile_write before is in the file, or cannot be. */
int sqlfile_written(struct sqlfile *f, wait_fn done, void *arg, struct err *err) must_check;
/* As above, and survives a loss of power. */
int sqlfile_sync(struct sqlfile *f, wait_fn done, void *arg, struct err *err) must_check;
/* Why the file lags behind; 0: it does not. Who would add something new had better not. */
int sqlfile_failing(const struct sqlfile *f, struct err *err) must_check;

/* The last error of a connection: "what: its text". -ENOSPC, -ENOMEM, -EBUSY, -EEXIST (a
 * constraint), -EPROTO (damaged), -EIO. */
int sql_error(sqlite3 *db, const char *what, struct err *err);

#endif
