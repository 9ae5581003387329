/*
 * The event loop: epoll, timers, signals, children (pidfd) and wake-ups from other threads.
 * One loop, one thread; only loop_post may be called from elsewhere. Level-triggered.
 *
 * Sources are embedded in their owners, all zero before their first use; an owner that is freed
 * deletes them first. After ev_*_del no callback of that source comes any more,
 * not even from the batch in hand, so an owner may free itself in its own callback after deleting
 * its sources. Callbacks never block and do a bounded amount of work (64 KiB or 64 messages).
 *
 * HUSK_LOOP_BUDGET_MS in the environment (a debug build has 50 without it, 0 turns it off): a
 * callback that took longer, without the time for which other work had the CPUs, is logged, with
 * its address for `addr2line -f -e PROGRAM`.
 */
#ifndef HUSK_BASE_LOOP_H
#define HUSK_BASE_LOOP_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

struct loop;

int loop_new(struct loop **ret, struct err *err) must_check;
/* Every source must have been deleted (check). NULL is fine. */
void loop_free(struct loop *l);
/* Until loop_stop. Returns the value given there, or -errno of epoll_wait. */
int loop_run(struct loop *l) must_check;
/* One round, waiting at most timeout_ms (-1 = without end). Callbacks called, or -errno. */
int loop_once(struct loop *l, int timeout_ms) must_check;
void loop_stop(struct loop *l, int result);

/* Runs fn(arg) on the loop's thread soon. Any thread. Never called inside loop_post. -ENOMEM. */
int loop_post(struct loop *l, void (*fn)(void *arg), void *arg) must_check;

/* ---- descriptors ---- */
struct ev_io {
	struct loop *loop; /* NULL = not added */
	int fd;		   /* borrowed; delete before closing it */
	uint32_t events;
	void (*cb)(struct ev_io *io, uint32_t events);
	void *arg;
};
/* events: EPOLLIN, EPOLLOUT, EPOLLRDHUP. EPOLLHUP and EPOLLERR are always reported. -errno of
 * epoll_ctl. One that is added already is a bug (check). */
int ev_io_add(struct loop *l, struct ev_io *io, int fd, uint32_t events,
	      void (*cb)(struct ev_io *, uint32_t), void *arg) must_check;
/* Changes what an added source waits for; 0 = only HUP and ERR. */
int ev_io_set(struct ev_io *io, uint32_t events) must_check;
void ev_io_del(struct ev_io *io); /* nothing when it is not added */

/* ---- timers (one shot; add again for more), on CLOCK_MONOTONIC ---- */
struct ev_timer {
	struct loop *loop;
	uint64_t at_ns;
	size_t slot;
	void (*cb)(struct ev_timer *t);
	void *arg;
};
/* Starts, or moves a timer that runs. */
int ev_timer_add(struct loop *l, struct ev_timer *t, uint64_t after_ns,
		 void (*cb)(struct ev_timer *), void *arg) must_check;
void ev_timer_del(struct ev_timer *t);

/* ---- signals: blocked in the whole process and read from a signalfd ---- */
struct ev_signal {
	struct ev_io io;
	int fd;
	void (*cb)(struct ev_signal *s, int signo);
	void *arg;
};
/* Blocks `signals` in the calling thread; call before other threads start. */
int ev_signal_add(struct loop *l, struct ev_signal *s, const int *signals, size_t n,
		  void (*cb)(struct ev_signal *, int), void *arg, struct err *err) must_check;
void ev_signal_del(struct ev_signal *s);

/* ---- children ---- */
struct ev_child {
	struct ev_io io;
	int pidfd; /* owned */
	pid_t pid;
	/* status as from waitpid; the child has been reaped, the source is deleted already. */
	void (*cb)(struct ev_child *c, int status);
	void *arg;
};
/* Takes over pidfd, also on failure. */
int ev_child_add(struct loop *l, struct ev_child *c, pid_t pid, int pidfd,
		 void (*cb)(struct ev_child *, int status), void *arg) must_check;
/* Stops watching; the child is not reaped. */
void ev_child_del(struct ev_child *c);

#endif
