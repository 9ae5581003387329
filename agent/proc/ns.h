/*
 * Pid namespaces. A child is born in the pid namespace that its parent has chosen beforehand; PID 1
 * chooses, clones and goes back within one function, on its only thread.
 */
#ifndef HUSK_AGENT_PROC_NS_H
#define HUSK_AGENT_PROC_NS_H

#include <stdint.h>
#include <sys/types.h>

#include "agent/proc/clone.h"
#include "agent/proc/reap.h"
#include "base/compiler.h"
#include "base/err.h"

struct pidns {
	struct reaper *reaper;
	const char *run_dir;
	int own; /* /proc/self/ns/pid */
	/* The namespace that the pod's containers share. Its init is a copy of the agent that gave
	 * away all it had and reaps. */
	int pod; /* -1 = no container has asked yet, or its init died */
	struct child pause;
};

/* reaper and run_dir are borrowed. Needs /proc. */
int ns_init(struct pidns *n, struct reaper *reaper, const char *run_dir,
	    struct err *err) must_check;
/* The pod's init is not waited for any more; it ends with the agent. */
void ns_fini(struct pidns *n);
/* The pod's namespace, made when the first container asks, and again after its init died. *ret_ns
 * is borrowed. */
int ns_pod_pid(struct pidns *n, int *ret_ns, struct err *err) must_check;
/* clone_process in the pid namespace `ns` (a namespace's descriptor or a pidfd; -1 = no other than
 * its flags say). */
pid_t ns_clone(struct pidns *n, int ns, const struct clone_job *job, int *ret_pidfd) must_check;

#endif
