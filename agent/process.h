/*
 * A process that the host asked for: a container's first one, or an exec. From clone to its exit:
 * its streams are claimed, its start is answered once, its owner learns of its end. What the
 * container is, process.c learns from the job alone. Loop thread only.
 */
#ifndef HUSK_AGENT_PROCESS_H
#define HUSK_AGENT_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/agent.h"
#include "agent/limits.h"
#include "agent/proc/reap.h"
#include "agent/proc/report.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/agent.pb-c.h"

struct process;

struct process_ops {
	/* A first process whose container has a limit of CPU time: no instruction of the program
	 * has run, and none does until this has set the limit. -errno: the start fails. */
	int (*limit)(struct process *p, struct err *err);
	/* The program runs; the answer to the start goes out next. Not called when it failed. */
	void (*running)(struct process *p);
	/* It has ended and its start is answered. The last call; the owner frees it, now or
	 * later. */
	void (*gone)(struct process *p);
};

/* Lives until it is gone and its start was answered; its streams live on by themselves. */
struct process {
	struct process *next; /* the owner's */
	struct agent *agent;
	void *owner;
	const struct process_ops *ops;
	char exec_id[CONTAINER_ID_MAX + 1]; /* "" = the container's first */
	pid_t pid;
	int pidfd;
	const char
		*tag; /* exec: the namespace that all it starts share, and nobody else (child.h) */
	int tty;      /* terminal's master, -1 = none (yet) */
	uint64_t want[3];    /* ids of its streams, 0 = /dev/null */
	uint64_t claimed[3]; /* those that are its own already */
	uint64_t oom_kills;  /* the owner's: of the container when it started */
	struct child child;
	struct ev_io report_io;
	struct ev_timer start_timer; /* until the program runs */
	uint64_t started_ns;
	int report_fd;		  /* -1 = the child has said all */
	bool limited;		  /* it gets a limit behind its exec */
	bool waits;		  /* before its exec, for a limit or until its terminal is ours */
	bool held;		  /* behind its exec, for its limit */
	struct report failure;	  /* kind 0 = none */
	struct ttrpc_call *start; /* to be answered; NULL = done */
	bool exited;
	unsigned exit_status;
	int64_t exited_at_ns;
};

/* What a process is started from. All is borrowed for the call, but agent and owner. */
struct process_job {
	struct agent *agent;
	void *owner; /* also of its streams (stdio_drop) */
	const struct process_ops *ops;
	const char *exec_id;
	const Agent__CreateContainerRequest *container;
	const Agent__Process *spec;
	int cgroup;
	int rootfs; /* first process: the container's detached root mount; else -1 */
	const struct process *first; /* exec: whose namespaces it joins; else NULL */
};

/* Starts it; `call` is answered when the outcome is known. The caller owns *ret. On failure the
 * call is still the caller's. */
int process_start(const struct process_job *job, struct ttrpc_call *call, struct process **ret,
		  struct err *err) must_check;
/* NULL is fine. A start that was not answered is cancelled. */
void process_free(struct process *p);
/* -ENOENT: it has ended. */
int process_signal(const struct process *p, int sig, struct err *err) must_check;
/* -EINVAL: too large for a terminal; -EBUSY: it has none. */
int process_resize(const struct process *p, uint32_t width, uint32_t height,
		   struct err *err) must_check;

#endif
