#include "agent/process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/proc/child.h"
#include "agent/proc/hold.h"
#include "agent/proc/ns.h"
#include "agent/proc/procfs.h"
#include "base/check.h"
#include "base/process.h"
#include "base/util.h"

/* ---- the outcome of a start ---- */

static void reply_started(struct process *p)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;

	resp.pid = (uint32_t)p->pid;
	ttrpc_reply(take_ptr(&p->start), &resp.base);
}

static void reply_failed(struct process *p)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;
	Agent__StartFailure f = AGENT__START_FAILURE__INIT;

	f.stage = p->failure.stage;
	f.error = p->failure.error;
	f.message = p->failure.text;
	resp.failure = &f;
	ttrpc_reply(take_ptr(&p->start), &resp.base);
}

static void forget_streams(struct process *p)
{
	for (int i = 0; i < 3; i++)
		stdio_forget(&p->agent->stdio, p->claimed[i]);
}

/* Report and exit come in any order; every step is taken once. */
static void advance(struct process *p)
{
	if (p->report_fd >= 0 || p->held)
		return;
	if (p->failure.kind == 0 && p->start) {
		p->ops->running(p);
		reply_started(p);
	}
	if (!p->exited)
		return;
	if (p->start) {
		forget_streams(p);
		reply_failed(p);
	}
	check(!p->start); /* answered, once */
	p->ops->gone(p);
}

static void report_end(struct process *p)
{
	ev_timer_del(&p->start_timer);
	ev_io_del(&p->report_io);
	fd_close(&p->report_fd);
}

static int claim(struct process *p, int i, int fd, bool tty, struct err *err)
{
	int r = stdio_claim(&p->agent->stdio, p->owner, p->want[i],
			    i == 0 ? STREAM_INPUT : STREAM_OUTPUT, fd, tty, err);

	if (r == 0)
		p->claimed[i] = p->want[i];
	return r;
}

/* The child shall not run the program: the start fails with this when it is gone. */
static void refuse_start(struct process *p, const char *stage, int code, const char *text)
{
	p->failure = (struct report){ .kind = REPORT_FAILED, .error = -code };
	snprintf(p->failure.stage, sizeof(p->failure.stage), "%s", stage);
	snprintf(p->failure.text, sizeof(p->failure.text), "%s", text);
	(void)pidfd_signal(p->pidfd, SIGKILL);
}

/* The terminal is in the container's devpts; the child hands over the master. */
static void take_tty(struct process *p, int fd_in)
{
	cleanup_fd int fd = fd_in;
	struct err err = { 0 };
	int r = 0;

	for (int i = 0; r == 0 && i < 2; i++) {
		int copy;

		if (p->want[i] == 0)
			continue;
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		r = copy < 0 ? err_errno(&err, -errno, "dup") : claim(p, i, copy, true, &err);
	}
	if (r < 0) {
		refuse_start(p, "terminal", r, err_text(&err)); /* not without its streams */
		return;
	}
	fd_close(&p->tty);
	p->tty = take_fd(&fd);
}

/* ---- the time limit ---- */

/* Says what a child that has not come to exec is doing. True: it may need more time. */
static bool is_slow(const struct process *p, char stage[PROCFS_NAME_MAX])
{
	char state;

	snprintf(stage, PROCFS_NAME_MAX, "start");
	if (procfs_state(p->pid, &state, stage) < 0)
		return true; /* it has ended: its report and exit are on their way */
	return state == 'R' || state == 'D';
}

static void process_on_start_timer(struct ev_timer *t)
{
	struct process *p = t->arg;
	char stage[PROCFS_NAME_MAX], text[160];
	uint64_t passed_s = (now_mono_ns() - p->started_ns) / NS_PER_S;
	bool slow = is_slow(p, stage);

	if (slow && passed_s < AGENT_START_SLOW_LIMIT_S &&
	    ev_timer_add(p->agent->loop, t, NS_PER_S, process_on_start_timer, p) == 0)
		return;
	snprintf(text, sizeof(text), "the program was not reached within %u s: %s",
		 (unsigned)passed_s,
		 slow ? "there was no CPU time or disk for it"
		      : "something in the container stopped its start");
	refuse_start(p, stage, -ETIMEDOUT, text);
	/* Dying takes CPU time, too, which its container may not have. With SIGKILL pending it does
	 * not come back from the kernel, so it is nobody's way out of the cgroup. */
	cgroup_take_out(p->agent->cfg.cgroup_dir, p->pid);
}

/* ---- reports ---- */

/* Returns whether it may go on. */
static bool set_limit(struct process *p)
{
	struct err err = { 0 };
	int r = p->ops->limit(p, &err);

	if (r < 0)
		refuse_start(p, "cgroup", r, err_text(&err));
	return r == 0;
}

