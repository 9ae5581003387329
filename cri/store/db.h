/*
 * The database of huskd, <root>/husk.db: one row per pod and container, configurations as opaque
 * protobuf blobs. SQLite in WAL mode, so that a kill -9 at any point loses nothing that a
 * function here has returned 0 for. Loop's thread.
 */
#ifndef HUSK_CRI_STORE_DB_H
#define HUSK_CRI_STORE_DB_H

#include "base/compiler.h"
#include "base/err.h"

#define DB_SCHEMA_VERSION 1
#define DB_BLOB_MAX (16u << 20)

struct db;
struct huskd;
struct pod;
struct container;
struct state;

/* Makes it when it is missing. -EPROTO: written by a newer huskd, or damaged. */
int db_open(const char *path, struct db **ret, struct err *err) must_check;
void db_close(struct db *db); /* NULL is fine */

int db_put_pod(struct db *db, const struct pod *p, struct err *err) must_check; /* new */
int db_update_pod(struct db *db, const struct pod *p, struct err *err) must_check;
int db_delete_pod(struct db *db, const char *id, struct err *err) must_check;
int db_put_container(struct db *db, const struct container *c, struct err *err) must_check;
int db_update_container(struct db *db, const struct container *c, struct err *err) must_check;
int db_delete_container(struct db *db, const char *id, struct err *err) must_check;
/* All records into an empty state, oldest first. A damaged record is logged and dropped. */
int db_load(struct db *db, struct huskd *d, struct state *s, struct err *err) must_check;

#endif
