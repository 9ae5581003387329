/*
 * All pods and containers (object.h) in memory, and behind it in the database, which a thread
 * writes in the order of the changes (statedb.h). Nothing here waits for anything; lists are O(n)
 * over memory. Loop's thread.
 */
#ifndef HUSK_CRI_STORE_STATE_H
#define HUSK_CRI_STORE_STATE_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/waits.h"
#include "cri/store/object.h"

#define STATE_PODS_MAX 4096
#define STATE_TEXT_MAX 4096 /* reason and message of an exit */

struct statedb;

struct state {
	struct pod_list pods;
	unsigned n_pods;
	struct statedb *db;
	struct huskd *huskd; /* for the objects; not looked into here */
};

/* Empty; db and huskd are borrowed. */
void state_init(struct state *s, struct statedb *db, struct huskd *huskd);
/* All records of the database into an empty state, oldest first. */
int state_load(struct state *s, struct err *err) must_check;
void state_fini(struct state *s); /* frees what is in the lists */

/* What a new container takes from its image; strings are copied. */
struct state_image {
	const char *id, *name, *ref; /* as in struct container */
};

/*
 * Adds a pod/container, with one reference for the list, state CREATING; in memory, soon in the
 * database.
 * Takes config over on success. -EEXIST: the name is taken (*ret_other = by whom, borrowed; may be
 * NULL). -ENOBUFS: too many.
 */
int state_add_pod(struct state *s, Cri__PodSandboxConfig *config, const char *handler,
		  struct pod **ret, struct pod **ret_other, struct err *err) must_check;
int state_add_container(struct state *s, struct pod *p, Cri__ContainerConfig *config,
			const struct state_image *image, struct container **ret,
			struct err *err) must_check;
/* Out of list and database; drops the list's reference. Containers of a pod go first. */
void state_remove_pod(struct state *s, struct pod *p);
void state_remove_container(struct state *s, struct container *c);
/* Writes what changed. A failure is logged, and returned where it comes at once; memory is right in
 * any case. */
int state_save_pod(struct state *s, struct pod *p, struct err *err);
int state_save_container(struct state *s, struct container *c, struct err *err);
/*
 * For an answer that promises: writes the object as if it were in this state. `done` comes with 0
 * when that is in the database, and its owner makes it true then (pod_state_set), if it still can
 * be; else saves the object once more.
 */
int state_commit_pod(struct state *s, struct pod *p, enum pod_state to, wait_fn done, void *arg,
		     struct err *err) must_check;
int state_commit_container(struct state *s, struct container *c, enum container_state to,
			   wait_fn done, void *arg, struct err *err) must_check;
/*
 * For an answer that tells what has become true: `done` comes when all changes before this call are
 * in the database; never from inside. A code says why they are not, yet: those that take away
 * may be answered all the same, for they are tried again until they are.
 */
int state_written(struct state *s, wait_fn done, void *arg, struct err *err) must_check;

/*
 * By id or unique prefix. Objects in state CREATING are not found. -ENOENT, -EINVAL (empty id, or a
 * prefix of several).
 */
int state_find_pod(struct state *s, const char *id, struct pod **ret, struct err *err) must_check;
int state_find_container(struct state *s, const char *id, struct container **ret,
			 struct err *err) must_check;

/* strdup of the first STATE_TEXT_MAX bytes as valid UTF-8; never NULL ("" without memory). */
char *state_text(const char *s);

#endif
