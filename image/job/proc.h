/*
 * Children of a pull. A child outlives its owner's interest: when the owner lets go, it is killed
 * and reaped later, without anybody waiting. Loop thread only.
 */
#ifndef HUSK_IMAGE_JOB_PROC_H
#define HUSK_IMAGE_JOB_PROC_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"

#define PROC_MAX_FDS 4

struct image_store;

struct proc {
	struct image_store *store;
	struct proc *next;
	struct ev_child child;
	/* NULL when the owner has let go. The proc is gone when it is called. */
	void (*on_exit)(void *owner, int status);
	void *owner;
};

/* Starts the worker with `args` (a mode and its options) and fds[i] as descriptor i. */
int proc_start(struct image_store *s, char *const *args, const int *fds, int n_fds,
	       void (*on_exit)(void *owner, int status), void *owner, struct proc **ret,
	       struct err *err) must_check;
/* Kills it; on_exit will not be called. NULL is fine. */
void proc_drop(struct proc *p);
/* Kills and reaps all children of a store; waits for them. */
void procs_close(struct image_store *s);

#endif
