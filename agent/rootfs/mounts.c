#include "agent/rootfs/mounts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/limits.h"
#include "agent/rootfs/mnt.h"
#include "agent/rootfs/mountopt.h"
#include "agent/rootfs/path.h"
#include "base/util.h"

#define DEV_NODES_MAX 1024 /* of the guest's /dev, for a privileged container */

static const struct {
	const char *name;
	unsigned major, minor;
} dev_nodes[] = {
	{ "null", 1, 3 },   { "zero", 1, 5 },	 { "full", 1, 7 },
	{ "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 },
};

static const struct {
	const char *name, *target;
} dev_links[] = {
	{ "fd", "/proc/self/fd" },	 { "stdin", "/proc/self/fd/0" },
	{ "stdout", "/proc/self/fd/1" }, { "stderr", "/proc/self/fd/2" },
	{ "ptmx", "pts/ptmx" },
};

/* A file system of its own, with the options as key=value or flags. */
static int make_fs(const Agent__Mount *m, const struct mount_opts *o, uint64_t attr, int *ret_fd,
		   struct err *err)
{
	struct mnt_opt opts[AGENT_OPTIONS_MAX + 1];
	char *copies[AGENT_OPTIONS_MAX] = { 0 };
	size_t n = 0;
	int r = 0;

	opts[n++] = (struct mnt_opt){ "source", str_empty(m->source) ? o->fstype : m->source };
	for (size_t i = 0; i < o->n_data; i++) {
		char *eq;

		copies[i] = strdup(o->data[i]);
		if (!copies[i]) {
			r = err_nomem(err);
			break;
		}
		eq = strchr(copies[i], '=');
		if (eq)
			*eq++ = '\0';
		opts[n++] = (struct mnt_opt){ copies[i], eq };
	}
	if (r == 0)
		r = mnt_new(o->fstype, opts, n, attr, ret_fd, err);
	for (size_t i = 0; i < o->n_data; i++)
		free(copies[i]);
	return r;
}

static int bind_pod_file(const struct mount_opts *o, const char *run_dir, int *ret_fd,
			 struct err *err)
{
	cleanup_free char *path = str_fmt("%s/pod/%s", run_dir, o->pod_file);
	int r;

	if (!path)
		return err_nomem(err);
	r = mnt_clone(AT_FDCWD, path, false, ret_fd);
	if (r == -ENOENT)
		return err_set(err, r, "the pod has no %s", o->pod_file);
	if (r == 0)
		r = mnt_attr(*ret_fd, o->attr, 0, false);
	return r < 0 ? err_errno(err, r, "the pod's %s", o->pod_file) : 0;
}

/* Mounts one; a tmpfs that shall be read-only is left writable until all others have their mount
 * points in it, and its descriptor goes to *ret_later. */
static int mount_one(int root, const char *run_dir, const Agent__Mount *m, int *ret_later,
		     struct err *err)
{
	cleanup_fd int mnt = -1;
	cleanup_fd int where = -1;
	struct mount_opts o;
	enum path_kind kind = PATH_DIR;
	bool later;
	int r = mount_opts_parse(m, &o, err);

	if (r < 0)
		return r;
	later = o.kind == MOUNT_TMPFS && (o.attr & MOUNT_ATTR_RDONLY);
	if (o.kind == MOUNT_BIND) {
		kind = o.pod_file_is_dir ? PATH_DIR : PATH_FILE;
		r = bind_pod_file(&o, run_dir, &mnt, err);
	} else {
		r = make_fs(m, &o, later ? o.attr & ~(uint64_t)MOUNT_ATTR_RDONLY : o.attr, &mnt,
			    err);
	}
	if (r < 0)
		return r;
	r = path_make(root, m->destination, kind, &where);
	if (r < 0)
		return err_errno(err, r, "make the mount point");
	r = mnt_attach(mnt, where);
	if (r == 0 && o.propagation)
		r = mnt_attr(mnt, 0, o.propagation, false);
	if (r < 0)
		return err_errno(err, r, "mount");
	if (later)
		*ret_later = take_fd(&mnt);
	return 0;
}

/* ---- /dev ---- */

static int make_node(int dev, const char *name, mode_t mode, dev_t id, struct err *err)
{
	if (mknodat(dev, name, mode, id) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "/dev/%s", name);
	return 0;
}

/* Every device that the guest has. */
static int copy_guest_nodes(int dev, struct err *err)
{
	DIR *list = opendir("/dev");
	struct dirent *d;
	int n = 0, r = 0;

	if (!list)
		return err_errno(err, -errno, "/dev of the guest");
	while (r == 0 && n < DEV_NODES_MAX && (d = readdir(list))) {
		struct stat st;

		if (d->d_type != DT_CHR && d->d_type != DT_BLK)
			continue;
		if (str_eq(d->d_name, "console") || str_eq(d->d_name, "ptmx") ||
		    fstatat(dirfd(list), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		r = make_node(dev, d->d_name, st.st_mode, st.st_rdev, err);
		n++;
	}
	closedir(list);
	return r;
}

static int set_up_dev(int root, bool privileged, struct err *err)
{
	cleanup_fd int dev = -1;
	int r = path_open(root, "/dev", O_PATH | O_DIRECTORY, &dev);

	if (r < 0)
		return err_errno(err, r, "/dev");
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(dev_nodes); i++)
		r = make_node(dev, dev_nodes[i].name, S_IFCHR | 0666,
			      makedev(dev_nodes[i].major, dev_nodes[i].minor), err);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(dev_links); i++)
		if (symlinkat(dev_links[i].target, dev, dev_links[i].name) < 0 && errno != EEXIST)
			r = err_errno(err, -errno, "/dev/%s", dev_links[i].name);
	if (r == 0 && privileged)
		r = copy_guest_nodes(dev, err);
	return r;
}

/* Only a /dev of the container's own is filled; one of the image is left as it is. */
static bool has_own_dev(const Agent__CreateContainerRequest *spec)
{
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (str_eq(spec->mounts[i]->destination, "/dev"))
			return str_eq(spec->mounts[i]->type, "tmpfs");
	return false;
}

/* ---- masked and read-only paths ---- */

static int mask(int root, const char *path, struct err *err)
{
	static const struct mnt_opt empty[] = { { "source", "tmpfs" }, { "size", "0" } };
	cleanup_fd int where = -1;
	cleanup_fd int mnt = -1;
	struct stat st;
	int r = path_open(root, path, O_PATH, &where);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r == 0 && fstat(where, &st) < 0)
		r = -errno;
	if (r < 0)
		return err_errno(err, r, "mask %s", path);
	if (S_ISDIR(st.st_mode))
		r = mnt_new("tmpfs", empty, ARRAY_SIZE(empty), MOUNT_ATTR_RDONLY, &mnt, err);
	else
		r = mnt_clone(AT_FDCWD, "/dev/null", false, &mnt);
	if (r == 0)
		r = mnt_attach(mnt, where);
	return r < 0 ? err_errno(err, r, "mask %s", path) : 0;
}

