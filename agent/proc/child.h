/*
 * The child between clone and exec. It was born in the container's cgroup and pid namespace and
 * does the rest itself, stage by stage; every path of the image is resolved here, never by PID 1.
 * What fails is reported as (stage, errno, text) over a socket that exec closes (report.h).
 */
#ifndef HUSK_AGENT_PROC_CHILD_H
#define HUSK_AGENT_PROC_CHILD_H

#include <stdbool.h>

#include "proto/agent.pb-c.h"
#include "base/compiler.h"

/*
 * An exec gets a cgroup namespace of its own, with the container's root (nested: a UTS namespace,
 * a copy): what it starts inherits it, whatever session or parent it has, so all of an exec can
 * be found.
 */
struct child_job {
	const char *run_dir;
	const Agent__CreateContainerRequest *container;
	const Agent__Process *process;
	int init_pidfd; /* exec: of the container's first process; -1 = this is the first process */
	bool nested;	/* exec: born below the container's cgroup, not in it */
	bool waits;	/* before its exec, for report_let_go */
	int rootfs;	/* first process: the detached mount */
	int report;	/* socket, SOCK_SEQPACKET */
	int std[3];	/* -1 = /dev/null; all -1 with a terminal */
};

noreturn_fn void child_run(const struct child_job *job);

#endif
