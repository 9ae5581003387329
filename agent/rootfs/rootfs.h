/*
 * A container's root file system, made of disks: one detached mount, which only the container's own
 * mount namespace will ever attach. Loop thread only.
 */
#ifndef HUSK_AGENT_ROOTFS_ROOTFS_H
#define HUSK_AGENT_ROOTFS_ROOTFS_H

#include <stddef.h>

#include "proto/agent.pb-c.h"
#include "agent/rootfs/disk.h"
#include "agent/limits.h"
#include "base/compiler.h"
#include "base/err.h"

struct rootfs {
	int mnt; /* -1 = none */
	struct disk *disks[CONTAINER_LOWERS_MAX + 1];
	size_t n_disks;
};

/* On failure, disks that were attached stay in `ret` (mnt -1), for the caller to detach. */
int rootfs_mount(struct disks *ds, const Agent__Rootfs *spec, struct rootfs *ret,
		 struct err *err) must_check;

#endif
