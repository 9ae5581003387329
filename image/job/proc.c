#include "image/job/proc.h"

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
	uint32_t uid; /* 0 = none of its own */
};

int procs_init(struct procs *ps, struct loop *loop, const char *worker, struct err *err)
{
	*ps = (struct procs){ .loop = loop };
	return program_path(worker, "husk-image-worker", &ps->worker, err);
}

/* Only the host's own file: a directory service may be on the other end of a slow line. */
int procs_set_uids(struct procs *ps, uint32_t first, uint32_t n, struct err *err)
{
	FILE *f = fopen("/etc/passwd", "re");
	const struct passwd *pw;
	int r = 0;

	while (f && r == 0 && (pw = fgetpwent(f)))
		if (pw->pw_uid >= first && pw->pw_uid - first < n)
			r = err_set(err, -EINVAL,
				    "user %.64s of this host has uid %u, which is one of the image "
				    "workers' (%u and the %u after it): choose other ones "
				    "(images.worker-uid-first, images.worker-uids)",
				    pw->pw_name, pw->pw_uid, first, n - 1);
	if (f)
		(void)fclose(f);
	if (r < 0)
		return r;
	ps->uid_first = first;
	ps->uids = n;
	/* Where several huskd share a host, they need not begin with the same one. */
	ps->uid_next = n ? (uint32_t)getpid() % n : 0;
	return 0;
}

static bool uid_taken(const struct procs *ps, uint32_t uid)
{
	for (const struct proc *p = ps->list; p; p = p->next)
		if (p->uid == uid)
			return true;
	return false;
}

/* One that no child has, also none that is not reaped yet. */
static int choose_uid(struct procs *ps, uint32_t *ret, struct err *err)
{
	for (uint32_t k = 0; k < ps->uids; k++) {
		uint32_t uid = ps->uid_first + ps->uid_next++ % ps->uids;

		if (!uid_taken(ps, uid)) {
			*ret = uid;
			return 0;
		}
	}
	return err_set(err, -EAGAIN, "more than %u processes at once (images.worker-uids)",
		       ps->uids);
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
	char *argv[PROC_MAX_ARGS + 4] = { ps->worker }, uid_text[16];
	struct spawn sp = spawn_of(ps->worker, argv, OOM_SCORE_WORKER);
	struct proc *p = calloc(1, sizeof(*p));
	int pidfd, k, n = 1, r;
	pid_t pid;

	if (!p)
		return err_nomem(err);
	if (ps->uids) {
		r = choose_uid(ps, &p->uid, err);
		if (r < 0) {
			free(p);
			return err_wrap(err, r, "start %s", ps->worker);
		}
		(void)snprintf(uid_text, sizeof(uid_text), "%u", p->uid);
		argv[n++] = (char *)"--uid";
		argv[n++] = uid_text;
	}
	for (k = 0; args[k]; k++) {
		check(k < PROC_MAX_ARGS);
		argv[n++] = args[k];
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
