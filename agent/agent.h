/*
 * The agent as a whole: what all its parts share, and how they are put together (agent.c). One
 * process, one thread, one loop. main.c gives it the guest's real paths, the unit tests others.
 */
#ifndef HUSK_AGENT_AGENT_H
#define HUSK_AGENT_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/events.h"
#include "agent/io/stream.h"
#include "agent/limits.h"
#include "agent/proc/cgroup.h"
#include "agent/proc/ns.h"
#include "agent/proc/reap.h"
#include "agent/rootfs/disk.h"
#include "agent/work/worker.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"

struct container;
struct waiting_create;

struct agent_config {
	const char *run_dir;	/* "/run/husk": must exist, on a file system of ours */
	const char *cgroup_dir; /* "/sys/fs/cgroup": cgroup v2 */
	const char *disk;	/* "/dev/vda" */
	int stream_listener;	/* taken over */
	bool vsock;		/* the listener is a vsock one: only the host may connect */
	/* Kernel parameters of the guest, before those of the pod; NULL = as they are. */
	int (*set_defaults)(struct err *err);
	void (*power_off)(void *arg);
	void *arg;
};

struct agent {
	struct agent_config cfg;
	struct loop *loop;
	/* What modules tell those above them. */
	void (*on_memory_event)(int wd, void *agent); /* a cgroup's, of watch `wd` */
	void (*on_settled)(struct agent *a); /* a create or removal is through, well or badly */

	struct reaper reaper;
	struct stdio stdio;
	struct events events;
	struct disks disks;
	struct cgroups cgroups; /* from CreateSandbox on */
	bool sandboxed;
	bool networked;	  /* SetNetwork was answered well */
	bool ending;	  /* Shutdown was asked for */
	int64_t ready_ns; /* CLOCK_MONOTONIC when the agent was ready to serve */
	struct pidns pidns;
	struct container *containers[POD_CONTAINERS_MAX];
	struct waiting_create *creates; /* oldest first */
	struct worker end_worker;
};

/* cfg's strings stay valid. Needs /proc. The listener is taken over, also on failure. */
int agent_init(struct agent *a, struct loop *l, const struct agent_config *cfg,
	       struct err *err) must_check;
void agent_fini(struct agent *a);

#endif