/* It goes on to its exec, once, and only if it waits: who traces it there may say anything. */
static void let_go(struct process *p)
{
	int r;

	if (!p->waits || p->failure.kind != 0)
		return;
	p->waits = false;
	p->held = p->limited && hold_at_exec(p->pid) == 0;
	/* Somebody traces it already: its exec takes place under its limit, then. */
	if (p->limited && !p->held && !set_limit(p))
		return;
	r = report_let_go(p->report_fd);
	/* -EPIPE, -ECONNRESET: it is gone, which its exit tells. */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET)
		refuse_start(p, "start", r, strerror(-r));
}

static void process_on_stop(struct child *child, int status)
{
	struct process *p = container_of(child, struct process, child);

	if (!hold_is_exec(p->pid, status))
		return;
	(void)set_limit(p);
	hold_release(p->pid);
	p->held = false;
	advance(p);
}

/* False when there is nothing more to come. */
static bool read_report(struct process *p)
{
	struct report rep;
	int fd, r = report_receive(p->report_fd, &rep, &fd);

	if (r == -EAGAIN)
		return true;
	if (r == 1) {
		if (rep.kind == REPORT_TTY && fd >= 0)
			take_tty(p, fd);
		else
			fd_close(&fd);
		if (rep.kind == REPORT_READY)
			let_go(p);
		if (rep.kind == REPORT_FAILED)
			p->failure = rep;
		return true;
	}
	/* No report that the child ever sends: its end does not say that the program runs. */
	if (r < 0 && p->failure.kind == 0)
		refuse_start(p, "report", r, strerror(-r));
	report_end(p);
	return false;
}

static void process_on_report(struct ev_io *io, uint32_t events)
{
	struct process *p = io->arg;

	if (!read_report(p))
		advance(p);
}

static void process_on_exit(struct child *child, int status)
{
	struct process *p = container_of(child, struct process, child);

	p->exited_at_ns = now_real_ns();
	p->exit_status = exit_status_of(status);
	p->exited = true;
	p->held = false;
	/* The child reports before it ends, and no other process holds the socket. */
	for (int i = 0; i < 4 && p->report_fd >= 0; i++)
		(void)read_report(p);
	report_end(p);
	advance(p);
}

void process_free(struct process *p)
{
	if (!p)
		return;
	report_end(p);
	reaper_del(&p->agent->reaper, &p->child);
	fd_close(&p->pidfd);
	fd_close(&p->tty);
	if (p->start)
		ttrpc_reply_err(take_ptr(&p->start), -ECANCELED, NULL);
	free(p);
}

/* ---- the start ---- */

struct child_fds {
	int child[3]; /* what becomes 0, 1, 2 */
	int report;   /* the child's end */
};

static void child_fds_close(struct child_fds *e)
{
	for (int i = 0; i < 3; i++)
		fd_close(&e->child[i]);
	fd_close(&e->report);
}

