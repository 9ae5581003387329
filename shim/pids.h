/*
 * The record of a pod's processes on the host, kept in the bundle for `delete`, which must end what
 * a killed shim may have left: "<name> <pid> <start time>" a line. The start time (field 22 of
 * /proc/PID/stat) tells a process from a later one with its number. Any thread.
 */
#ifndef HUSK_SHIM_PIDS_H
#define HUSK_SHIM_PIDS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define PIDS_FILE "husk.pids"
#define PIDS_LOCK "husk.lock"
#define CGROUP_FILE "husk.cgroup" /* beside it: the path of the pod's cgroup */
#define PIDS_MAX 8
#define PIDS_LOCK_MS 3000 /* containerd gives the whole of `delete` 5 s */

struct pid_entry {
	const char *name; /* letters only */
	pid_t pid;	  /* 0 = none, left out */
	uint64_t start;	  /* 0 = to be looked up: of ourselves, or a child that is not reaped */
};

/* When `pid` was started. -ESRCH: there is none, or it is no child of `parent`: whatever somebody
 * less trusted than we are says about a process is looked at before it is used. */
int pids_start_time(pid_t pid, pid_t parent, uint64_t *ret) must_check;
/* oom_score_adj of a child of `parent` that was started then, and of no other process. */
int pids_set_oom_score(pid_t pid, pid_t parent, uint64_t start, int score) must_check;

/* Writes the record; processes that are gone already are left out. */
int pids_write(const char *bundle, const struct pid_entry *list, size_t n,
	       struct err *err) must_check;
/* SIGKILLs every recorded process that is still the same one, and waits until it is gone, all in
 * all at most timeout_ms. How many were alive, or -errno (-ETIMEDOUT: some still are). No file = 0.
 */
int pids_kill(const char *bundle, int timeout_ms, struct err *err) must_check;

/*
 * Keeps `start` and `delete` of one bundle apart, also when whoever ran them is dead and somebody
 * else cleans up: `start` takes the lock and hands the descriptor on to the daemon, which closes it
 * when its record is written. So a `delete` that has the lock sees every daemon that there is, and
 * it marks the bundle: a `start` that comes late gives up. The lock goes with the last descriptor.
 * Uses SIGALRM: only in programs with one thread. -ETIMEDOUT after PIDS_LOCK_MS.
 */
int pids_lock(const char *bundle, int *ret_fd, struct err *err) must_check;
/* For `start`: -ESTALE when the bundle was deleted. */
int pids_lock_check(int fd, struct err *err) must_check;
/* For `delete`: no `start` in this bundle from here on. */
int pids_lock_mark(int fd, struct err *err) must_check;

#endif
