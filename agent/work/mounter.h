/*
 * A container's root file system, mounted by a worker process: attaching and mounting disks waits
 * for the host's disk, which may hang, and the loop must not. One worker for all disks of one
 * container, because a copy of PID 1 is what it costs. The mount comes back as a descriptor. Loop
 * thread only; embedded in its owner.
 */
#ifndef HUSK_AGENT_WORK_MOUNTER_H
#define HUSK_AGENT_WORK_MOUNTER_H

#include "agent/proc/reap.h"
#include "agent/rootfs/rootfs.h"
#include "agent/work/worker.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/agent.pb-c.h"

struct mounter {
	struct worker worker;
	int sock;		   /* the loop's end */
	const struct disks *disks; /* these three: for the worker's copy */
	const Agent__Rootfs *spec;
	const struct rootfs *root;
	void (*done)(struct mounter *m, int r, int mnt, const struct err *err);
};

/* Mounts `root`, whose disks are taken (rootfs_reserve), in a child. `done` comes once: 0 and the
 * detached mount, now its owner's; or -errno and -1, -EIO also when the child was killed, and what
 * it had done so far is there. All is borrowed for the call. */
int mounter_start(struct reaper *r, struct mounter *m, const struct disks *disks,
		  const Agent__Rootfs *spec, const struct rootfs *root,
		  void (*done)(struct mounter *m, int r, int mnt, const struct err *err),
		  struct err *err) must_check;
/* `done` is not called any more. Nothing when it is not under way. */
void mounter_stop(struct reaper *r, struct mounter *m);

#endif
