/*
 * The worker processes of one store. A child outlives its owner's interest: when the owner lets go,
 * it is killed, and reaped later without anybody waiting. Loop thread only.
 */
#ifndef HUSK_IMAGE_JOB_PROC_H
#define HUSK_IMAGE_JOB_PROC_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"

#define PROC_MAX_ARGS 8 /* without the program's name */

/* Users of workers, where the options name none. 0x70000000 is beyond what distributions give to
 * users, to services, and to containers (subuid). */
#define PROC_UID_FIRST 1879048192u
#define PROC_UIDS 4096u

struct proc;

struct procs {
	struct loop *loop; /* borrowed */
	char *worker;	   /* path of husk-image-worker */
	struct proc *list; /* children not reaped yet, also those that were let go */
	uint32_t uid_first, uids, uid_next; /* of children; uids 0 = "nobody" for all */
};

/* worker: NULL = the one in the directory of the running program. */
int procs_init(struct procs *ps, struct loop *loop, const char *worker, struct err *err) must_check;
/* From now on each child has a uid that none of the others has, of `n` from `first` on. -EINVAL:
 * one of them is a user of this host. Where a user namespace does not have
 * them all stay "nobody", and the log says so. -EAGAIN (proc_start): more children than uids. */
int procs_set_uids(struct procs *ps, uint32_t first, uint32_t n, struct err *err) must_check;
/* Kills all children and waits for them. Fine for what procs_init has failed on or has not seen. */
void procs_close(struct procs *ps);

/* Starts the worker with `args` (a mode and its options, NULL at the end; the mode is a literal)
 * and fds[i] as descriptor i, but for 2: what it says there goes to the log, marked and limited.
 * `on_exit`, unless proc_drop was called: it has ended, and *ret is gone. */
int proc_start(struct procs *ps, char *const *args, const int *fds, int n_fds,
	       void (*on_exit)(void *owner, int status), void *owner, struct proc **ret,
	       struct err *err) must_check;
/* Kills it; on_exit will not be called. NULL is fine. */
void proc_drop(struct proc *p);

/* ---- what owners say of a process, for users ---- */

/* It ended before it had said all; returns `code`. */
int proc_err_died(const char *mode, int code, struct err *err);
/* Reading from it failed with `why`; returns `code`. */
int proc_err_lost(const char *mode, int why, int code, struct err *err);
/* It broke its protocol, as `err` has it; returns -EPROTO. */
int proc_err_protocol(const char *mode, struct err *err);

#endif
