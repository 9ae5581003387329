#include "agent/rootfs/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/rootfs/mnt.h"
#include "base/util.h"

#define OVERLAY_OPTS 8 /* besides the layers */
#define NAME_LEN 32
#define WORK_TRIES 1024

/* A new directory on the scratch disk. A work directory of an earlier boot is not used again: with
 * "volatile" overlayfs refuses it. */
static int make_work(int disk, char name[NAME_LEN])
{
	for (int i = 0; i < WORK_TRIES; i++) {
		snprintf(name, NAME_LEN, "work%d", i);
		if (mkdirat(disk, name, 0700) == 0)
			return 0;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

/* "upper" becomes the container's /: it looks as the / of the image. */
static int make_upper(int disk, const char *top_layer)
{
	cleanup_fd int fd = -1;
	struct stat st;

	if (mkdirat(disk, "upper", 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	if (stat(top_layer, &st) < 0)
		return -errno;
	fd = openat(disk, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fchown(fd, st.st_uid, st.st_gid) < 0 || fchmod(fd, st.st_mode & 07777) < 0)
		return -errno;
	return 0;
}

static int prepare_upper(const char *path, const char *top_layer, char work[NAME_LEN],
			 struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : make_upper(fd, top_layer);

	if (r == 0)
		r = make_work(fd, work);
	return r < 0 ? err_errno(err, r, "scratch disk") : 0;
}

static int overlay(const struct disks *ds, const Agent__Rootfs *spec, const struct rootfs *root,
		   int *ret_mnt, struct err *err)
{
	char *lower[CONTAINER_LOWERS_MAX] = { 0 };
	cleanup_free char *disk = NULL;
	cleanup_free char *upper = NULL;
	cleanup_free char *work = NULL;
	struct mnt_opt opts[CONTAINER_LOWERS_MAX + OVERLAY_OPTS];
	char work_name[NAME_LEN];
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < spec->n_lower; i++) {
		lower[i] = disk_path(ds, root->disks[i]);
		if (!lower[i])
			r = -ENOMEM;
	}
	/* "lowerdir+" takes one layer after the other, topmost first: no page limit on the list. */
	for (size_t i = spec->n_lower; i-- > 0;)
		opts[n++] = (struct mnt_opt){ "lowerdir+", lower[i] };
	if (r == 0 && spec->upper) {
		disk = disk_path(ds, root->disks[spec->n_lower]);
		r = disk ? prepare_upper(disk, lower[spec->n_lower - 1], work_name, err) : -ENOMEM;
		if (r == 0) {
			upper = str_fmt("%s/upper", disk);
			work = str_fmt("%s/%s", disk, work_name);
			r = upper && work ? 0 : -ENOMEM;
		}
		opts[n++] = (struct mnt_opt){ "upperdir", upper };
		opts[n++] = (struct mnt_opt){ "workdir", work };
		/* The scratch disk does not outlive the host's boot: fsync has nothing to gain. */
		opts[n++] = (struct mnt_opt){ "volatile", NULL };
		opts[n++] = (struct mnt_opt){ "redirect_dir", "on" };
	}
	opts[n++] = (struct mnt_opt){ "metacopy", "off" };
	opts[n++] = (struct mnt_opt){ "index", "off" };
	if (r == -ENOMEM)
		err_nomem(err);
	if (r == 0)
		r = mnt_new("overlay", opts, n, spec->upper ? 0 : MOUNT_ATTR_RDONLY, ret_mnt, err);
	for (size_t i = 0; i < spec->n_lower; i++)
		free(lower[i]);
	return r;
}

int rootfs_reserve(struct disks *ds, const Agent__Rootfs *spec, struct rootfs *ret, struct err *err)
{
	size_t n = spec->n_lower + (spec->upper ? 1 : 0);
	int r;

	ret->mnt = -1;
	ret->n_disks = 0;
	for (size_t i = 0; i < n; i++) {
		r = disk_get(ds, i < spec->n_lower ? spec->lower[i] : spec->upper, &ret->disks[i],
			     err);
		if (r < 0) {
			rootfs_unreserve(ret);
			return err_wrap(err, r, "root file system");
		}
		ret->n_disks++;
	}
	return 0;
}

void rootfs_unreserve(struct rootfs *root)
{
	while (root->n_disks > 0)
		disk_forget(root->disks[--root->n_disks]);
}

void rootfs_mounted(struct disks *ds, struct rootfs *root, int mnt)
{
	for (size_t i = 0; i < root->n_disks; i++)
		if (root->disks[i]->attaching)
			disk_attached(ds, root->disks[i]);
	root->mnt = mnt;
}

static int attach_new(const struct disks *ds, const struct rootfs *root, struct err *err)
{
	cleanup_fd int dev = -1;
	int r = disks_open(ds, &dev, err);

	for (size_t i = 0; r == 0 && i < root->n_disks; i++) {
		bool twice = false;

		for (size_t k = 0; k < i; k++)
			twice |= root->disks[k] == root->disks[i];
		if (root->disks[i]->attaching && !twice)
			r = disk_attach(ds, dev, root->disks[i], err);
	}
	return r;
}

/* overlayfs wants two; one disk is the root as it is. */
static int single(const struct disks *ds, const struct rootfs *root, int *ret_mnt, struct err *err)
{
	cleanup_free char *path = disk_path(ds, root->disks[0]);
	int r;

	if (!path)
		return err_nomem(err);
	r = mnt_clone(AT_FDCWD, path, false, ret_mnt);
	return r < 0 ? err_errno(err, r, "%s", path) : 0;
}

int rootfs_mount(const struct disks *ds, const Agent__Rootfs *spec, const struct rootfs *root,
		 int *ret_mnt, struct err *err)
{
	int r = attach_new(ds, root, err);

	if (r == 0)
		r = root->n_disks == 1 ? single(ds, root, ret_mnt, err)
				       : overlay(ds, spec, root, ret_mnt, err);
	return r < 0 ? err_wrap(err, r, "root file system") : 0;
}
