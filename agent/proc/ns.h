/*
 * Pid namespaces. A child is born in the pid namespace that its parent has chosen beforehand; PID 1
 * chooses, clones and goes back within one function, on its only thread.
 */
#ifndef HUSK_AGENT_PROC_NS_H
#define HUSK_AGENT_PROC_NS_H

#include <sys/types.h>

#include "agent/agent.h"
#include "base/compiler.h"
#include "base/err.h"

/* The pid namespace that the pod's containers share. Its init is a copy of the agent that gave away
 * all it had and reaps; made when the first container asks. -EBUSY: it died. */
int ns_pod_pid(struct agent *a, int *ret_ns, struct err *err) must_check;
/* clone_process in the pid namespace `ns` (a namespace's descriptor or a pidfd; -1 = no other than
 * flags say). */
pid_t ns_clone(struct agent *a, int ns, uint64_t flags, int cgroup, int *ret_pidfd) must_check;

#endif
