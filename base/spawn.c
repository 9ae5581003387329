#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/util.h"

#define CHILD_STACK (64 * KIB)

/* What parent and child share while the child runs on the parent's memory (CLONE_VM | CLONE_VFORK).
 */
struct launch {
	const struct spawn *s;
	char *const *envp;
	pid_t parent;
	sigset_t mask; /* the caller's, for the parent afterwards */
	char score[8]; /* of oom_score_adj; "" = keep */
	int stage_errno;
	const char *stage; /* string constant: where the child failed */
};

struct spawn spawn_of(const char *path, char *const *argv, int oom_score_adj)
{
	struct spawn s = { .path = path, .argv = argv, .oom_score_adj = oom_score_adj };

	for (size_t i = 0; i < SPAWN_MAX_FDS; i++)
		s.fds[i] = -1;
	return s;
}

/* Moves the wanted descriptors to 0..n-1 without one overwriting another: first all go above the
 * range, then down. They lose CLOEXEC by dup2; everything else from n on is closed. */
no_sanitize static int child_fds(const struct spawn *s, int n)
{
	int high[SPAWN_MAX_FDS], fd;

	for (int i = 0; i < n; i++) {
		fd = i < s->n_fds ? s->fds[i] : -1;
		if (fd < 0 && i >= 3) {
			high[i] = -1;
			continue;
		}
		if (fd < 0) {
			high[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
			if (high[i] < 0)
				return -errno;
			fd = high[i];
		}
		high[i] = fcntl(fd, F_DUPFD_CLOEXEC, SPAWN_MAX_FDS);
		if (high[i] < 0)
			return -errno;
	}
	for (int i = 0; i < n; i++) {
		if (high[i] < 0)
			(void)close(i);
		else if (dup2(high[i], i) < 0)
			return -errno;
	}
	if (syscall(SYS_close_range, (unsigned)n, ~0u, 0) < 0)
		return -errno;
	return 0;
}

/* The child has a score of its own from here on, although it shares the parent's memory: the kernel
 * makes an exception for vfork. */
no_sanitize static int child_score(const char *score)
{
	size_t n = 0;
	int fd, r = 0;

	while (score[n])
		n++;
	if (n == 0)
		return 0;
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0) /* a /proc that is read-only, or not there */
		return errno == EACCES || errno == EROFS || errno == ENOENT ? 0 : -errno;
	/* Only less than the caller's is refused with EACCES. */
	if (write(fd, score, n) < 0 && errno != EACCES)
		r = -errno;
	(void)close(fd);
	return r;
}

no_sanitize static int child_main(void *arg)
{
	struct launch *l = arg;
	const struct spawn *s = l->s;
	static const unsigned long dfl[8]; /* the kernel's struct sigaction: SIG_DFL, no flags */
	sigset_t none;
	int r;

	/* Handlers of the parent must not run on shared memory; ignored signals would be inherited.
	 * By the system call: the C library keeps 32 and 33 for itself and refuses them. */
	for (int sig = 1; sig < NSIG; sig++)
		(void)syscall(SYS_rt_sigaction, sig, dfl, NULL, (size_t)(NSIG - 1) / 8);
	l->stage = "set-up";
	if (s->die_with_parent) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
			goto fail;
		if (getppid() != l->parent)
			_exit(127);
	}
	if (s->new_session && setsid() < 0)
		goto fail;
	if (s->cwd && chdir(s->cwd) < 0) {
		l->stage = "chdir";
		goto fail;
	}
	l->stage = "oom_score_adj";
	r = child_score(l->score);
	if (r < 0) {
		errno = -r;
		goto fail;
	}
	l->stage = "descriptors";
	r = child_fds(s, MAX_OF(s->n_fds, 3));
	if (r < 0) {
		errno = -r;
		goto fail;
	}
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	l->stage = "exec";
	execve(s->path, s->argv, l->envp);
fail:
	l->stage_errno = errno;
	_exit(127);
}

int spawn_run(const struct spawn *s, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
	struct launch l = { .s = s, .envp = s->envp ? s->envp : environ, .parent = getpid() };
	int pidfd = -1, pid, saved;
	sigset_t all;
	char *stack;

	if (s->n_fds < 0 || s->n_fds > SPAWN_MAX_FDS)
		return err_set(err, -EINVAL, "start %s: too many descriptors", s->path);
	check(s->oom_score_adj == OOM_SCORE_KEEP ||
	      (s->oom_score_adj >= -1000 && s->oom_score_adj <= 1000));
	if (s->oom_score_adj != OOM_SCORE_KEEP)
		(void)snprintf(l.score, sizeof(l.score), "%d", s->oom_score_adj);
	stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return err_errno(err, -errno, "start %s", s->path);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &l.mask);
	pid = clone(child_main, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
		    &l, &pidfd);
	saved = errno;
	pthread_sigmask(SIG_SETMASK, &l.mask, NULL);
	(void)munmap(stack, CHILD_STACK);
	if (pid < 0)
		return err_errno(err, -saved, "start %s", s->path);
	if (l.stage_errno) {
		(void)close(pidfd);
		(void)waitpid(pid, NULL, 0);
		if (str_eq(l.stage, "exec"))
			return err_errno(err, -l.stage_errno, "start %s", s->path);
		return err_errno(err, -l.stage_errno, "start %s: %s", s->path, l.stage);
	}
	*ret_pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}
