#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

int pidfd_signal(int pidfd, int signo)
{
	if (pidfd < 0)
		return -ESRCH;
	return syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) < 0 ? -errno : 0;
}

int raise_nofile(rlim_t want)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return -errno;
	want = MIN_OF(want, l.rlim_max);
	if (l.rlim_cur >= want)
		return 0;
	l.rlim_cur = want;
	return setrlimit(RLIMIT_NOFILE, &l) < 0 ? -errno : 0;
}

int open_std_fds(void)
{
	int fd;

	/* The lowest that is free is taken. Not CLOEXEC: a standard stream is inherited. */
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -errno;
	(void)close(fd);
	return 0;
}

int program_path(const char *given, const char *name, char **ret, struct err *err)
{
	cleanup_free char *dir = NULL;
	char *path;
	int r;

	if (!str_empty(given)) {
		path = strdup(given);
	} else {
		r = program_dir(&dir, err);
		if (r < 0)
			return r;
		path = str_fmt("%s/%s", dir, name);
	}
	if (!path)
		return err_nomem(err);
	*ret = path;
	return 0;
}
