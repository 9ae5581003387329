#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/container.h"
#include "agent/proc/child.h"
#include "agent/proc/ns.h"
#include "base/util.h"

int pidfd_kill(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

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
		stdio_forget(&p->container->agent->stdio, p->claimed[i]);
}

/* Report and exit come in any order; every step is taken once. */
static void settle(struct process *p)
{
	struct container *c = p->container;

	if (p->report_fd >= 0)
		return;
	if (p->failure.kind == 0 && p->start) {
		if (!p->exec_id[0])
			c->state = CONTAINER_RUNNING;
		reply_started(p);
	}
	if (!p->exited)
		return;
	if (p->start) {
		forget_streams(p);
		reply_failed(p);
	}
	container_process_gone(c, p);
}

static int claim(struct process *p, int i, int fd, bool tty, struct err *err)
{
	struct container *c = p->container;
	int r = stdio_claim(&c->agent->stdio, c, p->want[i], i == 0 ? STREAM_INPUT : STREAM_OUTPUT,
			    fd, tty, err);

	if (r == 0)
		p->claimed[i] = p->want[i];
	return r;
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
		/* Without its streams it shall not run. */
		p->failure = (struct report){ .kind = REPORT_FAILED, .error = -r };
		snprintf(p->failure.stage, sizeof(p->failure.stage), "terminal");
		snprintf(p->failure.text, sizeof(p->failure.text), "%s", err_text(&err));
		(void)!pidfd_kill(p->pidfd, SIGKILL);
		return;
	}
	fd_close(&p->tty);
	p->tty = take_fd(&fd);
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
		if (rep.kind == REPORT_FAILED)
			p->failure = rep;
		return true;
	}
	ev_io_del(&p->report_io);
	fd_close(&p->report_fd);
	return false;
}

static void on_report(struct ev_io *io, uint32_t events)
{
	struct process *p = io->arg;

	if (!read_report(p))
		settle(p);
}

static void on_exited(struct child *child, int status)
{
	struct process *p = container_of(child, struct process, child);

	p->exited_at_ns = now_real_ns();
	p->exit_status = exit_status_of(status);
	p->exited = true;
	/* It wrote all it had to say before it ended, and nobody else holds the other end. */
	for (int i = 0; i < 4 && p->report_fd >= 0; i++)
		(void)read_report(p);
	if (p->report_fd >= 0) {
		ev_io_del(&p->report_io);
		fd_close(&p->report_fd);
	}
	settle(p);
}

void process_free(struct process *p)
{
	if (!p)
		return;
	ev_io_del(&p->report_io);
	reaper_del(&p->container->agent->reaper, &p->child);
	fd_close(&p->report_fd);
	fd_close(&p->pidfd);
	fd_close(&p->tty);
	if (p->start)
		ttrpc_reply_err(take_ptr(&p->start), -ECANCELED, NULL);
	free(p);
}

/* ---- the start ---- */

struct ends {
	int child[3]; /* what becomes 0, 1, 2 */
	int report;   /* the child's end */
};

static void ends_close(struct ends *e)
{
	for (int i = 0; i < 3; i++)
		fd_close(&e->child[i]);
	fd_close(&e->report);
}

/* One standard stream without a terminal: a pipe to the stream, or /dev/null. */
static int make_stream(struct process *p, int i, struct ends *e, struct err *err)
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

static int make_ends(struct process *p, const Agent__Process *spec, struct ends *e, struct err *err)
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

static int clone_child(struct process *p, const Agent__Process *spec, const struct ends *e,
		       struct err *err)
{
	struct container *c = p->container;
	struct agent *a = c->agent;
	struct process *first = NULL;
	uint64_t flags = 0;
	int ns = -1, r;

	if (p->exec_id[0]) {
		r = container_process(c, "", &first, err);
		if (r < 0)
			return r;
		ns = first->pidfd;
	} else {
		flags = CLONE_NEWNS;
		if (!str_empty(c->spec->hostname))
			flags |= CLONE_NEWUTS;
		if (c->spec->ipc_namespace == AGENT__NAMESPACE_MODE__PRIVATE)
			flags |= CLONE_NEWIPC;
		if (c->spec->pid_namespace == AGENT__NAMESPACE_MODE__PRIVATE)
			flags |= CLONE_NEWPID;
		else if ((r = ns_pod_pid(&a->pidns, &ns, err)) < 0)
			return r;
	}
	p->pid = ns_clone(&a->pidns, ns, flags, c->cgroup, &p->pidfd);
	if (p->pid == 0) {
		struct child_job job = {
			.run_dir = a->cfg.run_dir,
			.container = c->spec,
			.process = spec,
			.init_pidfd = first ? first->pidfd : -1,
			.rootfs = first ? -1 : c->rootfs.mnt,
			.report = e->report,
			.std = { e->child[0], e->child[1], e->child[2] },
		};
		child_run(&job);
	}
	/* The kernel's words for a pid namespace whose init is gone: the container is on its way
	 * out. */
	if (p->pid == -ENOMEM || p->pid == -ESRCH || p->pid == -EINVAL)
		return err_set(err, -EBUSY, "the container has no running process to join");
	if (p->pid < 0)
		return err_errno(err, p->pid, "clone");
	return 0;
}

int process_start(struct container *c, const char *exec_id, const Agent__Process *spec,
		  struct ttrpc_call *call, struct err *err)
{
	struct agent *a = c->agent;
	struct process *p = calloc(1, sizeof(*p));
	struct ends e = { { -1, -1, -1 }, -1 };
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->container = c;
	p->report_fd = p->pidfd = p->tty = -1;
	memcpy(p->exec_id, exec_id, strlen(exec_id) + 1); /* bounded by validate.c */
	if (spec->stdio) {
		p->want[0] = spec->stdio->stdin_stream;
		p->want[1] = spec->stdio->stdout_stream;
		p->want[2] = spec->stdio->stderr_stream;
	}
	p->oom_kills = c->oom_kills;
	r = make_ends(p, spec, &e, err);
	if (r == 0)
		r = ev_io_add(a->loop, &p->report_io, p->report_fd, EPOLLIN, on_report, p);
	if (r == 0)
		r = clone_child(p, spec, &e, err);
	ends_close(&e);
	if (r < 0) {
		forget_streams(p);
		process_free(p);
		return err_wrap(err, r, "start");
	}
	reaper_add(&a->reaper, &p->child, p->pid, on_exited, NULL);
	p->start = call;
	p->next = c->processes;
	c->processes = p;
	c->n_processes++;
	return 0;
}
