#include "agent/rootfs/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "agent/rootfs/mnt.h"
#include "agent/rootfs/path.h"
#include "base/check.h"
#include "base/util.h"

#define SECTOR 512ll

/* Of the kernel's fs/ext4/ext4.h, which is not among the headers for user space. */
#define EXT4_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define EXT4_GOING_FLAGS_NOLOGFLUSH 2

int disks_init(struct disks *ds, const char *device, const char *run_dir, struct err *err)
{
	memset(ds, 0, sizeof(*ds));
	ds->device = device;
	ds->dir = str_fmt("%s/disks", run_dir);
	return ds->dir ? 0 : err_nomem(err);
}

void disks_fini(struct disks *ds)
{
	free_ptr(&ds->dir);
}

int disks_open(const struct disks *ds, int *ret_dev, struct err *err)
{
	int fd = open(ds->device, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_errno(err, -errno, "%s", ds->device);
	*ret_dev = fd;
	return 0;
}

static int slot_of(const struct disks *ds, const struct disk *d)
{
	return (int)(d - ds->slots) + 1;
}

char *disk_path(const struct disks *ds, const struct disk *d)
{
	return str_fmt("%s/%d", ds->dir, slot_of(ds, d));
}

static int disk_blkpg(const struct disks *ds, int dev, const struct disk *d, int op)
{
	struct blkpg_partition part = {
		.start = (long long)d->first_sector * SECTOR,
		.length = (long long)d->sectors * SECTOR,
		.pno = slot_of(ds, d),
	};
	struct blkpg_ioctl_arg arg = { .op = op, .datalen = sizeof(part), .data = &part };

	return ioctl(dev, BLKPG, &arg) < 0 ? -errno : 0;
}

static char *node_of(const struct disks *ds, const struct disk *d)
{
	size_t n = strlen(ds->device);
	bool digit = ds->device[n - 1] >= '0' && ds->device[n - 1] <= '9';

	return str_fmt("%s%s%d", ds->device, digit ? "p" : "", slot_of(ds, d));
}

/* The node is there when BLKPG returns: devtmpfs makes it before the partition is announced. */
static int mount_disk(const struct disks *ds, const struct disk *d, struct err *err)
{
	cleanup_free char *node = node_of(ds, d);
	cleanup_free char *path = disk_path(ds, d);
	cleanup_fd int mnt = -1;
	/* A read-only layer is never written to, not even to replay a journal. For the scratch
	 * disk, freed blocks go back to the host. */
	const struct mnt_opt ext4_ro[] = { { "source", node }, { "ro", NULL }, { "noload", NULL } };
	const struct mnt_opt ext4_rw[] = { { "source", node }, { "discard", NULL } };
	const struct mnt_opt erofs[] = { { "source", node }, { "ro", NULL } };
	int r;

	if (!node || !path)
		return err_nomem(err);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "%s", path);
	if (d->erofs)
		r = mnt_new("erofs", erofs, ARRAY_SIZE(erofs), MOUNT_ATTR_RDONLY, &mnt, err);
	else if (d->readonly)
		r = mnt_new("ext4", ext4_ro, ARRAY_SIZE(ext4_ro), MOUNT_ATTR_RDONLY, &mnt, err);
	else
		r = mnt_new("ext4", ext4_rw, ARRAY_SIZE(ext4_rw), MOUNT_ATTR_NOATIME, &mnt, err);
	if (r < 0)
		return r;
	r = mnt_attach_path(mnt, path);
	return r < 0 ? err_errno(err, r, "mount on %s", path) : 0;
}

int disk_attach(const struct disks *ds, int dev, const struct disk *d, struct err *err)
{
	int r = 0;

	if (mkdir(ds->dir, 0700) < 0 && errno != EEXIST)
		r = err_errno(err, -errno, "%s", ds->dir);
	if (r == 0) {
		r = disk_blkpg(ds, dev, d, BLKPG_ADD_PARTITION);
		r = r < 0 ? err_errno(err, r, "attach") : mount_disk(ds, d, err);
	}
	return r < 0 ? err_wrap(err, r, "disk %llu", (unsigned long long)d->first_sector) : 0;
}

static int reuse(struct disk *d, const Agent__Disk *want, struct disk **ret, struct err *err)
{
	if (d->sectors != want->sectors || d->readonly != !!want->readonly ||
	    d->erofs != str_eq(want->fstype, "erofs"))
		return err_set(err, -EINVAL, "disk %llu is known with other properties",
			       (unsigned long long)d->first_sector);
	if (!d->readonly || d->detaching)
		return err_set(err, -EBUSY, "disk %llu is in use",
			       (unsigned long long)d->first_sector);
	d->refs++;
	*ret = d;
	return 0;
}

