#include "agent/proc/clone.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"

static int clone_fd_order(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void close_others(const struct clone_job *job)
{
	int keep[CLONE_KEEP_MAX];
	unsigned next = STDERR_FILENO + 1;

	if (job->n_keep > 0)
		memcpy(keep, job->keep, job->n_keep * sizeof(keep[0]));
	qsort(keep, job->n_keep, sizeof(keep[0]), clone_fd_order);
	for (size_t i = 0; i < job->n_keep; i++) {
		if (keep[i] < (int)next)
			continue;
		if ((unsigned)keep[i] > next)
			(void)close_range(next, (unsigned)keep[i] - 1, 0);
		next = (unsigned)keep[i] + 1;
	}
	(void)close_range(next, ~0u, 0);
}

pid_t clone_process(const struct clone_job *job, int *ret_pidfd)
{
	int pidfd = -1;
	struct clone_args args = {
		.flags = job->flags | (ret_pidfd ? CLONE_PIDFD : 0) |
			 (job->cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = job->cgroup >= 0 ? (uint64_t)job->cgroup : 0,
	};
	long pid;

	check(job->n_keep <= CLONE_KEEP_MAX);
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		return -errno;
	if (pid == 0)
		close_others(job);
	else if (ret_pidfd)
		*ret_pidfd = pidfd;
	return (pid_t)pid;
}
