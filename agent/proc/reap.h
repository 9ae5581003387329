/*
 * PID 1 reaps everything: children that a module waits for, and orphans that it has inherited. One
 * SIGCHLD handler on the loop; because fork, adding and reaping happen on the same thread, a child
 * that ends at once is still found.
 */
#ifndef HUSK_AGENT_PROC_REAP_H
#define HUSK_AGENT_PROC_REAP_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"

#define REAP_BUCKETS 256u

/* Embedded in its owner. */
struct child {
	struct child *next;
	pid_t pid; /* 0 = not added */
	/* status as from waitpid; the child is reaped and removed from the table already. */
	void (*cb)(struct child *c, int status);
	/* It has stopped, which only those do that we trace (hold.h). NULL = cannot be. */
	void (*stopped)(struct child *c, int status);
	void *arg;
};

struct reaper {
	struct ev_signal sig;
	struct child *buckets[REAP_BUCKETS];
};

/* Blocks SIGCHLD. */
int reaper_init(struct reaper *r, struct loop *l, struct err *err) must_check;
void reaper_fini(struct reaper *r);
/* Right after the fork, before the loop runs again. */
void reaper_add(struct reaper *r, struct child *c, pid_t pid, void (*cb)(struct child *, int),
		void *arg);
/* The callback is not called any more; the child is still reaped. */
void reaper_del(struct reaper *r, struct child *c);
/* Exit code, or 128 + signal. */
unsigned exit_status_of(int wait_status);

#endif