int disk_get(struct disks *ds, const Agent__Disk *want, struct disk **ret, struct err *err)
{
	struct disk *d = NULL;

	for (size_t i = 0; i < POD_DISKS_MAX; i++) {
		struct disk *s = &ds->slots[i];

		if (s->refs > 0 && s->first_sector == want->first_sector)
			return reuse(s, want, ret, err);
		if (s->refs == 0 && !d)
			d = s;
	}
	/* Mounting writes, and would wait for room. */
	if (ds->full && !want->readonly)
		return err_set(err, -ENOSPC, "no space left on the host for the container's disk");
	if (!d)
		return err_set(err, -ENOSPC, "%u disks are attached already", POD_DISKS_MAX);
	*d = (struct disk){
		.refs = 1,
		.attaching = true,
		.first_sector = want->first_sector,
		.sectors = want->sectors,
		.readonly = want->readonly,
		.erofs = str_eq(want->fstype, "erofs"),
	};
	*ret = d;
	return 0;
}

static const struct disk *find(const struct disks *ds, const Agent__Disk *want)
{
	for (size_t i = 0; i < POD_DISKS_MAX; i++)
		if (ds->slots[i].refs > 0 && ds->slots[i].first_sector == want->first_sector)
			return &ds->slots[i];
	return NULL;
}

static bool moving(const struct disks *ds, const Agent__Disk *want)
{
	const struct disk *d = want ? find(ds, want) : NULL;

	return d && (d->attaching || (d->detaching && !d->stuck));
}

bool disks_moving(const struct disks *ds, const Agent__Rootfs *spec)
{
	for (size_t i = 0; i < spec->n_lower; i++)
		if (moving(ds, spec->lower[i]))
			return true;
	return moving(ds, spec->upper);
}

size_t disks_unknown(const struct disks *ds, const Agent__Rootfs *spec, uint64_t *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < spec->n_lower; i++)
		if (!find(ds, spec->lower[i]))
			ret[n++] = spec->lower[i]->first_sector;
	if (spec->upper && !find(ds, spec->upper))
		ret[n++] = spec->upper->first_sector;
	return n;
}

void disk_forget(struct disk *d)
{
	check(d->refs > 0);
	if (--d->refs == 0)
		*d = (struct disk){ 0 };
}

/* ext4's reserved clusters are for its own needs, such as the tree of a file whose blocks were
 * promised: where all are reserved nobody gets a new promise, not even root. */
static int set_full(const struct disks *ds, struct disk *d, bool full)
{
	cleanup_free char *node = node_of(ds, d);
	cleanup_free char *mount = disk_path(ds, d);
	char file[100], value[24];
	struct statfs st;
	int r;

	if (!node || !mount)
		return -ENOMEM;
	snprintf(file, sizeof(file), "/sys/fs/ext4/%s/reserved_clusters", strrchr(node, '/') + 1);
	if (statfs(mount, &st) < 0)
		return -errno;
	r = full ? read_number_at(AT_FDCWD, file, NULL, &d->reserved) : 0;
	if (r < 0)
		return r;
	/* It has to be less than there are; the root directory has one of them. */
	snprintf(value, sizeof(value), "%llu",
		 (unsigned long long)(full ? st.f_blocks - 1 : d->reserved));
	r = write_at(AT_FDCWD, file, value);
	if (r == 0)
		d->full = full;
	return r;
}

void disk_attached(struct disks *ds, struct disk *d)
{
	d->attaching = false;
	/* The host may have run out of room while it was mounted. Best effort: without it a write
	 * waits for room instead of failing. */
	if (ds->full && !d->readonly)
		(void)!set_full(ds, d, true);
}

int disks_set_full(struct disks *ds, bool full)
{
	int first = 0;

	ds->full = full;
	for (size_t i = 0; i < POD_DISKS_MAX; i++) {
		struct disk *d = &ds->slots[i];
		bool ours = d->refs > 0 && !d->readonly && !d->detaching && !d->attaching;
		int r = ours && full != d->full ? set_full(ds, d, full) : 0;

		if (first == 0)
			first = r;
	}
	return first;
}

void disk_discard(const struct disks *ds, const struct disk *d)
{
	cleanup_free char *path = disk_path(ds, d);
	uint32_t how = EXT4_GOING_FLAGS_NOLOGFLUSH;
	cleanup_fd int fd = -1;

	if (d->readonly || !path)
		return;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		(void)ioctl(fd, EXT4_IOC_SHUTDOWN, &how);
}

int disk_detach(const struct disks *ds, int dev, const struct disk *d)
{
	cleanup_free char *path = disk_path(ds, d);
	int r;

	if (!path)
		return -ENOMEM;
	/* EINVAL: not mounted any more, an earlier attempt came so far. */
	if (umount2(path, UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
		return -errno;
	r = disk_blkpg(ds, dev, d, BLKPG_DEL_PARTITION);
	return r == -ENXIO ? 0 : r;
}
