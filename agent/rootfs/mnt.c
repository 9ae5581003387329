#include "agent/rootfs/mnt.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/util.h"

/* What the file system itself says of its refusal: lines "e <text>" to be read from its context. */
static int fs_error(int fs, int code, const char *what, struct err *err)
{
	char line[256];
	ssize_t n = read(fs, line, sizeof(line) - 1);

	if (n <= 2)
		return err_errno(err, code, "%s", what);
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return err_errno(err, code, "%s: %s", what, line + 2);
}

int mnt_new(const char *fstype, const struct mnt_opt *opts, size_t n, uint64_t attr, int *ret_fd,
	    struct err *err)
{
	cleanup_fd int fs = fsopen(fstype, FSOPEN_CLOEXEC);
	int fd;

	if (fs < 0)
		return err_errno(err, -errno, "file system %s", fstype);
	for (size_t i = 0; i < n; i++) {
		unsigned cmd = opts[i].value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;

		if (fsconfig(fs, cmd, opts[i].key, opts[i].value, 0) < 0)
			return fs_error(fs, -errno, opts[i].key, err);
	}
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return fs_error(fs, -errno, fstype, err);
	fd = fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)attr);
	if (fd < 0)
		return err_errno(err, -errno, "mount %s", fstype);
	*ret_fd = fd;
	return 0;
}

int mnt_clone(int dir, const char *path, bool recursive, int *ret_fd)
{
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
	int fd;

	if (recursive)
		flags |= AT_RECURSIVE;
	if (*path == '\0')
		flags |= AT_EMPTY_PATH;
	fd = open_tree(dir, path, flags);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int mnt_attr(int fd, uint64_t set, uint64_t propagation, bool recursive)
{
	struct mount_attr a = { .attr_set = set, .propagation = propagation };

	if (set == 0 && propagation == 0)
		return 0;
	/* The access time modes are one field of several bits. */
	if (set & MOUNT_ATTR__ATIME)
		a.attr_clr = MOUNT_ATTR__ATIME;
	if (mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &a, sizeof(a)) <
	    0)
		return -errno;
	return 0;
}

int mnt_attach(int mnt, int where)
{
	if (move_mount(mnt, "", where, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

int mnt_attach_path(int mnt, const char *path)
{
	if (move_mount(mnt, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}
