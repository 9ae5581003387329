/*
 * A container's root file system, made of disks: one detached mount, which only the container's own
 * mount namespace will ever attach. Its disks are taken on the loop; it is mounted, which waits for
 * them, by a worker process (work/mounter.h).
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

/* Takes the disks: all, or none. */
int rootfs_reserve(struct disks *ds, const Agent__Rootfs *spec, struct rootfs *ret,
		   struct err *err) must_check;
/* Gives them back; nothing of them was attached. */
void rootfs_unreserve(struct rootfs *root);
/* What rootfs_mount has made: the disks may be shared from now on. Takes mnt over. */
void rootfs_mounted(struct disks *ds, struct rootfs *root, int mnt);
/* In a worker process: attaches what nobody has attached yet, and makes the mount. After a failure
 * the disks are to be detached all the same. */
int rootfs_mount(const struct disks *ds, const Agent__Rootfs *spec, const struct rootfs *root,
		 int *ret_mnt, struct err *err) must_check;

#endif
