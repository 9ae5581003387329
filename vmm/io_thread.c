#include "vmm/io_thread.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"
#include "vmm/thread.h"

/* False: the end. */
static bool begin(struct io_thread *t)
{
	bool go;

	pthread_mutex_lock(&t->lock);
	while (t->held && !t->quit)
		pthread_cond_wait(&t->changed, &t->lock);
	go = !t->quit;
	t->busy = go;
	pthread_mutex_unlock(&t->lock);
	return go;
}

static void end(struct io_thread *t)
{
	pthread_mutex_lock(&t->lock);
	t->busy = false;
	if (t->held)
		pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
}

static void drain(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN && errno != EINTR)
		log_debug("io thread: an eventfd fails");
}

static void wait_for_work(struct io_thread *t)
{
	struct pollfd p[IO_THREAD_KICKS_MAX + 2], *kicks = p + 2;

	p[0] = (struct pollfd){ .fd = t->wake, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = t->fd_events ? t->fd : -1, .events = t->fd_events };
	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < IO_THREAD_KICKS_MAX; i++)
		kicks[i] = (struct pollfd){ .fd = t->kicks[i], .events = POLLIN };
	pthread_mutex_unlock(&t->lock);
	if (poll(p, ARRAY_SIZE(p), t->again_ms) < 0)
		return;
	if (p[0].revents)
		drain(t->wake);
	for (unsigned i = 0; i < IO_THREAD_KICKS_MAX; i++) {
		if (!kicks[i].revents)
			continue;
		/* Its number may have gone to another file in the meantime. */
		pthread_mutex_lock(&t->lock);
		if (t->kicks[i] == kicks[i].fd)
			drain(t->kicks[i]);
		pthread_mutex_unlock(&t->lock);
	}
}

static void *io_thread_main(void *arg)
{
	struct io_thread *t = arg;
	bool more;

	while (begin(t)) {
		more = t->work(t->arg);
		end(t);
		if (!more)
			wait_for_work(t);
	}
	return NULL;
}

int io_thread_start(struct io_thread *t, const char *name, bool (*work)(void *arg), void *arg,
		    struct err *err)
{
	int r;

	check(!t->runs);
	*t = (struct io_thread){ .work = work, .arg = arg, .again_ms = -1, .fd = -1 };
	for (unsigned i = 0; i < IO_THREAD_KICKS_MAX; i++)
		t->kicks[i] = -1;
	t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake < 0)
		return err_errno(err, -errno, "thread %s", name);
	/* Default attributes: cannot fail on Linux. */
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	r = thread_start(&t->thread, io_thread_main, t);
	if (r < 0) {
		fd_close(&t->wake);
		return err_errno(err, r, "thread %s", name);
	}
	t->runs = true;
	(void)pthread_setname_np(t->thread, name);
	return 0;
}

void io_thread_stop(struct io_thread *t)
{
	if (!t->runs)
		return;
	pthread_mutex_lock(&t->lock);
	t->quit = true;
	atomic_store(&t->pausing, true);
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	io_thread_wake(t);
	pthread_join(t->thread, NULL);
	t->runs = false;
	fd_close(&t->wake);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
}

void io_thread_wake(struct io_thread *t)
{
	uint64_t one = 1;

	if (t->runs && write(t->wake, &one, sizeof(one)) < 0)
		log_debug("io thread: woken already");
}

void io_thread_watch(struct io_thread *t, unsigned n, int kick)
{
	pthread_mutex_lock(&t->lock);
	check(t->held && n < IO_THREAD_KICKS_MAX);
	t->kicks[n] = kick;
	pthread_mutex_unlock(&t->lock);
}

void io_thread_hold(struct io_thread *t)
{
	if (!t->runs)
		return;
	pthread_mutex_lock(&t->lock);
	t->held++;
	atomic_store(&t->pausing, true);
	while (t->busy)
		pthread_cond_wait(&t->changed, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

void io_thread_release(struct io_thread *t)
{
	if (!t->runs)
		return;
	pthread_mutex_lock(&t->lock);
	check(t->held > 0);
	if (--t->held == 0)
		atomic_store(&t->pausing, false);
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	/* It looks at what it watches, and at what there is to do, anew. */
	io_thread_wake(t);
}
