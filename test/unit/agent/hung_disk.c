#include "test/unit/agent/hung_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

static char *place;
static int mounted = -1, guard_pipe = -1;
static pid_t guard_pid;

static noreturn_fn void guard(int until)
{
	char none;

	while (read(until, &none, 1) < 0 && errno == EINTR)
		;
	(void)ioctl(mounted, FITHAW, 0);
	fd_close(&mounted);
	_exit(umount2(place, MNT_DETACH) < 0);
}

static int start_guard(void)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	guard_pid = fork();
	if (guard_pid == 0) {
		close(fds[1]);
		guard(fds[0]);
	}
	close(fds[0]);
	guard_pipe = fds[1];
	return guard_pid < 0 ? -errno : 0;
}

int hung_disk_make(const char *dir)
{
	cleanup_free char *cmd =
		str_fmt("PATH=$PATH:/sbin:/usr/sbin; truncate -s 64M %s/hung.img &&"
			"mke2fs -q -F -t ext4 %s/hung.img && mount -o loop %s/hung.img %s/hung",
			dir, dir, dir, dir);

	place = str_fmt("%s/hung", dir);
	if (!cmd || !place || mkdir(place, 0700) < 0 || system(cmd) != 0)
		return -ENODEV;
	mounted = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mounted < 0 || start_guard() < 0) {
		(void)umount2(place, MNT_DETACH);
		return -EIO;
	}
	return 0;
}

void hung_disk_hang(bool on)
{
	/* EBUSY, EINVAL: it is so already. */
	if (ioctl(mounted, on ? FIFREEZE : FITHAW, 0) < 0 && errno != (on ? EBUSY : EINVAL)) {
		perror(on ? "FIFREEZE" : "FITHAW");
		abort();
	}
}

void hung_disk_free(void)
{
	if (guard_pipe >= 0) {
		fd_close(&guard_pipe);
		fd_close(&mounted);
		while (waitpid(guard_pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	free_ptr(&place);
}
