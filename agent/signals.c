#include "agent/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent/proc/cgroup.h"
#include "agent/proc/procfs.h"
#include "agent/work/worker.h"
#include "base/process.h"
#include "base/util.h"

/* What has been killed is gone a moment later; what forks faster than it is killed is found
 * again. */
#define SWEEP_PATIENCE_NS (5 * NS_PER_S)
#define SWEEP_STEP_NS (1 * NS_PER_MS)
#define CHUNK 512u /* processes that are held by descriptor at once */

struct work {
	struct worker worker;
	struct ttrpc_call *call;
	int cgroup; /* the container's; the worker has a copy of its own */
	int signo;
	/* Of an exec: the namespace that all it started share; NULL = all of the container. It is
	 * held open: the kernel gives the number of one that is gone to the next exec at once. */
	const char *tag;
	int tag_fd; /* the worker has a copy of its own; -1 = none */
	uint64_t tag_id;
};

static int signals_pid_order(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return x < y ? -1 : x > y;
}

static bool is_tagged(const struct work *w, pid_t pid)
{
	uint64_t id;

	return !w->tag || (procfs_namespace(pid, w->tag, &id) == 0 && id == w->tag_id);
}

/* Signals those of `pids` that are still the container's. A number may have passed to a process
 * of somebody else since it was read: so it is held by a descriptor first, and then looked up
 * once more. */
static int signal_chunk(const struct work *w, const pid_t *pids, size_t n, size_t *ret_hit)
{
	cleanup_free pid_t *now = NULL;
	int fds[CHUNK];
	size_t n_now = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		fds[i] = (int)syscall(SYS_pidfd_open, pids[i], 0);
	r = cgroup_pids(w->cgroup, &now, &n_now, NULL);
	if (n_now > 0)
		qsort(now, n_now, sizeof(*now), signals_pid_order);
	for (size_t i = 0; i < n; i++) {
		if (r == 0 && fds[i] >= 0 && n_now > 0 &&
		    bsearch(&pids[i], now, n_now, sizeof(*now), signals_pid_order) &&
		    is_tagged(w, pids[i]) && pidfd_signal(fds[i], w->signo) == 0)
			++*ret_hit;
		fd_close(&fds[i]);
	}
	return r;
}

static int signal_round(const struct work *w, size_t *ret_hit)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;
	int r = cgroup_pids(w->cgroup, &pids, &n, NULL);

	*ret_hit = 0;
	for (size_t i = 0; r == 0 && i < n; i += CHUNK)
		r = signal_chunk(w, pids + i, MIN_OF(n - i, CHUNK), ret_hit);
	return r;
}

static int signals_work(void *arg)
{
	const struct timespec pause = { .tv_nsec = SWEEP_STEP_NS };
	const struct work *w = arg;
	uint64_t end = now_mono_ns() + SWEEP_PATIENCE_NS;
	size_t hit;
	int r;

	/* SIGKILL to an exec: until nothing of it is left. */
	while ((r = signal_round(w, &hit)) == 0 && hit > 0 && w->tag && w->signo == SIGKILL) {
		if (now_mono_ns() >= end)
			return -EBUSY;
		nanosleep(&pause, NULL);
	}
	return r;
}

static void signals_done(struct worker *worker, int result)
{
	struct work *w = container_of(worker, struct work, worker);
	Agent__SignalProcessResponse resp = AGENT__SIGNAL_PROCESS_RESPONSE__INIT;
	struct err err = { 0 };

	if (result < 0) {
		err_errno(&err, result, "signal %d to all", w->signo);
		ttrpc_reply_err(w->call, result, &err);
	} else {
		ttrpc_reply(w->call, &resp.base);
	}
	free(w);
}

static int start_work(struct container *c, const struct work *what, struct err *err)
{
	const int keep[] = { c->cgroup, what->tag_fd };
	struct work *w = malloc(sizeof(*w));
	int r;

	if (!w)
		return err_nomem(err);
	*w = *what;
	w->cgroup = c->cgroup;
	r = worker_start(&c->agent->reaper, &w->worker, signals_work, w, keep, ARRAY_SIZE(keep),
			 signals_done);
	if (r == 0)
		return 0;
	free(w);
	return err_errno(err, r, "signal %d to all", what->signo);
}

/* The tag of an exec's processes, with a descriptor that the caller closes. False: there is none
 * (yet), only the one process is to be signalled. */
static bool find_tag(struct container *c, const struct process *p, struct work *w)
{
	struct process *first;
	uint64_t others;

	if (container_process(c, "", &first, NULL) < 0)
		return false;
	w->tag_fd = procfs_open_namespace(p->pid, p->tag, &w->tag_id);
	if (w->tag_fd >= 0 && procfs_namespace(first->pid, p->tag, &others) == 0 &&
	    w->tag_id != others && procfs_namespace(getpid(), p->tag, &others) == 0 &&
	    w->tag_id != others)
		return true;
	fd_close(&w->tag_fd);
	return false;
}

static int to_all(struct container *c, struct process *p, int signo, struct ttrpc_call *call,
		  bool *ret_later, struct err *err)
{
	struct work w = { .call = call, .signo = signo, .tag_fd = -1 };
	int r;

	if (!p && signo == SIGKILL) {
		r = cgroup_kill(c->cgroup);
		return r < 0 ? err_errno(err, r, "cgroup.kill") : 0;
	}
	if (p) {
		if (!find_tag(c, p, &w))
			return process_signal(p, signo, err);
		w.tag = p->tag;
	}
	*ret_later = true;
	r = start_work(c, &w, err);
	fd_close(&w.tag_fd);
	return r;
}

int signals_send(struct container *c, const Agent__SignalProcessRequest *req,
		 struct ttrpc_call *call, struct err *err)
{
	Agent__SignalProcessResponse resp = AGENT__SIGNAL_PROCESS_RESPONSE__INIT;
	struct process *p = NULL;
	bool later = false;
	int r = container_process(c, req->exec_id, &p, err);

	if (req->signal == 0 || req->signal > (uint32_t)SIGRTMAX)
		return err_set(err, -EINVAL, "signal %u: 1 to %d expected", req->signal, SIGRTMAX);
	/* All of a container is there also when its first process has ended. */
	if (req->all && (r == 0 || (!*req->exec_id && container_was_started(c))))
		r = to_all(c, *req->exec_id ? p : NULL, (int)req->signal, call, &later, err);
	else if (r == 0)
		r = process_signal(p, (int)req->signal, err);
	if (r == 0 && !later)
		ttrpc_reply(call, &resp.base);
	return r;
}
