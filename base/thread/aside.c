#include "base/thread/aside.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/util.h"

#define ASIDE_STACK (256 * KIB)

static void *aside_thread(void *arg)
{
	const uint64_t one = 1;
	struct aside *a = arg;

	a->code = a->work(a, &a->err);
	(void)!write(a->io.fd, &one, sizeof(one));
	return NULL;
}

static void aside_end(struct aside *a)
{
	int fd = a->io.fd;

	pthread_join(a->thread, NULL);
	ev_io_del(&a->io);
	fd_close(&fd);
}

static void aside_on_event(struct ev_io *io, uint32_t events)
{
	struct aside *a = io->arg;
	struct err err;

	aside_end(a);
	err = a->err; /* done may free or reuse the object */
	a->done(a, a->code, &err);
}

/* No signal of the process is for this thread. */
static int thread_start(struct aside *a)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r;

	r = -pthread_attr_init(&attr);
	if (r < 0)
		return r;
	(void)pthread_attr_setstacksize(&attr, ASIDE_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&a->thread, &attr, aside_thread, a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return r;
}

int aside_start(struct aside *a, struct loop *l, struct err *err)
{
	int fd, r;

	check(!a->io.loop);
	a->err = (struct err){ 0 };
	atomic_store(&a->hurry, false);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = fd < 0 ? -errno : ev_io_add(l, &a->io, fd, EPOLLIN, aside_on_event, a);
	if (r == 0) {
		r = thread_start(a);
		if (r < 0)
			ev_io_del(&a->io);
	}
	if (r < 0) {
		fd_close(&fd);
		return err_errno(err, r, "start a thread");
	}
	return 0;
}

bool aside_runs(const struct aside *a)
{
	return a->io.loop != NULL;
}

void aside_stop(struct aside *a)
{
	if (!aside_runs(a))
		return;
	atomic_store(&a->hurry, true);
	aside_end(a);
}
