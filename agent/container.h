/*
 * Containers and their processes. Loop thread only.
 *
 *	CREATED -> STARTING -> RUNNING -> STOPPED -> REMOVING -> gone
 * CREATED, STOPPED: may be removed. RUNNING: takes execs, signals. A start that fails = STOPPED, with no
 * exit event: the answer to the start says it all.
 */
#ifndef HUSK_AGENT_CONTAINER_H
#define HUSK_AGENT_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/agent.h"
#include "proto/agent.pb-c.h"
#include "agent/proc/report.h"
#include "agent/limits.h"
#include "agent/rootfs/rootfs.h"
#include "agent/proc/worker.h"
#include "base/ttrpc/ttrpc.h"

enum container_state {
	CONTAINER_CREATED,
	CONTAINER_STARTING,
	CONTAINER_RUNNING,
	CONTAINER_STOPPED,
	CONTAINER_REMOVING,
};

/* One that the host asked for: the container's first ("" exec id), or an exec. Lives until it is
 * gone and its start was answered; its streams live on by themselves. */
struct process {
	struct process *next;
	struct container *container;
	char exec_id[AGENT_ID_MAX + 1];
	pid_t pid;
	int pidfd;
	int tty;	     /* terminal's master, -1 = none (yet) */
	uint64_t want[3];    /* ids of its streams, 0 = /dev/null */
	uint64_t claimed[3]; /* those that are its own already */
	uint64_t oom_kills;  /* of the container when it started */
	struct child child;
	struct ev_io report_io;
	int report_fd;		  /* -1 = the child has said all */
	struct report failure;	  /* kind 0 = none */
	struct ttrpc_call *start; /* to be answered; NULL = done */
	bool exited;
	unsigned exit_status;
	int64_t exited_at_ns;
};

struct container {
	struct agent *agent;
	char id[AGENT_ID_MAX + 1];
	enum container_state state;
	Agent__CreateContainerRequest *spec;
	struct rootfs rootfs;
	int cgroup;
	int memory_wd;
	uint64_t oom_kills;
	struct process *processes; /* alive, or waiting for something */
	unsigned n_processes;
	struct process *gone_first; /* ended; its event waits for those of the execs */
	struct worker worker;	    /* removal */
	struct ttrpc_call *remove;
};

/* -ENOENT with a text. */
int container_find(struct agent *a, const char *id, struct container **ret,
		   struct err *err) must_check;
/* Validated already. -EAGAIN: a disk of it is just being detached; again after the next removal. */
int container_create(struct agent *a, const Agent__CreateContainerRequest *req,
		     struct err *err) must_check;
/* 0 = the call will be answered later. */
int container_start(struct container *c, struct ttrpc_call *call, struct err *err) must_check;
int container_exec(struct container *c, const Agent__ExecProcessRequest *req,
		   struct ttrpc_call *call, struct err *err) must_check;
int container_remove(struct container *c, struct ttrpc_call *call, struct err *err) must_check;
/* "" = the first process. -ENOENT: gone; -EBUSY: not started yet. */
int container_process(struct container *c, const char *exec_id, struct process **ret,
		      struct err *err) must_check;
int container_signal(struct container *c, const Agent__SignalProcessRequest *req,
		     struct err *err) must_check;
/* News of OOM kills since the last look, as an event. */
void container_check_oom(struct container *c);
/* cgroups' watch. */
void container_on_memory_event(int wd, void *arg);
/* Forgets all, at the end of the agent: nothing is unmounted. */
void container_free(struct container *c);

/* ---- process.c ---- */
/* Starts `spec` in the container; answers `call` when the outcome is known. first: `exec_id` is "".
 */
int process_start(struct container *c, const char *exec_id, const Agent__Process *spec,
		  struct ttrpc_call *call, struct err *err) must_check;
/* A process has gone: container.c decides what it means, and frees it. */
void container_process_gone(struct container *c, struct process *p);
void process_free(struct process *p);
int pidfd_kill(int pidfd, int sig) must_check;

#endif
