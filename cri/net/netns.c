#include "cri/net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/util.h"

int netns_dir_prepare(const char *dir, struct err *err)
{
	int r = mkdir_p(dir, 0755, err);

	if (r < 0)
		return r;
	if (mount("", dir, "none", MS_SHARED | MS_REC, NULL) == 0)
		return 0;
	/* EINVAL: not a mount yet. */
	if (errno != EINVAL || mount(dir, dir, "none", MS_BIND | MS_REC, NULL) < 0 ||
	    mount("", dir, "none", MS_SHARED | MS_REC, NULL) < 0)
		return err_errno(err, -errno, "share the mounts of %s", dir);
	return 0;
}

bool netns_there(const char *path)
{
	struct statfs st;

	return statfs(path, &st) == 0 && st.f_type == NSFS_MAGIC;
}

static int lo_up(struct err *err)
{
	cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { .ifr_name = "lo" };

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return err_errno(err, -errno, "look at lo");
	ifr.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		return err_errno(err, -errno, "set lo up");
	return 0;
}

static int mount_new(const char *path, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
	int r;

	if (fd < 0)
		return err_errno(err, -errno, "make %s", path);
	if (unshare(CLONE_NEWNET) < 0)
		return err_errno(err, -errno, "make a network namespace");
	r = lo_up(err);
	if (r == 0 && mount("/proc/thread-self/ns/net", path, "none", MS_BIND, NULL) < 0)
		r = err_errno(err, -errno, "mount it on %s", path);
	return r;
}

int netns_create(const char *path, struct err *err)
{
	int r;

	if (netns_there(path))
		return 0;
	r = mount_new(path, err);
	if (r < 0)
		(void)unlink(path);
	return r;
}

int netns_remove(const char *path, struct err *err)
{
	/* One may be mounted on another; the last of them all is the file. */
	while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	if (errno != EINVAL && errno != ENOENT)
		return err_errno(err, -errno, "unmount %s", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(err, -errno, "remove %s", path);
	return 0;
}
