#include "shim/pod/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "base/util.h"

static int check_options(const Types__Mount *m, bool *ret_readonly, struct err *err)
{
	bool ro = false, rw = false;

	for (size_t i = 0; i < m->n_options; i++) {
		if (str_eq(m->options[i], "ro"))
			ro = true;
		else if (str_eq(m->options[i], "rw"))
			rw = true;
		else if (!str_eq(m->options[i], "loop"))
			return err_set(err, -ENOSYS,
				       "rootfs: option %.60s of %.200s is not supported",
				       m->options[i], m->source);
	}
	if (ro == rw)
		return err_set(err, -EINVAL, "rootfs: %.200s needs one of the options ro and rw",
			       m->source);
	*ret_readonly = ro;
	return 0;
}

static int open_disk(const Types__Mount *m, struct rootfs_disk *d, struct err *err)
{
	struct stat st;
	int r = check_options(m, &d->readonly, err);

	if (r < 0)
		return r;
	if (!str_empty(m->target))
		return err_set(err, -ENOSYS, "rootfs: a mount below the root (%.200s)", m->target);
	d->erofs = str_eq(m->type, "erofs");
	if (d->erofs && !d->readonly)
		return err_set(err, -EINVAL, "rootfs: erofs is read-only");
	if (m->source[0] != '/')
		return err_set(err, -EINVAL, "rootfs: %.200s is not an absolute path", m->source);
	/* O_NONBLOCK: only a FIFO would wait, and that is refused below. */
	d->fd = open(m->source,
		     (d->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (d->fd < 0 || fstat(d->fd, &st) < 0)
		return err_errno(err, -errno, "rootfs: open %.200s", m->source);
	d->dev = st.st_dev;
	d->ino = st.st_ino;
	if (S_ISREG(st.st_mode)) {
		d->bytes = (uint64_t)st.st_size;
	} else if (!S_ISBLK(st.st_mode)) {
		return err_set(err, -EINVAL, "rootfs: %.200s is neither a file nor a disk",
			       m->source);
	} else if (ioctl(d->fd, BLKGETSIZE64, &d->bytes) < 0) {
		return err_errno(err, -errno, "rootfs: size of %.200s", m->source);
	}
	return 0;
}

static int refuse_type(const Types__Mount *m, struct err *err)
{
	return err_set(
		err, -ENOSYS,
		"rootfs: a mount of type \"%.40s\" (%.150s) cannot be used: a root file system "
		"comes as ext4 or erofs images until Husk shares directories with the VM",
		m->type, m->source);
}

/* The shape of the list; how many disks it has. */
static int check_shape(Types__Mount *const *mounts, size_t n, size_t *ret_disks, struct err *err)
{
	size_t disks = 0;

	while (disks < n &&
	       (str_eq(mounts[disks]->type, "ext4") || str_eq(mounts[disks]->type, "erofs")))
		disks++;
	if (disks == 0)
		return n ? refuse_type(mounts[0], err)
			 : err_set(err, -ENOSYS,
				   "no root file system was given: Husk needs a list of ext4 or "
				   "erofs "
				   "images");
	if (disks > CONTAINER_LOWERS_MAX + 1)
		return err_set(err, -EINVAL, "rootfs: more than %u layers", CONTAINER_LOWERS_MAX);
	if (disks < n &&
	    (!str_eq(mounts[disks]->type, "overlay") || mounts[disks]->n_options || disks + 1 < n))
		return refuse_type(mounts[disks], err);
	if (disks == n && n > 1)
		return err_set(err, -EINVAL, "rootfs: several disks without an overlay");
	*ret_disks = disks;
	return 0;
}

/* A layer that comes again higher up has no say where it came first: it is mounted once, on top.
 * overlayfs and the agent take each directory once. */
static void drop_duplicates(struct rootfs *rf)
{
	size_t kept = 0;

	for (size_t i = 0; i < rf->n; i++) {
		struct rootfs_disk *d = &rf->disks[i];
		bool again = false;

		for (size_t j = i + 1; j < rf->n; j++)
			again |= d->dev == rf->disks[j].dev && d->ino == rf->disks[j].ino &&
				 rf->disks[j].readonly;
		if (again)
			fd_close(&d->fd);
		else
			rf->disks[kept++] = *d;
	}
	rf->n = kept;
}

int rootfs_open(Types__Mount *const *mounts, size_t n, struct rootfs **ret, struct err *err)
{
	struct rootfs *rf;
	size_t disks = 0;
	int r = check_shape(mounts, n, &disks, err);

	if (r < 0)
		return r;
	rf = calloc(1, sizeof(*rf) + disks * sizeof(rf->disks[0]));
	if (!rf)
		return err_nomem(err);
	rf->n = disks;
	for (size_t i = 0; i < disks; i++)
		rf->disks[i].fd = -1;
	for (size_t i = 0; i < disks && r == 0; i++) {
		r = open_disk(mounts[i], &rf->disks[i], err);
		if (r == 0 && !rf->disks[i].readonly && i + 1 < disks)
			r = err_set(err, -EINVAL, "rootfs: only the last disk may be writable");
	}
	if (r == 0) {
		rf->has_upper = !rf->disks[disks - 1].readonly;
		if (rf->has_upper && disks == n)
			r = err_set(err, -ENOSYS, "rootfs: a writable root disk without overlay");
		else if (!rf->has_upper && disks > CONTAINER_LOWERS_MAX)
			r = err_set(err, -EINVAL, "rootfs: more than %u layers",
				    CONTAINER_LOWERS_MAX);
	}
	if (r < 0) {
		rootfs_free(rf);
		return r;
	}
	drop_duplicates(rf);
	*ret = rf;
	return 0;
}

int rootfs_assign(struct rootfs *rf, struct windows *w, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < rf->n && r == 0; i++) {
		struct rootfs_disk *d = &rf->disks[i];

		r = windows_get(w, d->dev, d->ino, d->bytes, d->readonly, &d->first, &d->sectors,
				&d->to_map, err);
		d->assigned = r == 0;
	}
	if (r == 0)
		return 0;
	for (size_t i = 0; i < rf->n; i++) {
		struct rootfs_disk *d = &rf->disks[i];

		if (d->assigned && windows_put(w, d->first))
			windows_free(w, d->first);
		d->assigned = false;
	}
	return err_wrap(err, r, "rootfs");
}

int rootfs_describe(const struct rootfs *rf, struct pb_arena *a, Agent__Rootfs **ret,
		    struct err *err)
{
	Agent__Rootfs *msg = pb_arena_alloc(a, sizeof(*msg));
	Agent__Disk **list = pb_arena_alloc(a, rf->n * sizeof(*list));

	if (!msg || !list)
		return err_nomem(err);
	agent__rootfs__init(msg);
	for (size_t i = 0; i < rf->n; i++) {
		const struct rootfs_disk *d = &rf->disks[i];

		list[i] = pb_arena_alloc(a, sizeof(**list));
		if (!list[i])
			return err_nomem(err);
		agent__disk__init(list[i]);
		list[i]->first_sector = d->first;
		list[i]->sectors = d->sectors;
		list[i]->readonly = d->readonly;
		list[i]->fstype = (char *)(d->erofs ? "erofs" : "ext4");
	}
	msg->lower = list;
	msg->n_lower = rf->n - rf->has_upper;
	if (rf->has_upper)
		msg->upper = list[rf->n - 1];
	*ret = msg;
	return 0;
}

void rootfs_close_files(struct rootfs *rf)
{
	for (size_t i = 0; i < rf->n; i++)
		fd_close(&rf->disks[i].fd);
}

void rootfs_free(struct rootfs *rf)
{
	if (!rf)
		return;
	rootfs_close_files(rf);
	free(rf);
}
