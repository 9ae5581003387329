#include "image/store/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"
#include "image/store/db.h"
#include "image/store/internal.h"

struct queue {
	struct disk_job *first, **last;
};

struct disk {
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

static void queue_put(struct queue *q, struct disk_job *j)
{
	j->next = NULL;
	*q->last = j;
	q->last = &j->next;
}

static struct disk_job *queue_take(struct queue *q)
{
	struct disk_job *j = q->first;

	if (j) {
		q->first = j->next;
		if (!q->first)
			q->last = &q->first;
	}
	return j;
}

static void *disk_thread(void *arg)
{
	const uint64_t one = 1;
	struct disk *d = arg;
	struct disk_job *j;

	pthread_mutex_lock(&d->lock);
	for (;;) {
		while (!(j = queue_take(&d->todo)) && !d->ending)
			pthread_cond_wait(&d->more, &d->lock);
		if (!j)
			break;
		pthread_mutex_unlock(&d->lock);
		j->code = j->work(j, &j->err);
		pthread_mutex_lock(&d->lock);
		queue_put(&d->finished, j);
		/* Fails only when it counts to 2^64. */
		(void)!write(d->event_fd, &one, sizeof(one));
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

static bool finish_one(struct disk *d)
{
	struct disk_job *j;

	pthread_mutex_lock(&d->lock);
	j = queue_take(&d->finished);
	pthread_mutex_unlock(&d->lock);
	if (j)
		j->done(j, j->code, &j->err);
	return j != NULL;
}

static void disk_on_event(struct ev_io *io, uint32_t events)
{
	struct disk *d = io->arg;
	uint64_t n;

	if (read(d->event_fd, &n, sizeof(n)) == sizeof(n))
		for (; n && finish_one(d); n--)
			;
}

int disk_new(struct loop *l, struct disk **ret, struct err *err)
{
	struct disk *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_nomem(err);
	queue_init(&d->todo);
	queue_init(&d->finished);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->more, NULL);
	d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = d->event_fd < 0 ? -errno : ev_io_add(l, &d->io, d->event_fd, EPOLLIN, disk_on_event, d);
	if (r == 0)
		r = -pthread_create(&d->thread, NULL, disk_thread, d);
	d->started = r == 0;
	if (r < 0) {
		disk_free(d);
		return err_errno(err, r, "start the disk thread");
	}
	*ret = d;
	return 0;
}

static void stop_thread(struct disk *d)
{
	pthread_mutex_lock(&d->lock);
	d->ending = true;
	pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->thread, NULL);
	d->started = false;
}

void disk_free(struct disk *d)
{
	if (!d)
		return;
	ev_io_del(&d->io);
	if (d->started)
		stop_thread(d);
	/* What the last ones add is done here. */
	for (;;) {
		struct disk_job *j;

		while (finish_one(d))
			;
		j = queue_take(&d->todo);
		if (!j)
			break;
		j->code = j->work(j, &j->err);
		queue_put(&d->finished, j);
	}
	fd_close(&d->event_fd);
	pthread_cond_destroy(&d->more);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void disk_add(struct disk *d, struct disk_job *j)
{
	j->code = 0;
	j->err = (struct err){ 0 };
	pthread_mutex_lock(&d->lock);
	queue_put(&d->todo, j);
	pthread_cond_signal(&d->more);
	pthread_mutex_unlock(&d->lock);
}

/* ---- removal ---- */

struct removal {
	struct disk_job job;
	char path[];
};

static int disk_remove_work(struct disk_job *j, struct err *err)
{
	return unlink(((struct removal *)j)->path) < 0 ? -errno : 0;
}

static void disk_remove_done(struct disk_job *j, int code, const struct err *err)
{
	free(j);
}

void disk_unlink(struct disk *d, const char *path)
{
	size_t n = strlen(path) + 1;
	struct removal *r = calloc(1, sizeof(*r) + n);

	if (!r) {
		(void)unlink(path);
		return;
	}
	memcpy(r->path, path, n);
	r->job.work = disk_remove_work;
	r->job.done = disk_remove_done;
	disk_add(d, &r->job);
}

/* ---- sync ---- */

struct disk_sync {
	struct disk_job job;
	struct store *s;
	const char *layers_dir; /* NULL = nothing new is in it */
	char *log;		/* SQLite's write-ahead log */
	disk_sync_fn done;
	void *arg;
};

/*
 * In the disk thread. SQLite has written the rows to its log and not waited (synchronous=NORMAL);
 * a sync of that file by anybody makes them last. It has no locks on it that our close would drop
 * (those are on the -shm file). Without a log everything is in the database already.
 */
static int sync_log(const char *path, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fdatasync(fd) < 0)
		return err_errno(err, -errno, "sync %s", path);
	return 0;
}

static int disk_sync_work(struct disk_job *j, struct err *err)
{
	struct disk_sync *y = container_of(j, struct disk_sync, job);
	int r = y->layers_dir ? store_sync_dir(y->layers_dir, err) : 0;

	return r == 0 ? sync_log(y->log, err) : r;
}

static void disk_sync_done(struct disk_job *j, int code, const struct err *err)
{
	struct disk_sync *y = container_of(j, struct disk_sync, job);
	disk_sync_fn done = y->done;
	void *arg = y->arg;
	struct err copy = *err;

	if (code < 0 && y->layers_dir)
		y->s->layers_unsynced = true;
	free(y->log);
	free(y);
	if (done)
		done(arg, code, &copy);
}

int disk_sync(struct store *s, disk_sync_fn done, void *arg, struct disk_sync **ret,
	      struct err *err)
{
	struct disk_sync *y = calloc(1, sizeof(*y));

	if (y)
		y->log = str_fmt("%s/" DB_FILE "-wal", s->dir);
	if (!y || !y->log) {
		free(y);
		return err_nomem(err);
	}
	y->s = s;
	y->done = done;
	y->arg = arg;
	if (s->layers_unsynced)
		y->layers_dir = s->layers_dir;
	s->layers_unsynced = false;
	y->job.work = disk_sync_work;
	y->job.done = disk_sync_done;
	disk_add(s->disk, &y->job);
	*ret = y;
	return 0;
}

void disk_sync_forget(struct disk_sync *y)
{
	if (y)
		y->done = NULL;
}
