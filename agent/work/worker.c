#include "agent/work/worker.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/proc/clone.h"

static void worker_on_exit(struct child *c, int status)
{
	struct worker *w = container_of(c, struct worker, child);

	w->done(w, WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO);
}

int worker_start(struct reaper *r, struct worker *w, int (*fn)(void *arg), void *arg,
		 const int *keep, size_t n_keep, void (*done)(struct worker *, int))
{
	const struct clone_job job = { .cgroup = -1, .keep = keep, .n_keep = n_keep };
	pid_t pid = clone_process(&job, NULL);

	if (pid < 0)
		return pid;
	if (pid == 0)
		_exit(-fn(arg));
	w->done = done;
	reaper_add(r, &w->child, pid, worker_on_exit, w);
	return 0;
}
