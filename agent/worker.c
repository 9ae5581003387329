#include "agent/worker.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t clone_process(uint64_t flags, int cgroup, int *ret_pidfd)
{
	int pidfd = -1;
	struct clone_args args = {
		.flags = flags | (ret_pidfd ? CLONE_PIDFD : 0) |
			 (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	if (pid < 0)
		return -errno;
	if (pid > 0 && ret_pidfd)
		*ret_pidfd = pidfd;
	return (pid_t)pid;
}

static void on_exit_of(struct child *c, int status)
{
	struct worker *w = container_of(c, struct worker, child);

	w->done(w, WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO);
}

int worker_start(struct reaper *r, struct worker *w, int (*fn)(void *arg), void *arg,
		 void (*done)(struct worker *, int))
{
	pid_t pid = clone_process(0, -1, NULL);

	if (pid < 0)
		return pid;
	if (pid == 0)
		_exit(-fn(arg));
	w->done = done;
	reaper_add(r, &w->child, pid, on_exit_of, w);
	return 0;
}
