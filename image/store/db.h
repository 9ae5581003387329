/*
 * The store's database: its shape, how it came to be so, and small helpers for the files of store/.
 * Loop thread only.
 *
 * It is in memory, where it is read and changed without waiting for anything. Each transaction also
 * goes to the file, by a thread and in order (base/sql/file.h): the file is at any moment what the
 * memory was a moment ago. So statements depend on rows and arguments only: no time, no random().
 */
#ifndef HUSK_IMAGE_STORE_DB_H
#define HUSK_IMAGE_STORE_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/sql/file.h"

struct store;

#define DB_FILE "images.db" /* in the directory of the store */

/* Opens the database and brings it to the shape of this version. -ENOTSUP: of a newer one. */
int db_open(struct store *s, struct err *err) must_check;
/* Waits until the file has it all. */
void db_close(struct store *s);
/* A query with text arguments, which must stay as long as it; NULL ends them. */
int db_prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct err *err, ...)
	__attribute__((sentinel)) must_check;
/* Changes rows, with arguments as of db_prepare; `sql` is a literal. */
int db_run(struct store *s, struct err *err, const char *sql, ...)
	__attribute__((sentinel)) must_check;
int db_write(struct store *s, const char *sql, const struct sql_value *v, size_t n,
	     struct err *err) must_check;
/* Of the last call of SQLite: sql_error. */
int db_error(struct store *s, struct err *err);
int db_begin(struct store *s, struct err *err) must_check;
/* Commits when r == 0, else undoes; returns r, or the failure of the commit. */
int db_end(struct store *s, int r, struct err *err) must_check;
/* In a transaction: it is not in the file before the directory is on the disk. */
int db_sync_dir_before(struct store *s, const char *path, struct err *err) must_check;
/* 0; or why the file cannot be written at present, so that nothing new should be added. */
int db_may_grow(const struct store *s, struct err *err) must_check;
/* All first columns of a query, as a string vector that the caller frees. */
int db_strings(struct store *s, char ***ret, struct err *err, const char *sql, ...)
	__attribute__((sentinel)) must_check;
/* Does the query give a row? 1, 0, or -errno. */
int db_exists(struct store *s, struct err *err, const char *sql, ...)
	__attribute__((sentinel)) must_check;
/* sqlfile_written of the store's file. */
int db_written(struct store *s, wait_fn done, void *arg, struct err *err) must_check;
void stmt_freep(sqlite3_stmt **s);
#define cleanup_stmt cleanup_with(stmt_freep)

#endif
