/*
 * clone3 as the agent needs it: a copy of the calling process, with a pidfd, born in a cgroup.
 * Leaf function; the agent has one thread, so the child may go on with all that the parent had.
 */
#ifndef HUSK_AGENT_PROC_CLONE_H
#define HUSK_AGENT_PROC_CLONE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

/* flags: CLONE_NEWx. cgroup: descriptor of its directory, -1 = the caller's. ret_pidfd: may be
 * NULL; owned by the caller. The pid, 0 in the child, -errno. */
pid_t clone_process(uint64_t flags, int cgroup, int *ret_pidfd) must_check;

#endif
