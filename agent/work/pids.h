/*
 * The processes of a cgroup and of all below it, listed by a worker process: a container decides
 * how many there are, and the loop has others to serve. Loop thread only; embedded in its owner.
 */
#ifndef HUSK_AGENT_WORK_PIDS_H
#define HUSK_AGENT_WORK_PIDS_H

#include <stddef.h>
#include <sys/types.h>

#include "agent/proc/reap.h"
#include "agent/work/worker.h"
#include "base/compiler.h"
#include "base/err.h"

struct pids_answer;

struct pids {
	struct worker worker;
	int cgroup;
	struct pids_answer *answer; /* memory that the worker shares with us */
	void (*done)(struct pids *p, int r, const pid_t *list, size_t n, const struct err *err);
};

/* Lists those of the cgroup, in the caller's pid namespace. `done` comes once; its list and text
 * are valid inside. -E2BIG: more than AGENT_PIDS_MAX. The descriptor is borrowed for the call. */
int pids_start(struct reaper *r, struct pids *p, int cgroup,
	       void (*done)(struct pids *p, int r, const pid_t *list, size_t n,
			    const struct err *err),
	       struct err *err) must_check;

#endif
