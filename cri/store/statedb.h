/*
 * The database of huskd, <root>/husk.db: one row per pod and container, configurations as opaque
 * protobuf blobs. SQLite in WAL mode, so that a kill -9 at any point loses nothing that a
 * function here has returned 0 for. Loop's thread.
 */
#ifndef HUSK_CRI_STORE_STATEDB_H
#define HUSK_CRI_STORE_STATEDB_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "cri/store/object.h"

#define STATEDB_SCHEMA_VERSION 1
#define STATEDB_BLOB_MAX (16u << 20)

struct statedb;

/* Makes it when it is missing. -EPROTO: written by a newer huskd, or damaged. */
int statedb_open(const char *path, struct statedb **ret, struct err *err) must_check;
void statedb_close(struct statedb *db); /* NULL is fine */

int statedb_put_pod(struct statedb *db, const struct pod *p, struct err *err) must_check; /* new */
/* With this state, whichever the object has: it may be written before it is true. */
int statedb_update_pod(struct statedb *db, const struct pod *p, enum pod_state state,
		       struct err *err) must_check;
int statedb_delete_pod(struct statedb *db, const char *id, struct err *err) must_check;
int statedb_put_container(struct statedb *db, const struct container *c,
			  struct err *err) must_check;
int statedb_update_container(struct statedb *db, const struct container *c,
			     enum container_state state, struct err *err) must_check;
int statedb_delete_container(struct statedb *db, const char *id, struct err *err) must_check;

/*
 * Gives all records, pods before containers, oldest first. on_pod takes the object over. So does
 * on_container, unless it returns false: there is no such pod. A damaged record is logged and left
 * out.
 */
typedef void (*statedb_pod_fn)(void *arg, struct pod *p);
typedef bool (*statedb_container_fn)(void *arg, struct container *c, const char *pod_id);
int statedb_load(struct statedb *db, statedb_pod_fn on_pod, statedb_container_fn on_container,
		 void *arg, struct err *err) must_check;

#endif
