/*
 * Work that may wait (for the kernel's lock of all networks, for a disk, for another process), in a
 * thread of its own beside the loop. The thread touches nothing but what its `work` is given.
 */
#ifndef HUSK_BASE_THREAD_ASIDE_H
#define HUSK_BASE_THREAD_ASIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"

/* Embedded in its owner, all zero before its first use. */
struct aside {
	int (*work)(struct aside *a, struct err *err); /* in the thread */
	/* On the loop; the work is over, the owner may start another or free itself. */
	void (*done)(struct aside *a, int code, const struct err *err);
	/* Set from the loop: a work that waits gives up. */
	atomic_bool hurry;
	pthread_t thread;
	struct ev_io io; /* of an eventfd; added = it runs */
	int code;
	struct err err;
};

/* work and done are set. A failure to start is returned, `done` does not come then. */
int aside_start(struct aside *a, struct loop *l, struct err *err) must_check;
bool aside_runs(const struct aside *a);
/* Waits for the thread, which is told to hurry; `done` does not come any more. */
void aside_stop(struct aside *a);

#endif
