#include "image/job/proc.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/spawn.h"
#include "base/util.h"
#include "image/store/store.h"

#define MAX_ARGS 8

static void proc_free(struct proc *p)
{
	struct proc **at = &p->store->procs;

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

int proc_start(struct image_store *s, char *const *args, const int *fds, int n_fds,
	       void (*on_exit)(void *, int), void *owner, struct proc **ret, struct err *err)
{
	char *argv[MAX_ARGS + 2] = { s->worker };
	struct spawn sp = spawn_of(s->worker, argv);
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
		return err_wrap(err, r, "start %s", s->worker);
	}
	p->store = s;
	p->on_exit = on_exit;
	p->owner = owner;
	r = ev_child_add(s->loop, &p->child, pid, pidfd, on_child, p);
	if (r < 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		free(p);
		return err_errno(err, r, "watch a child");
	}
	p->next = s->procs;
	s->procs = p;
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

void procs_close(struct image_store *s)
{
	for (struct proc *p = s->procs; p; p = p->next)
		proc_kill(p);
	while (s->procs) {
		struct proc *p = s->procs;
		pid_t pid = p->child.pid;

		ev_child_del(&p->child);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		proc_free(p);
	}
}
