#include "image/job/proc.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/spawn.h"
#include "base/util.h"

#define MAX_ARGS 8

int procs_init(struct procs *ps, struct loop *loop, const char *worker, struct err *err)
{
	cleanup_free char *dir = NULL;
	int r = worker ? 0 : program_dir(&dir, err);

	*ps = (struct procs){ .loop = loop };
	if (r < 0)
		return r;
	ps->worker = worker ? strdup(worker) : str_fmt("%s/husk-image-worker", dir);
	return ps->worker ? 0 : err_set(err, -ENOMEM, "no memory");
}

static void proc_free(struct proc *p)
{
	struct proc **at = &p->procs->list;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free(p);
}

static void on_child(struct ev_child *c, int status)
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
	char *argv[MAX_ARGS + 2] = { ps->worker };
	struct spawn sp = spawn_of(ps->worker, argv);
	struct proc *p = calloc(1, sizeof(*p));
	pid_t pid;
	int pidfd, r;

	if (!p)
		return err_set(err, -ENOMEM, "no memory");
	for (int k = 0; k < MAX_ARGS && args[k]; k++)
		argv[k + 1] = args[k];
	for (int k = 0; k < n_fds; k++)
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
	r = ev_child_add(ps->loop, &p->child, pid, pidfd, on_child, p);
	if (r < 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		free(p);
		return err_errno(err, r, "watch a child");
	}
	p->next = ps->list;
	ps->list = p;
	*ret = p;
	return 0;
}

static void proc_kill(struct proc *p)
{
	(void)syscall(SYS_pidfd_send_signal, p->child.pidfd, SIGKILL, NULL, 0);
}

void proc_drop(struct proc *p)
{
	if (!p)
		return;
	p->on_exit = NULL;
	p->owner = NULL;
	proc_kill(p);
}

void procs_close(struct procs *ps)
{
	for (struct proc *p = ps->list; p; p = p->next)
		proc_kill(p);
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
