/*
 * Work that may block for long (write back, unmount) in a process of its own, so that the loop goes
 * on. A copy of the agent that does one thing in the agent's own namespaces and ends.
 */
#ifndef HUSK_AGENT_WORKER_H
#define HUSK_AGENT_WORKER_H

#include <stdint.h>
#include <sys/types.h>

#include "agent/reap.h"
#include "base/compiler.h"

struct worker {
	struct child child;
	void (*done)(struct worker *w, int result);
};

/* Runs fn(arg) in a child; `done` gets what it returned: 0 or -errno. */
int worker_start(struct reaper *r, struct worker *w, int (*fn)(void *arg), void *arg,
		 void (*done)(struct worker *, int)) must_check;
/* clone3 with the flags of clone_args; pidfd and cgroup are optional (NULL, -1). 0 in the child. */
pid_t clone_process(uint64_t flags, int cgroup, int *ret_pidfd);

#endif
