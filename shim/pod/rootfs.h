/*
 * The root file system of a container, as huskd and containerd's block snapshotters describe it:
 * N x {"ext4" or "erofs", FILE, ["ro", "loop"]}, lowest layer first, then at most one
 * {"ext4", FILE, ["rw", "loop"]}, the scratch disk, then {"overlay", "overlay"}. A single read-only
 * disk may stand without the overlay. FILE is a regular file or a block device. Anything else is
 * refused until Husk shares directories with the guest. Loop thread.
 */
#ifndef HUSK_SHIM_POD_ROOTFS_H
#define HUSK_SHIM_POD_ROOTFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pb.h"
#include "proto/agent.pb-c.h"
#include "proto/containerd_types.pb-c.h"
#include "shim/pod/windows.h"

struct rootfs_disk {
	int fd; /* until mapped */
	bool readonly;
	bool erofs;
	dev_t dev;
	ino_t ino;
	uint64_t bytes;
	uint64_t first, sectors; /* the window, after rootfs_assign */
	bool assigned, to_map;
};

struct rootfs {
	bool has_upper; /* the last disk is the scratch disk */
	size_t n;
	struct rootfs_disk disks[]; /* lowest first */
};

/* Checks the list and opens the files. -ENOSYS with text for other kinds of mounts; -EINVAL;
 * -errno. */
int rootfs_open(Types__Mount *const *mounts, size_t n, struct rootfs **ret,
		struct err *err) must_check;
/* Takes a window for each disk. All or none. */
int rootfs_assign(struct rootfs *rf, struct windows *w, struct err *err) must_check;
/* Fills in the agent's view. */
int rootfs_describe(const struct rootfs *rf, struct pb_arena *a, Agent__Rootfs **ret,
		    struct err *err) must_check;
void rootfs_close_files(struct rootfs *rf);
void rootfs_free(struct rootfs *rf); /* the windows must have been put; NULL is fine */

#endif
