#include "agent/proc/reap.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static struct child **find_child(struct reaper *r, pid_t pid)
{
	struct child **p = &r->buckets[(unsigned)pid % REAP_BUCKETS];

	while (*p && (*p)->pid != pid)
		p = &(*p)->next;
	return p;
}

static void reap_on_sigchld(struct ev_signal *s, int signo)
{
	struct reaper *r = s->arg;
	int status;
	pid_t pid;

	/* Until there is none: several SIGCHLD may have become one. */
	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		struct child **p = find_child(r, pid), *c = *p;

		if (!c)
			continue;
		if (WIFSTOPPED(status)) {
			if (c->stopped)
				c->stopped(c, status);
			continue;
		}
		*p = c->next;
		c->pid = 0;
		c->cb(c, status);
	}
}

int reaper_init(struct reaper *r, struct loop *l, struct err *err)
{
	static const int sigs[] = { SIGCHLD };

	*r = (struct reaper){ 0 };
	return ev_signal_add(l, &r->sig, sigs, 1, reap_on_sigchld, r, err);
}

void reaper_fini(struct reaper *r)
{
	ev_signal_del(&r->sig);
}

void reaper_add(struct reaper *r, struct child *c, pid_t pid, void (*cb)(struct child *, int),
		void *arg)
{
	struct child **head = &r->buckets[(unsigned)pid % REAP_BUCKETS];

	*c = (struct child){ .next = *head, .pid = pid, .cb = cb, .arg = arg };
	*head = c;
}

void reaper_del(struct reaper *r, struct child *c)
{
	struct child **p;

	if (c->pid == 0)
		return;
	p = find_child(r, c->pid);
	if (*p == c)
		*p = c->next;
	c->pid = 0;
}

unsigned exit_status_of(int wait_status)
{
	if (WIFSIGNALED(wait_status))
		return 128u + (unsigned)WTERMSIG(wait_status);
	return (unsigned)WEXITSTATUS(wait_status);
}
