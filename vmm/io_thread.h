/*
 * One thread beside the main loop, for work that waits for disks or moves packets. It does its
 * owner's work when a kick comes, when the descriptor that the work waits for is ready, or when it
 * is woken; the main loop can make it pause, and then change what the work uses.
 *
 * Functions on the main loop's thread, except `work`, which runs on this one, and
 * io_thread_pausing, which is for `work`. Does not allocate: a thread that does costs an arena.
 */
#ifndef HUSK_VMM_IO_THREAD_H
#define HUSK_VMM_IO_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

#define IO_THREAD_KICKS_MAX 3

struct io_thread {
	pthread_t thread;
	bool runs;
	/* Some work, not too much at once. True: there is more. It ends early while
	 * io_thread_pausing. */
	bool (*work)(void *arg);
	void *arg;
	int wake; /* owned eventfd */
	/* Set by `work`: it is done again after so long without a kick; -1 = only after one. */
	int again_ms;
	/* Set by `work`: it is done as well when `fd` is ready for `fd_events`
	 * (POLLIN, POLLOUT; 0 = none). Borrowed. */
	int fd;
	short fd_events;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	unsigned held;
	bool busy, quit;
	int kicks[IO_THREAD_KICKS_MAX]; /* borrowed eventfds, non-blocking; -1 = none */
	atomic_bool pausing;
};

/* Starts it. `name` has at most 15 bytes. */
int io_thread_start(struct io_thread *t, const char *name, bool (*work)(void *arg), void *arg,
		    struct err *err) must_check;
/* Waits until the work in hand is done, ends the thread. All zero and not started is fine. */
void io_thread_stop(struct io_thread *t);
void io_thread_wake(struct io_thread *t);
/* While it is held: the eventfd to watch from now on as number `n` < IO_THREAD_KICKS_MAX. */
void io_thread_watch(struct io_thread *t, unsigned n, int kick);
/* On return no work is under way, and none begins before as many releases. Waits for what `work`
 * cannot interrupt. Nothing on a thread that is not started. */
void io_thread_hold(struct io_thread *t);
void io_thread_release(struct io_thread *t);

static inline bool io_thread_pausing(struct io_thread *t)
{
	return atomic_load_explicit(&t->pausing, memory_order_relaxed);
}

#endif
