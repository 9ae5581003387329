/*
 * The database of huskd, <root>/husk.db: one row per pod and container, configurations as opaque
 * protobuf blobs. A thread writes it (base/sql/file.h), so that no disk holds the loop, in the
 * order of the calls here: what they return is only that it will. `done` (may be NULL) comes when
 * the row is where a kill -9 does not reach it; or why it is not, yet. Loop's thread.
 */
#ifndef HUSK_CRI_STORE_STATEDB_H
#define HUSK_CRI_STORE_STATEDB_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/waits.h"
#include "cri/store/object.h"

#define STATEDB_BLOB_MAX (16u << 20)

struct loop;
struct statedb;

/* Makes it when it is missing. -ENOTSUP: written by a newer huskd; -EPROTO: damaged. */
int statedb_open(struct loop *l, const char *path, struct statedb **ret,
		 struct err *err) must_check;
/* Waits until all is written, or has failed once more. NULL is fine. */
void statedb_close(struct statedb *db);

/* A new one. Refused with the error of the disk while that cannot be written. */
int statedb_put_pod(struct statedb *db, const struct pod *p, struct err *err) must_check;
/* With this state, whichever the object has: it may be written before it is true. */
int statedb_update_pod(struct statedb *db, const struct pod *p, enum pod_state state, wait_fn done,
		       void *arg, struct err *err) must_check;
int statedb_delete_pod(struct statedb *db, const char *id, struct err *err) must_check;
int statedb_put_container(struct statedb *db, const struct container *c,
			  struct err *err) must_check;
int statedb_update_container(struct statedb *db, const struct container *c,
			     enum container_state state, wait_fn done, void *arg,
			     struct err *err) must_check;
int statedb_delete_container(struct statedb *db, const char *id, struct err *err) must_check;
/* `done` comes when all calls before this one have come to their end. */
int statedb_written(struct statedb *db, wait_fn done, void *arg, struct err *err) must_check;

/*
 * Before anything is written: gives all records, pods before containers, oldest first. on_pod takes
 * the object over. So does on_container, unless it returns false: there is no such pod. A damaged
 * record is logged and left out.
 */
typedef void (*statedb_pod_fn)(void *arg, struct pod *p);
typedef bool (*statedb_container_fn)(void *arg, struct container *c, const char *pod_id);
int statedb_load(struct statedb *db, statedb_pod_fn on_pod, statedb_container_fn on_container,
		 void *arg, struct err *err) must_check;

#endif