static int make_readonly(int root, const char *path, struct err *err)
{
	cleanup_fd int where = -1;
	cleanup_fd int mnt = -1;
	int r = path_open(root, path, O_PATH, &where);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r == 0)
		r = mnt_clone(where, "", true, &mnt);
	if (r == 0)
		r = mnt_attr(mnt, MOUNT_ATTR_RDONLY, 0, true);
	if (r == 0)
		r = mnt_attach(mnt, where);
	return r < 0 ? err_errno(err, r, "read-only %s", path) : 0;
}

/* ---- the terminal ---- */

int tty_open(int root, struct tty *ret, struct err *err)
{
	cleanup_fd int master = -1;
	struct statfs fs;
	struct stat st;
	int unlock = 0, slave;
	/* A container can put anything there: only the multiplexer of a devpts will do. */
	int r = path_open(root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, &master);

	if (r == 0 && (fstatfs(master, &fs) < 0 || fstat(master, &st) < 0))
		r = -errno;
	if (r == 0 && (fs.f_type != DEVPTS_SUPER_MAGIC || st.st_rdev != makedev(5, 2)))
		r = -ENOTTY;
	if (r < 0)
		return err_errno(err, r, "/dev/pts/ptmx");
	if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
		return err_errno(err, -errno, "unlock the terminal");
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return err_errno(err, -errno, "open the terminal");
	ret->master = take_fd(&master);
	ret->slave = slave;
	return 0;
}

/* /dev/console = this terminal. */
static int tty_as_console(int root, int slave, struct err *err)
{
	cleanup_fd int where = -1;
	cleanup_fd int mnt = -1;
	int r = path_make(root, "/dev/console", PATH_FILE, &where);

	if (r == 0)
		r = mnt_clone(slave, "", false, &mnt);
	if (r == 0)
		r = mnt_attach(mnt, where);
	return r < 0 ? err_errno(err, r, "/dev/console") : 0;
}

static int mount_all(int root, const char *run_dir, const Agent__CreateContainerRequest *spec,
		     int *later, struct tty *tty, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < spec->n_mounts; i++) {
		later[i] = -1;
		r = mount_one(root, run_dir, spec->mounts[i], &later[i], err);
		if (r < 0)
			return err_wrap(err, r, "mount %s on %s", spec->mounts[i]->type,
					spec->mounts[i]->destination);
	}
	if (has_own_dev(spec))
		r = set_up_dev(root, spec->privileged, err);
	if (r == 0 && spec->process->terminal) {
		r = tty_open(root, tty, err);
		if (r == 0)
			r = tty_as_console(root, tty->slave, err);
	}
	for (size_t i = 0; r == 0 && i < spec->n_mounts; i++) {
		if (later[i] < 0)
			continue;
		r = mnt_attr(later[i], MOUNT_ATTR_RDONLY, 0, false);
		if (r < 0)
			err_errno(err, r, "read-only %s", spec->mounts[i]->destination);
	}
	return r;
}

int mounts_set_up(int root, const char *run_dir, const Agent__CreateContainerRequest *spec,
		  struct tty *ret_tty, struct err *err)
{
	int later[CONTAINER_MOUNTS_MAX]; /* closed by exec, or by the end of the child */
	int r;

	umask(0);
	r = mount_all(root, run_dir, spec, later, ret_tty, err);
	umask(022);
	for (size_t i = 0; r == 0 && i < spec->n_readonly_paths; i++)
		r = make_readonly(root, spec->readonly_paths[i], err);
	for (size_t i = 0; r == 0 && i < spec->n_masked_paths; i++)
		r = mask(root, spec->masked_paths[i], err);
	return r;
}

int mounts_enter(int root, struct err *err)
{
	/* The old root ends up on top of the new one and is taken off. */
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return err_errno(err, -errno, "pivot_root");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return err_errno(err, -errno, "leave the old root");
	return 0;
}
