/*
 * The store's database: its shape, how it came to be so, and small helpers for the files of store/.
 * Loop thread only.
 */
#ifndef HUSK_IMAGE_STORE_DB_H
#define HUSK_IMAGE_STORE_DB_H

#include <sqlite3.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct store;

#define DB_FILE "images.db" /* in the directory of the store */

/* Opens the database and brings it to the shape of this version. -ENOTSUP: of a newer one. */
int db_setup(struct store *s, struct err *err) must_check;
/* A statement with text arguments; NULL ends them. */
int db_prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct err *err, ...)
	__attribute__((sentinel)) must_check;
/* Runs a statement that gives no rows, with arguments as of db_prepare. */
int db_run(struct store *s, struct err *err, const char *sql, ...)
	__attribute__((sentinel)) must_check;
/* Of the last call of SQLite: -ENOSPC, -ENOMEM, -EBUSY or -EIO. */
int db_error(struct store *s, struct err *err);
int db_begin(struct store *s, struct err *err) must_check;
/* Commits when r == 0, else undoes; returns r, or the failure of the commit. */
int db_end(struct store *s, int r, struct err *err) must_check;
/* All first columns of a query, as a string vector that the caller frees. */
int db_strings(struct store *s, char ***ret, struct err *err, const char *sql, ...)
	__attribute__((sentinel)) must_check;
/* Does the query give a row? 1, 0, or -errno. */
int db_exists(struct store *s, struct err *err, const char *sql, ...)
	__attribute__((sentinel)) must_check;
void stmt_freep(sqlite3_stmt **s);
#define cleanup_stmt cleanup_with(stmt_freep)

#endif
