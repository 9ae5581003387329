#include "image/job/proc.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/check.h"
#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"

struct proc {
	struct procs *procs;
	struct proc *next;
	struct ev_child child;
	void (*on_exit)(void *owner, int status); /* NULL: the owner has let go */
	void *owner;
};

int procs_init(struct procs *ps, struct loop *loop, const char *worker, struct err *err)
{
	*ps = (struct procs){ .loop = loop };
	return program_path(worker, "husk-image-worker", &ps->worker, err);
}

static void proc_free(struct proc *p)
{
	struct proc **at = &p->procs->list;

	for (; *at != p; at = &(*at)->next)
		check(*at);
	*at = p->next;
	free(p);
}

static void proc_on_child(struct ev_child *c, int status)
{
	struct proc *p = c->arg;
	void (*on_exit_fn)(void *, int) = p->on_exit;
	void *owner = p->owner;

	proc_free(p);
	if (on_exit_fn)
		on_exit_fn(owner, status);
}

int proc_start(struct procs *ps, char *const *args, const int *fds, int n_fds,
	       void (*on_exit)(void *, int), void *owner, struct proc **ret, struct err *err)
{
	char *argv[PROC_MAX_ARGS + 2] = { ps->worker };
	struct spawn sp = spawn_of(ps->worker, argv, OOM_SCORE_WORKER);
	struct proc *p = calloc(1, sizeof(*p));
	int pidfd, k, r;
	pid_t pid;

	if (!p)
		return err_nomem(err);
	for (k = 0; args[k]; k++) {
		check(k < PROC_MAX_ARGS);
		argv[k + 1] = args[k];
	}
	check(n_fds <= SPAWN_MAX_FDS);
	for (k = 0; k < n_fds; k++)
		sp.fds[k] = fds[k];
	sp.n_fds = n_fds;
	r = spawn_run(&sp, &pid, &pidfd, err);
	if (r < 0) {
		free(p);
		return err_wrap(err, r, "start %s", ps->worker);
	}
	p->procs = ps;
	p->on_exit = on_exit;
	p->owner = owner;
	r = ev_child_add(ps->loop, &p->child, pid, pidfd, proc_on_child, p);
	if (r < 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		free(p);
		return err_errno(err, r, "watch %s", ps->worker);
	}
	p->next = ps->list;
	ps->list = p;
	*ret = p;
	return 0;
}

void proc_drop(struct proc *p)
{
	if (!p)
		return;
	p->on_exit = NULL;
	p->owner = NULL;
	(void)pidfd_signal(p->child.pidfd, SIGKILL);
}

void procs_close(struct procs *ps)
{
	for (struct proc *p = ps->list; p; p = p->next)
		(void)pidfd_signal(p->child.pidfd, SIGKILL);
	while (ps->list) {
		struct proc *p = ps->list;
		pid_t pid = p->child.pid;

		ev_child_del(&p->child);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		proc_free(p);
	}
	free(ps->worker);
	ps->worker = NULL;
}

/* ---- what owners say of a process ---- */

int proc_err_died(const char *mode, int code, struct err *err)
{
	return err_set(
		err, code,
		"husk-image-worker %s ended before its work was done: killed, perhaps by the "
		"kernel (see its log), or by a limit on memory or time",
		mode);
}

int proc_err_lost(const char *mode, int why, int code, struct err *err)
{
	return err_set(err, code, "read from husk-image-worker %s: %s", mode, strerror(-why));
}

int proc_err_protocol(const char *mode, struct err *err)
{
	struct err why = *err;

	return err_set(
		err, -EPROTO,
		"husk-image-worker %s broke its protocol (%.200s): is it of huskd's version, "
		"and was huskd restarted after an update?",
		mode, err_text(&why));
}
