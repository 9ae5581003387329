#include "image/job/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"

#define UID_TEXT 16
#define LINE_MAX_SHOWN 240u  /* bytes of a line of what a worker says */
#define SAYS_MAX (256 * KIB) /* bytes of one worker; then it is listened to no more */
#define SAYS_CHUNK 4096u
#define SAYS_CHUNKS_AT_ONCE 4u

/* What a worker writes to its standard error. */
struct voice {
	struct ev_io io;
	int fd; /* -1: closed */
	const char *mode;
	pid_t pid;
	char line[LINE_MAX_SHOWN + 1];
	size_t len;
	uint64_t bytes;
};

struct proc {
	struct procs *procs;
	struct proc *next;
	struct ev_child child;
	void (*on_exit)(void *owner, int status); /* NULL: the owner has let go */
	void *owner;
	uint32_t uid; /* 0 = none of its own */
	struct voice voice;
};

int procs_init(struct procs *ps, struct loop *loop, const char *worker, struct err *err)
{
	*ps = (struct procs){ .loop = loop };
	return program_path(worker, "husk-image-worker", &ps->worker, err);
}

/* In a user namespace not every number is a user; the kernel refuses to become another one. */
static bool are_mapped(uint32_t first, uint32_t n)
{
	FILE *f = fopen("/proc/self/uid_map", "re");
	unsigned long long inside, outside, count;
	bool found = !f; /* a kernel without user namespaces */

	while (f && !found && fscanf(f, "%llu %llu %llu", &inside, &outside, &count) == 3)
		found = first >= inside && first + (uint64_t)n <= inside + count;
	if (f)
		(void)fclose(f);
	return found;
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
	if (n && !are_mapped(first, n)) {
		log_warn(
			"this user namespace has no users for image workers: all are nobody "
			"(images.worker-uid-first)");
		n = 0;
	}
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

/* ---- what it says ---- */

/*
 * A worker may have been taken over by what it reads, so it never has huskd's standard error: it
 * could write lines like huskd's own, and as many as it likes. Each of its lines is cut, made
 * printable, put behind its name, and counted.
 */
static void show(struct voice *v)
{
	char pid[16];

	if (!v->len)
		return;
	v->line[v->len] = 0;
	v->len = 0;
	(void)snprintf(pid, sizeof(pid), "%d", (int)v->pid);
	log_limited(LOG_WARN, "an image worker says", "mode", v->mode, "pid", pid, "text", v->line);
}

static void take(struct voice *v, const char *data, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		unsigned char c = (unsigned char)data[k];

		if (c == '\n')
			show(v);
		else if (v->len < LINE_MAX_SHOWN)
			v->line[v->len++] = c == '\t' ? ' ' : c < 0x20 || c > 0x7e ? '?' : (char)c;
	}
}

static void stop_listening(struct voice *v)
{
	ev_io_del(&v->io);
	fd_close(&v->fd);
}

/* False: there is nothing more, now or at all. */
static bool listen_once(struct voice *v)
{
	char buf[SAYS_CHUNK];
	ssize_t n = read(v->fd, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return errno == EINTR;
	if (n > 0) {
		take(v, buf, (size_t)n);
		v->bytes += (uint64_t)n;
		if (v->bytes < SAYS_MAX)
			return true;
	}
	stop_listening(v);
	return false;
}

static void proc_on_voice(struct ev_io *io, uint32_t events)
{
	for (unsigned k = 0; k < SAYS_CHUNKS_AT_ONCE; k++)
		if (!listen_once(io->arg))
			return;
}

static int voice_open(struct voice *v, struct loop *loop, const char *mode, int *ret_fd,
		      struct err *err)
{
	int p[2];

	*v = (struct voice){ .fd = -1, .mode = mode };
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	v->fd = p[0];
	if (fd_set_nonblock(v->fd, true) < 0 ||
	    ev_io_add(loop, &v->io, v->fd, EPOLLIN, proc_on_voice, v) < 0) {
		fd_close(&v->fd);
		close(p[1]);
		return err_nomem(err);
	}
	*ret_fd = p[1];
	return 0;
}

/* With what is left in the pipe. */
static void voice_close(struct voice *v)
{
	while (v->fd >= 0 && listen_once(v))
		;
	if (v->fd >= 0)
		stop_listening(v);
	show(v);
}

/* ---- its life ---- */

static void proc_free(struct proc *p)
{
	struct proc **at = &p->procs->list;

	for (; *at != p; at = &(*at)->next)
		check(*at);
	*at = p->next;
	voice_close(&p->voice);
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

/* The options that are the same for all, and then the mode and what it is told. */
static int fill_argv(struct procs *ps, struct proc *p, char *const *args, char *uid_text,
		     char **argv, struct err *err)
{
	int n = 1;

	if (ps->uids) {
		int r = choose_uid(ps, &p->uid, err);

		if (r < 0)
			return r;
		(void)snprintf(uid_text, UID_TEXT, "%u", p->uid);
		argv[n++] = (char *)"--uid";
		argv[n++] = uid_text;
	}
	for (int k = 0; args[k]; k++) {
		check(k < PROC_MAX_ARGS);
		argv[n++] = args[k];
	}
	return 0;
}

static int run(struct procs *ps, struct proc *p, char *const *args, const int *fds, int n_fds,
	       int *ret_pidfd, struct err *err)
{
	char *argv[PROC_MAX_ARGS + 4] = { ps->worker }, uid_text[UID_TEXT];
	struct spawn sp = spawn_of(ps->worker, argv, OOM_SCORE_WORKER);
	cleanup_fd int says = -1;
	int r = fill_argv(ps, p, args, uid_text, argv, err);

	check(n_fds > STDERR_FILENO && n_fds <= SPAWN_MAX_FDS);
	if (r == 0)
		r = voice_open(&p->voice, ps->loop, args[0], &says, err);
	if (r < 0)
		return r;
	for (int k = 0; k < n_fds; k++)
		sp.fds[k] = fds[k];
	sp.fds[STDERR_FILENO] = says;
	sp.n_fds = n_fds;
	return spawn_run(&sp, &p->voice.pid, ret_pidfd, err);
}

int proc_start(struct procs *ps, char *const *args, const int *fds, int n_fds,
	       void (*on_exit)(void *, int), void *owner, struct proc **ret, struct err *err)
{
	struct proc *p = calloc(1, sizeof(*p));
	int pidfd, r;

	if (!p)
		return err_nomem(err);
	p->voice.fd = -1;
	r = run(ps, p, args, fds, n_fds, &pidfd, err);
	if (r < 0) {
		voice_close(&p->voice);
		free(p);
		return err_wrap(err, r, "start %s", ps->worker);
	}
	p->procs = ps;
	p->on_exit = on_exit;
	p->owner = owner;
	r = ev_child_add(ps->loop, &p->child, p->voice.pid, pidfd, proc_on_child, p);
	if (r < 0) {
		(void)kill(p->voice.pid, SIGKILL);
		(void)waitpid(p->voice.pid, NULL, 0);
		voice_close(&p->voice);
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
