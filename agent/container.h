/*
 * Containers and their processes. Loop thread only.
 *
 *	CREATING -> CREATED -> STARTING -> RUNNING -> STOPPED -> REMOVING -> gone
 * CREATING: its disks are being mounted, by a process of their own. One that fails is REMOVING at
 * once; a removal that comes meanwhile waits for the end of the create.
 * CREATED, STOPPED: may be removed. RUNNING: takes execs, signals. A start that fails = STOPPED,
 * with no exit event: the answer to the start says it all.
 */
#ifndef HUSK_AGENT_CONTAINER_H
#define HUSK_AGENT_CONTAINER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/agent.h"
#include "agent/limits.h"
#include "agent/process.h"
#include "agent/rootfs/rootfs.h"
#include "agent/work/mounter.h"
#include "agent/work/worker.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/agent.pb-c.h"

enum container_state {
	CONTAINER_CREATING,
	CONTAINER_CREATED,
	CONTAINER_STARTING,
	CONTAINER_RUNNING,
	CONTAINER_STOPPED,
	CONTAINER_REMOVING,
};

struct container {
	struct agent *agent;
	char id[CONTAINER_ID_MAX + 1];
	enum container_state state;
	Agent__CreateContainerRequest *spec;
	struct rootfs rootfs;
	int cgroup;
	int memory_wd;
	uint64_t oom_kills;
	struct process *processes; /* alive, or waiting for something */
	unsigned n_processes;
	struct process *gone_first; /* ended; its event waits for those of the execs */
	struct mounter mounter;	    /* CREATING */
	struct ttrpc_call *create;  /* not answered yet: CREATING, or REMOVING since it failed */
	struct err failure;	    /* ... with this */
	struct worker worker;	    /* removal */
	int go;			    /* ... begins when this was closed */
	bool discard;		    /* ... throws away what the writable disks hold */
	struct ttrpc_call *remove;  /* not answered yet */
};

/* -ENOENT with a text. */
int container_find(struct agent *a, const char *id, struct container **ret,
		   struct err *err) must_check;
/* In all of these 0 = the call will be answered later. */

/* Validated already. -EAGAIN: a disk of it is just being attached or detached, or too many are
 * being created; again when a create or removal is through. */
int container_create(struct agent *a, const Agent__CreateContainerRequest *req,
		     struct ttrpc_call *call, struct err *err) must_check;
int container_start(struct container *c, struct ttrpc_call *call, struct err *err) must_check;
int container_exec(struct container *c, const Agent__ExecProcessRequest *req,
		   struct ttrpc_call *call, struct err *err) must_check;
int container_remove(struct container *c, bool discard, struct ttrpc_call *call,
		     struct err *err) must_check;
/* "" = the first process. -ENOENT: gone; -EBUSY: not started yet. */
int container_process(struct container *c, const char *exec_id, struct process **ret,
		      struct err *err) must_check;
/* True from StartContainer on. */
static inline bool container_was_started(const struct container *c)
{
	return c->state > CONTAINER_CREATED && !c->create;
}
/* memory.events of the cgroup watched as `wd` changed: OOM kills become events. Fits
 * cgroups_init. */
void container_on_memory_event(int wd, void *arg);
/* Forgets all, at the end of the agent: nothing is unmounted. */
void container_free(struct container *c);

#endif
