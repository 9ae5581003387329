/*
 * A process in the guest: a container's first one, or an exec.
 *
 *	CREATING --the agent has the container--> CREATED --start--> STARTING --answer--> RUNNING
 *	CREATED --kill--> STOPPED     STARTING --failure--> STOPPED     RUNNING --exit--> STOPPED
 *
 * An exit is published (state, waiters, owner) once the output has been delivered, the owner has
 * nothing against it and its start was published; at the latest PROC_DRAIN_NS after the exit. The
 * status stays until the process is freed. It is not freed while an answer of the agent about its
 * start is due, so that callback may hold a pointer. It knows its sandbox, and its owner by
 * proc_ops only. Loop thread.
 */
#ifndef HUSK_SHIM_POD_PROCESS_H
#define HUSK_SHIM_POD_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/waits.h"
#include "proto/agent.pb-c.h"
#include "proto/shim.pb-c.h"
#include "proto/wkt.pb-c.h"
#include "shim/io/stream.h"
#include "shim/pod/sandbox.h"

struct start;

#define PROC_DRAIN_NS (2 * NS_PER_S) /* from an exit to its publication */

enum proc_state { PROC_CREATING, PROC_CREATED, PROC_STARTING, PROC_RUNNING, PROC_STOPPED };

struct proc;

/* Inside `gone` the owner may free another process, but not this one. */
struct proc_ops {
	/* The exit must not be published yet; proc_try_publish when that has changed. */
	bool (*held)(const struct proc *p);
	void (*started)(struct proc *p);
	void (*exited)(struct proc *p); /* the agent says so; it is not published yet */
	/* STOPPED, the waiters have the status. `ran`: its exit is an event; else it never ran. */
	void (*gone)(struct proc *p, bool ran);
	void (*flushed)(struct proc *p); /* nothing waits for a reader of the output any more */
	void (*output_lost)(const struct proc *p, const struct err *err);
};

/* Who it is and what it belongs to; strings are borrowed by proc_init (uris are copied). */
struct proc_setup {
	struct loop *loop;
	struct sandbox *sandbox;
	const struct proc_ops *ops;
	void *owner;
	const char *container; /* its id, valid as long as the process */
	const char *exec_id;   /* "" = the container's first process; copied */
	const char *uri[3];
	bool terminal;
};

struct proc {
	struct loop *loop;
	struct sandbox *sandbox;
	const struct proc_ops *ops;
	void *owner;
	const char *container;
	struct proc *next; /* the owner's list */
	char *exec_id;
	char *command; /* args[0], for errors */
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
	bool dropped; /* an exec that nobody asks for: freed when it has ended */
	uint32_t exit_status;
	int64_t exited_at; /* CLOCK_REALTIME, ns */
	bool oom_killed;
	char *sandbox_died; /* NULL = the process itself ended */
	struct ev_timer drain_timer;
	struct waits waits;   /* run at STOPPED; with -ENOENT when it is freed before */
	struct start *parked; /* the agent was lost meanwhile; answered when the VM has ended */
};

/* -ENOMEM; proc_fini is due in any case. */
int proc_init(struct proc *p, const struct proc_setup *setup) must_check;
void proc_fini(struct proc *p);
int proc_open_stdio(struct proc *p, struct err *err) must_check;
/* An exec's process as containerd sends it: CREATING -> CREATED. */
int proc_take_spec(struct proc *p, const Wkt__Any *spec, struct err *err) must_check;
/* CREATING -> CREATED: the agent has the container. */
void proc_set_created(struct proc *p);

/* code 0, or -errno with text; the process is STOPPED then. `detail` says more about a process that
 * the guest could not start, else NULL. */
typedef void (*proc_start_done)(const struct proc *p, int code, const struct err *err,
				const Shim__StartError *detail, void *arg);
/* Exactly one `done`, now or later. */
void proc_start(struct proc *p, proc_start_done done, void *arg);
/* First time only: takes the status, publishes it when it may be. */
void proc_exit(struct proc *p, uint32_t status, bool oom_killed, const char *sandbox_died);
void proc_try_publish(struct proc *p);
void proc_vm_died(struct proc *p, uint32_t status, const char *why);

bool proc_is_exec(const struct proc *p);
bool proc_alive(const struct proc *p);	   /* STARTING or RUNNING: its exit is not published yet */
const char *proc_id(const struct proc *p); /* exec id, or the container's */

#endif
