/*
 * Work that may block for long (write back, unmount) in a process of its own, so that the loop goes
 * on. A copy of the agent that does one thing in the agent's own namespaces and ends.
 */
#ifndef HUSK_AGENT_WORK_WORKER_H
#define HUSK_AGENT_WORK_WORKER_H

#include "agent/proc/reap.h"
#include "base/compiler.h"

struct worker {
	struct child child;
	void (*done)(struct worker *w, int result);
};

/* Runs fn(arg) in a child, which keeps the descriptors of `keep` (clone.h) alone. `done` gets
 * what it returned, 0 or -errno (down to -255); -EIO: the child was killed. -errno: there is no
 * child. */
int worker_start(struct reaper *r, struct worker *w, int (*fn)(void *arg), void *arg,
		 const int *keep, size_t n_keep, void (*done)(struct worker *, int)) must_check;

#endif