/* One standard stream without a terminal: a pipe to the stream, or /dev/null. */
static int make_stream(struct process *p, int i, struct child_fds *e, struct err *err)
{
	int fds[2];

	if (p->want[i] == 0) {
		e->child[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
		return e->child[i] < 0 ? err_errno(err, -errno, "/dev/null") : 0;
	}
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	e->child[i] = fds[i == 0 ? 0 : 1];
	return claim(p, i, fds[i == 0 ? 1 : 0], false, err);
}

static int make_fds(struct process *p, const Agent__Process *spec, struct child_fds *e,
		    struct err *err)
{
	int fds[2], r = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return err_errno(err, -errno, "socketpair");
	p->report_fd = fds[0];
	e->report = fds[1];
	for (int i = 0; r == 0 && i < 3 && !spec->terminal; i++)
		r = make_stream(p, i, e, err);
	return r;
}

/* The first process gets namespaces of its own; an exec is born in the first one's pid namespace
 * and joins the others itself. */
static int namespaces(const struct process_job *job, int *ret_ns, uint64_t *ret_flags,
		      struct err *err)
{
	const Agent__CreateContainerRequest *c = job->container;

	*ret_ns = job->first ? job->first->pidfd : -1;
	*ret_flags = 0;
	if (job->first)
		return 0;
	*ret_flags = CLONE_NEWNS;
	if (!str_empty(c->hostname))
		*ret_flags |= CLONE_NEWUTS;
	if (c->ipc_namespace == AGENT__NAMESPACE_MODE__PRIVATE)
		*ret_flags |= CLONE_NEWIPC;
	if (c->pid_namespace != AGENT__NAMESPACE_MODE__PRIVATE)
		return ns_pod_pid(&job->agent->pidns, ret_ns, err);
	*ret_flags |= CLONE_NEWPID;
	return 0;
}

/* A container that has handed controllers down to cgroups of its own (systemd, Docker in it) can
 * have no process beside them: the exec joins the first process, where that one has moved to. */
static pid_t clone_beside_first(struct process *p, const struct process_job *job, int ns,
				struct clone_job *clone)
{
	cleanup_fd int cgroup = -1;
	pid_t pid = cgroup_open_of(job->cgroup, job->container->id, job->first->pid, &cgroup);

	if (pid < 0)
		return pid;
	clone->cgroup = cgroup;
	return ns_clone(&p->agent->pidns, ns, clone, &p->pidfd);
}

noreturn_fn static void run_child(const struct process *p, const struct process_job *job,
				  const struct child_fds *e, bool nested)
{
	const struct child_job child = {
		.run_dir = p->agent->cfg.run_dir,
		.container = job->container,
		.process = job->spec,
		.init_pidfd = job->first ? job->first->pidfd : -1,
		.nested = nested,
		.waits = p->waits,
		.rootfs = job->rootfs,
		.report = e->report,
		.std = { e->child[0], e->child[1], e->child[2] },
	};

	child_run(&child);
}

static int clone_child(struct process *p, const struct process_job *job, const struct child_fds *e,
		       struct err *err)
{
	const int keep[] = { e->child[0], e->child[1], e->child[2],
			     e->report,	  job->rootfs, job->first ? job->first->pidfd : -1 };
	struct clone_job clone = { .cgroup = job->cgroup,
				   .keep = keep,
				   .n_keep = ARRAY_SIZE(keep) };
	bool nested = false;
	int ns, r = namespaces(job, &ns, &clone.flags, err);

	if (r < 0)
		return r;
	p->pid = ns_clone(&p->agent->pidns, ns, &clone, &p->pidfd);
	if (job->first && (p->pid == -EBUSY || p->pid == -EOPNOTSUPP)) {
		nested = true;
		p->pid = clone_beside_first(p, job, ns, &clone);
	}
	if (p->pid == 0)
		run_child(p, job, e, nested);
	p->tag = nested ? "uts" : "cgroup";
	/* The kernel's words for a pid namespace whose init is gone: the container is on its way
	 * out. */
	if (p->pid == -ENOMEM || p->pid == -ESRCH || p->pid == -EINVAL)
		return err_set(err, -EBUSY, "the container has no running process to join");
	if (p->pid < 0)
		return err_errno(err, p->pid, "clone");
	return 0;
}

int process_start(const struct process_job *job, struct ttrpc_call *call, struct process **ret,
		  struct err *err)
{
	struct agent *a = job->agent;
	const Agent__Stdio *stdio = job->spec->stdio;
	struct process *p = calloc(1, sizeof(*p));
	struct child_fds e = { { -1, -1, -1 }, -1 };
	int r;

	if (!p)
		return err_nomem(err);
	p->agent = a;
	p->owner = job->owner;
	p->ops = job->ops;
	p->limited = !job->first && cgroup_limits_cpu(job->container);
	p->waits = p->limited || job->spec->terminal;
	p->started_ns = now_mono_ns();
	p->report_fd = p->pidfd = p->tty = -1;
	memcpy(p->exec_id, job->exec_id, strlen(job->exec_id) + 1); /* bounded by validate.c */
	if (stdio) {
		p->want[0] = stdio->stdin_stream;
		p->want[1] = stdio->stdout_stream;
		p->want[2] = stdio->stderr_stream;
	}
	r = make_fds(p, job->spec, &e, err);
	if (r == 0)
		r = ev_io_add(a->loop, &p->report_io, p->report_fd, EPOLLIN, process_on_report, p);
	if (r == 0)
		r = ev_timer_add(a->loop, &p->start_timer, AGENT_START_LIMIT_S * NS_PER_S,
				 process_on_start_timer, p);
	if (r == 0)
		r = clone_child(p, job, &e, err);
	child_fds_close(&e);
	if (r < 0) {
		forget_streams(p);
		process_free(p);
		return err_wrap(err, r, "start");
	}
	reaper_add(&a->reaper, &p->child, p->pid, process_on_exit, NULL);
	p->child.stopped = process_on_stop;
	p->start = call;
	*ret = p;
	return 0;
}

/* ---- while it runs ---- */

int process_signal(const struct process *p, int sig, struct err *err)
{
	int r = pidfd_signal(p->pidfd, sig);

	if (r == -ESRCH)
		return err_set(err, -ENOENT, "the process has ended");
	return r < 0 ? err_errno(err, r, "signal %d", sig) : 0;
}

int process_resize(const struct process *p, uint32_t width, uint32_t height, struct err *err)
{
	struct winsize ws = { .ws_col = (unsigned short)width, .ws_row = (unsigned short)height };

	if (width > UINT16_MAX || height > UINT16_MAX)
		return err_set(err, -EINVAL, "terminal: larger than %d", UINT16_MAX);
	if (p->tty < 0)
		return err_set(err, -EBUSY, "the process has no terminal");
	return ioctl(p->tty, TIOCSWINSZ, &ws) < 0 ? err_errno(err, -errno, "resize") : 0;
}
