/*
 * Windows of /dev/vda: made visible as a partition (BLKPG), mounted at <run>/disks/<partition>, and
 * shared by all containers that name the same first sector. Loop thread only, but for disk_detach.
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
	int fd;				  /* of the device, -1 = not opened yet */
	bool full;			  /* the host has no room for what is written */
	struct disk slots[POD_DISKS_MAX]; /* slot i is partition i + 1 */
};

/* device and run_dir stay valid. Touches nothing yet. */
int disks_init(struct disks *ds, const char *device, const char *run_dir,
	       struct err *err) must_check;
void disks_fini(struct disks *ds);
/* Attaches and mounts on first use. -EINVAL: known with other properties; -EBUSY: writable and in
 * use, or on its way out; -ENOSPC: too many, or writable while the host is full. */
int disk_get(struct disks *ds, const Agent__Disk *d, struct disk **ret, struct err *err) must_check;
/* True while one of the disks is on its way out: disk_get would refuse it now, but not later. */
bool disks_leaving(const struct disks *ds, const Agent__Rootfs *spec);
/* One user less; the slot of the last one is free then. It must have been detached before. */
void disk_forget(struct disk *d);
/* Where it is mounted. The caller frees; NULL: out of memory. */
char *disk_path(const struct disks *ds, const struct disk *d) must_check;
/* The host has no room any more, or has it again. Full: whoever writes to a writable disk gets
 * ENOSPC at once. What was promised room before, and waits in the page cache, still goes out. The
 * first error; the other disks are done all the same. */
int disks_set_full(struct disks *ds, bool full) must_check;
/* A writable disk that is thrown away: what is in the page cache is not written back any more,
 * and all who still use it get EIO. Best effort. */
void disk_discard(const struct disks *ds, const struct disk *d);
/* Unmounts and removes the partition. May block for long (writes back): for a worker process. Can
 * be called again. -EBUSY: something of it is still in use. */
int disk_detach(const struct disks *ds, const struct disk *d) must_check;

#endif
