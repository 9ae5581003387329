/*
 * Windows of /dev/vda: made visible as a partition (BLKPG), mounted at <run>/disks/<partition>, and
 * shared by all containers that name the same first sector. The table is the loop's. What waits for
 * the disk works on a copy of it, in a worker process: attach, discard, detach; also to add or
 * delete a partition, which waits for whoever opens or closes the device just then.
 */
#ifndef HUSK_AGENT_ROOTFS_DISK_H
#define HUSK_AGENT_ROOTFS_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"
#include "agent/limits.h"
#include "base/compiler.h"
#include "base/err.h"

struct disk {
	unsigned refs;	/* 0 = free slot */
	bool attaching; /* by the container that has it, and not to be shared before */
	bool detaching; /* refused to newcomers */
	bool stuck;	/* ... and nothing is under way that would change that */
	uint64_t first_sector, sectors;
	bool readonly, erofs;
	bool full;	   /* nobody gets new blocks of it */
	uint64_t reserved; /* blocks that ext4 kept for its own needs before that */
};

struct disks {
	const char *device;		  /* "/dev/vda"; borrowed */
	char *dir;			  /* "<run>/disks" */
	bool full;			  /* the host has no room for what is written */
	struct disk slots[POD_DISKS_MAX]; /* slot i is partition i + 1 */
};

/* device and run_dir stay valid. Touches nothing yet. */
int disks_init(struct disks *ds, const char *device, const char *run_dir,
	       struct err *err) must_check;
void disks_fini(struct disks *ds);
/* One user more; a new one is `attaching`. -EINVAL: known with other properties; -EBUSY: writable
 * and in use, or on its way out; -ENOSPC: too many, or writable while the host is full. */
int disk_get(struct disks *ds, const Agent__Disk *d, struct disk **ret, struct err *err) must_check;
/* It is mounted: others may share it. */
void disk_attached(struct disks *ds, struct disk *d);
/* True while one of the disks is on its way in or out: it cannot be had now, but later. */
bool disks_moving(const struct disks *ds, const Agent__Rootfs *spec);
/* First sectors of those that nobody has. *ret has room for all. Their number. */
size_t disks_unknown(const struct disks *ds, const Agent__Rootfs *spec, uint64_t *ret);
/* One user less; the slot of the last one is free then. It must have been detached before. */
void disk_forget(struct disk *d);
/* Where it is mounted. The caller frees; NULL: out of memory. */
char *disk_path(const struct disks *ds, const struct disk *d) must_check;
/* The host has no room any more, or has it again. Full: whoever writes to a writable disk gets
 * ENOSPC at once. What was promised room before, and waits in the page cache, still goes out. The
 * first error; the other disks are done all the same. */
int disks_set_full(struct disks *ds, bool full) must_check;

/* ---- in a worker process; each may wait for the disk ---- */

/* The device, for attach and detach; the caller closes it. */
int disks_open(const struct disks *ds, int *ret_dev, struct err *err) must_check;
/* Adds the partition and mounts it. After a failure it is to be detached all the same. */
int disk_attach(const struct disks *ds, int dev, const struct disk *d, struct err *err) must_check;
/* A writable disk that is thrown away: what is in the page cache is not written back any more,
 * and all who still use it get EIO. Best effort. */
void disk_discard(const struct disks *ds, const struct disk *d);
/* Unmounts, which writes back, and removes the partition, as far as they are there. Can be called
 * again. -EBUSY: something of it is still in use. */
int disk_detach(const struct disks *ds, int dev, const struct disk *d) must_check;

#endif
