/*
 * The containers of the pod: who they are, their processes, their disks in the sandbox. What
 * happens to them goes to the owner by container_ops. A container is never freed while an answer of
 * the agent about its creation, its deletion or the start of its processes is due, so those
 * callbacks may hold pointers; all others go by id. Loop thread.
 */
#ifndef HUSK_SHIM_POD_CONTAINER_H
#define HUSK_SHIM_POD_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "proto/agent.pb-c.h"
#include "proto/containerd_task_v2.pb-c.h"
#include "shim/pod/process.h"
#include "shim/pod/rootfs.h"
#include "shim/pod/sandbox.h"

#define EXECS_MAX 250u			 /* a container; the agent allows 256 processes */
#define DELETE_DRAIN_NS (10 * NS_PER_S)	 /* a Delete waits as long for a slow reader */
#define KILLED_ROOM_NS (3 * NS_PER_S)	 /* a killed container waits as long for room on the host */
#define DELETE_QUIET_NS (20 * NS_PER_MS) /* nothing came: the guest has no more output */

struct container;

/* Facts for the owner, after they are facts. None may free anything. */
struct container_ops {
	void (*created)(const struct container *c, void *arg);
	void (*exec_added)(const struct proc *p, void *arg);
	void (*started)(const struct proc *p, void *arg);
	void (*exited)(const struct proc *p, void *arg); /* published; not of one that never ran */
	void (*oom)(const struct container *c, void *arg);
	void (*deleted)(const struct container *c, void *arg); /* it is freed then */
	void (*output_lost)(const struct proc *p, const struct err *err, void *arg);
};

struct containers {
	struct loop *loop;
	struct sandbox *sandbox;
	const struct container_ops *ops;
	void *arg;
	struct container *first;
	size_t n;
};

/* The container, when code is 0 or it still exists, else NULL. */
typedef void (*container_done)(const struct container *c, int code, const struct err *err,
			       void *arg);

struct container {
	struct containers *all;
	struct container *next;
	char *id, *bundle;
	struct proc init;
	struct proc *execs;
	size_t n_execs;
	struct rootfs *rootfs;
	int oom_score_adj; /* of its first process, as its client wants it; INT_MAX = not known */
	bool own_pids;	   /* the end of its first process is the end of all */
	bool deleting;
	container_done delete_done; /* while a slow reader is waited for, else NULL */
	void *delete_arg;
	struct ev_timer drain_timer, quiet_timer, killed_timer, dropped_timer;
};

void containers_init(struct containers *cs, struct loop *l, struct sandbox *sb,
		     const struct container_ops *ops, void *arg);
/* Frees all. The sandbox's end must have brought every answer that was due. */
void containers_fini(struct containers *cs);

struct container *container_find(const struct containers *cs, const char *id); /* any state */
/* The process of a request: known, created, not being deleted. NULL with err set (-ENOENT). */
struct proc *container_proc(const struct containers *cs, const char *id, const char *exec_id,
			    struct err *err);
struct container *container_of_proc(const struct proc *p);

/* As proc_start; an exec needs a container that runs. */
void container_start(struct proc *p, proc_start_done done, void *arg);
/* A further process, CREATED. -EINVAL, -EEXIST, -ENOBUFS, -EBUSY: the container does not run. */
int container_add_exec(struct container *c, const TaskV2__ExecProcessRequest *req,
		       struct err *err) must_check;
/* Frees it. -EBUSY while it runs. */
int container_delete_exec(struct proc *p, struct err *err) must_check;
/* Frees its execs: those that still run are killed and freed when they have ended. */
void container_drop_execs(struct container *c);
/* Exactly one `done`, now or later; with code 0 the container is freed after it. -EBUSY while
 * processes run. */
void container_delete(struct container *c, container_done done, void *arg);

/* SIGKILL was sent to its first process. What waits for a write cannot die, and where the host has
 * no room that may be for ever: such a container's writable disk is taken from the guest then. */
void container_killed(struct container *c);

/* ---- what the sandbox says ---- */
void containers_exited(struct containers *cs, const Agent__ExitEvent *ev);
void containers_oom(struct containers *cs, const char *id);
/* The VM is gone: every process has ended with `status`; why "" = it was asked for. */
void containers_died(struct containers *cs, uint32_t status, const char *why);

/* ---- for create.c ---- */
/* The VM is as protected from the host's OOM killer as the most protected container in it. */
void containers_weigh(const struct containers *cs);
/* In state CREATING; NULL without memory. */
struct container *container_new(struct containers *cs, const TaskV2__CreateTaskRequest *req);
/* Gives its disks' windows back: the guest has let go of those in `detached`, or of `all`. */
void container_put_windows(struct container *c, const uint64_t *detached, size_t n, bool all);
/* Everything the shim holds of it, without windows. */
void container_free(struct container *c);
/* Its Create got no answer: whatever the guest makes of it is removed, and then it is freed.
 * Nobody sees it any more, but its id is taken until then. */
void container_abandon(struct container *c);

#endif
