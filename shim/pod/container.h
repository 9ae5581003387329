/*
 * The containers of the pod and their processes. A process:
 *
 *	CREATED --start--> STARTING --agent's answer--> RUNNING --exit--> STOPPED
 *	CREATED --kill--> STOPPED         STARTING --failure--> STOPPED
 *
 * An exit is published (state, waiters, event) once the output has been delivered, the execs of the
 * container are gone and its start was published; at the latest PROC_DRAIN_NS after the exit. The
 * status stays until Delete. A container or process is never freed while an answer of the agent
 * about its creation or start is due, so those callbacks may hold pointers; all others go by id.
 * Loop thread.
 */
#ifndef HUSK_SHIM_POD_CONTAINER_H
#define HUSK_SHIM_POD_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/agent.pb-c.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "shim/calls.h"
#include "shim/pod/rootfs.h"
#include "shim/io/stream.h"

struct shim;
struct start;

#define PROC_DRAIN_NS (2 * NS_PER_S)	/* from an exit to its publication */
#define DELETE_DRAIN_NS (10 * NS_PER_S) /* a Delete waits as long for a slow reader */

enum proc_state { PROC_CREATING, PROC_CREATED, PROC_STARTING, PROC_RUNNING, PROC_STOPPED };

struct proc {
	struct container *c;
	struct proc *next; /* of the execs */
	char *exec_id;	   /* "" = the container's first process */
	char *command;	   /* args[0], for errors */
	char *uri[3];
	bool terminal;
	enum proc_state state;
	struct stdio *io;
	bool input_closed;	/* CloseIO came */
	uint32_t width, height; /* asked for before the start; 0 = not */
	struct pb_arena arena;	/* of `spec`, an exec's until its start */
	Agent__Process *spec;
	bool exited;  /* the agent said so, or the VM died; published or not yet */
	bool started; /* the start was published */
	uint32_t exit_status;
	int64_t exited_at; /* CLOCK_REALTIME, ns */
	bool oom_killed;
	char *sandbox_died; /* NULL = the process itself ended */
	struct ev_timer drain_timer;
	struct calls waiters;
	struct start *parked; /* the agent was lost meanwhile; answered when the VM has ended */
};

struct container {
	struct shim *shim;
	struct container *next;
	char *id, *bundle;
	struct proc init;
	struct proc *execs;
	size_t n_execs;
	struct rootfs *rootfs;
	bool own_pids; /* the end of its first process is the end of all */
	bool deleting;
	struct ttrpc_call *delete_call; /* while a slow reader is waited for */
	uint64_t delete_until_ns;
	struct ev_timer delete_timer;
};

/* ---- container.c ---- */
struct container *container_find(struct shim *s, const char *id); /* any state; NULL = unknown */
/* The process of an RPC: known, created, not being deleted. NULL with err set (-ENOENT). */
struct proc *container_proc(struct shim *s, const char *id, const char *exec_id, struct err *err);
/* Each answers `call`, now or later. */
void container_create(struct shim *s, const TaskV2__CreateTaskRequest *req,
		      struct ttrpc_call *call);
void container_delete(struct container *c, struct ttrpc_call *call);
void containers_exited(struct shim *s, const Agent__ExitEvent *ev);
void containers_oom(struct shim *s, const char *id);
/* The VM is gone: every process has ended with `status`; why "" = it was asked for. */
void containers_died(struct shim *s, uint32_t status, const char *why);
void containers_free(struct shim *s);

/* ---- process.c ---- */
int proc_init(struct proc *p, struct container *c, const char *exec_id, const char *in,
	      const char *out, const char *err_uri, bool terminal) must_check;
void proc_fini(struct proc *p); /* waiters get an error */
int proc_open_stdio(struct proc *p, struct err *err) must_check;
void proc_start(struct proc *p, struct ttrpc_call *call);
/* First time only: takes the status, publishes it when it may be. */
void proc_exit(struct proc *p, uint32_t status, bool oom_killed, const char *sandbox_died);
void proc_try_publish(struct proc *p);
void proc_vm_died(struct proc *p, uint32_t status, const char *why);
bool proc_alive(const struct proc *p); /* STARTING or RUNNING, or its exit is not published yet */
void proc_exec(struct container *c, const TaskV2__ExecProcessRequest *req, struct ttrpc_call *call);
void proc_delete_exec(struct proc *p, struct ttrpc_call *call);
const char *proc_id(const struct proc *p); /* exec id, or the container's */

#endif
