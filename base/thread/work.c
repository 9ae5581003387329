#include "base/thread/work.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"

struct queue {
	struct work_job *first, **last;
};

struct work {
	pthread_t thread;
	bool started;
	int event_fd; /* counts jobs that are done */
	struct ev_io io;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	struct queue todo, finished;
	bool ending;
};

static void queue_init(struct queue *q)
{
	q->first = NULL;
	q->last = &q->first;
}

static void queue_put(struct queue *q, struct work_job *j)
{
	j->next = NULL;
	*q->last = j;
	q->last = &j->next;
}

static struct work_job *queue_take(struct queue *q)
{
	struct work_job *j = q->first;

	if (j) {
		q->first = j->next;
		if (!q->first)
			q->last = &q->first;
	}
	return j;
}

static void *work_thread(void *arg)
{
	const uint64_t one = 1;
	struct work *w = arg;
	struct work_job *j;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!(j = queue_take(&w->todo)) && !w->ending)
			pthread_cond_wait(&w->more, &w->lock);
		if (!j)
			break;
		pthread_mutex_unlock(&w->lock);
		j->code = j->work(j, &j->err);
		pthread_mutex_lock(&w->lock);
		queue_put(&w->finished, j);
		/* Fails only when it counts to 2^64. */
		(void)!write(w->event_fd, &one, sizeof(one));
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static bool finish_one(struct work *w)
{
	struct work_job *j;

	pthread_mutex_lock(&w->lock);
	j = queue_take(&w->finished);
	pthread_mutex_unlock(&w->lock);
	if (j)
		j->done(j, j->code, &j->err);
	return j != NULL;
}

static void work_on_event(struct ev_io *io, uint32_t events)
{
	struct work *w = io->arg;
	uint64_t n;

	if (read(w->event_fd, &n, sizeof(n)) == sizeof(n))
		for (; n && finish_one(w); n--)
			;
}

int work_new(struct loop *l, struct work **ret, struct err *err)
{
	struct work *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_nomem(err);
	queue_init(&w->todo);
	queue_init(&w->finished);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->more, NULL);
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = w->event_fd < 0 ? -errno : ev_io_add(l, &w->io, w->event_fd, EPOLLIN, work_on_event, w);
	if (r == 0)
		r = -pthread_create(&w->thread, NULL, work_thread, w);
	w->started = r == 0;
	if (r < 0) {
		work_free(w);
		return err_errno(err, r, "start a thread");
	}
	*ret = w;
	return 0;
}

static void stop_thread(struct work *w)
{
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	w->started = false;
}

void work_free(struct work *w)
{
	if (!w)
		return;
	ev_io_del(&w->io);
	if (w->started)
		stop_thread(w);
	/* What the last ones add is done here. */
	for (;;) {
		struct work_job *j;

		while (finish_one(w))
			;
		j = queue_take(&w->todo);
		if (!j)
			break;
		j->code = j->work(j, &j->err);
		queue_put(&w->finished, j);
	}
	fd_close(&w->event_fd);
	pthread_cond_destroy(&w->more);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void work_add(struct work *w, struct work_job *j)
{
	j->code = 0;
	j->err = (struct err){ 0 };
	pthread_mutex_lock(&w->lock);
	queue_put(&w->todo, j);
	pthread_cond_signal(&w->more);
	pthread_mutex_unlock(&w->lock);
}
