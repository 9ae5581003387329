/*
 * The one way in which the agent makes processes: clone3 of the calling process, with a pidfd,
 * born in a cgroup. A copy of PID 1 would hold the channel to the host and the pipes of all
 * containers open for as long as it lives (no end of file, no EPIPE for anybody): so it keeps 0,
 * 1, 2 and what it is given, nothing else. Leaf function; the agent has one thread, so the child
 * may go on with all that the parent had.
 */
#ifndef HUSK_AGENT_PROC_CLONE_H
#define HUSK_AGENT_PROC_CLONE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

#define CLONE_KEEP_MAX 16u

struct clone_job {
	uint64_t flags;	 /* CLONE_NEWx */
	int cgroup;	 /* descriptor of its directory, -1 = the caller's */
	const int *keep; /* descriptors that the child keeps, CLONE_KEEP_MAX at most; < 3: none */
	size_t n_keep;
};

/* ret_pidfd: may be NULL; owned by the caller. The pid, 0 in the child, -errno. */
pid_t clone_process(const struct clone_job *job, int *ret_pidfd) must_check;

#endif
