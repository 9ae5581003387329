#include "image/store/ingest_wait.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/check.h"
#include "base/loop.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/store/blobs.h"
#include "image/store/internal.h"

/* ---- a lock of another process ---- */

/* Shared with the thread, which may live longer than the store: nothing interrupts flock(2). */
struct lock_wait {
	atomic_int owners; /* the loop's end, and the thread */
	int event_fd;	   /* readable: the lock was free for a moment, or the file is gone */
	char path[];
};

static void lock_wait_release(struct lock_wait *w)
{
	if (!w || atomic_fetch_sub(&w->owners, 1) != 1)
		return;
	fd_close(&w->event_fd);
	free(w);
}

static void *ingest_wait_thread(void *arg)
{
	const uint64_t one = 1;
	struct lock_wait *w = arg;
	int fd = open(w->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	while (fd >= 0 && flock(fd, LOCK_EX) < 0 && errno == EINTR)
		;
	fd_close(&fd);
	/* Fails only when it counts to 2^64. */
	(void)!write(w->event_fd, &one, sizeof(one));
	lock_wait_release(w);
	return NULL;
}

static int lock_wait_new(const char *dir, const char *digest, struct lock_wait **ret,
			 struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", dir, digest + strlen("sha256:"));
	size_t n = path ? strlen(path) + 1 : 0;
	struct lock_wait *w = path ? calloc(1, sizeof(*w) + n) : NULL;
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	if (!w)
		return err_nomem(err);
	memcpy(w->path, path, n);
	atomic_init(&w->owners, 2);
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = w->event_fd < 0 ? -errno : -pthread_attr_init(&attr);
	if (r == 0) {
		(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		r = -pthread_create(&thread, &attr, ingest_wait_thread, w);
		(void)pthread_attr_destroy(&attr);
	}
	if (r < 0) {
		atomic_store(&w->owners, 1);
		lock_wait_release(w);
		return err_errno(err, r, "wait for blob %s", digest);
	}
	*ret = w;
	return 0;
}

/* ---- files that are waited for ---- */

struct ingest_wait {
	struct store *s;
	struct ingest_wait *next;
	char digest[DIGEST_LEN + 1];
	struct waits waits;
	struct lock_wait *lock; /* NULL: a job of this process has the file */
	struct ev_io io;
};

static struct ingest_wait *find(struct store *s, const char *digest)
{
	struct ingest_wait *w = s->ingest_waits;

	while (w && !str_eq(w->digest, digest))
		w = w->next;
	return w;
}

static void ingest_wait_free(struct ingest_wait *w)
{
	struct ingest_wait **at = &w->s->ingest_waits;

	while (*at && *at != w)
		at = &(*at)->next;
	check(*at == w);
	*at = w->next;
	ev_io_del(&w->io);
	lock_wait_release(w->lock);
	while (waits_pop(&w->waits))
		;
	free(w);
}

static void ingest_wait_on_lock(struct ev_io *io, uint32_t events)
{
	struct ingest_wait *w = io->arg;
	const struct err none = { 0 };

	waits_run(&w->waits, 0, &none);
	ingest_wait_free(w);
}

static int wait_for_lock(struct ingest_wait *w, struct err *err)
{
	int r = lock_wait_new(w->s->ingest_dir, w->digest, &w->lock, err);

	if (r < 0)
		return r;
	r = ev_io_add(w->s->loop, &w->io, w->lock->event_fd, EPOLLIN, ingest_wait_on_lock, w);
	if (r < 0) {
		lock_wait_release(w->lock);
		w->lock = NULL;
		return err_errno(err, r, "wait for blob %s", w->digest);
	}
	return 0;
}

int ingest_wait_add(struct store *s, const char *digest, wait_fn fn, void *arg, struct err *err)
{
	struct ingest_wait *w = find(s, digest);
	bool is_new = !w;
	int r = 0;

	if (is_new) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return err_nomem(err);
		w->s = s;
		memcpy(w->digest, digest, sizeof(w->digest));
		w->next = s->ingest_waits;
		s->ingest_waits = w;
	}
	if (!w->lock && !ingest_is_open(s, digest))
		r = wait_for_lock(w, err);
	if (r == 0 && waits_add(&w->waits, fn, arg) < 0)
		r = err_nomem(err);
	if (r < 0 && is_new)
		ingest_wait_free(w);
	return r;
}

/* The thread goes on without one who waits: the next one for the same file finds it. */
void ingest_wait_remove(struct store *s, const char *digest, const void *arg)
{
	struct ingest_wait *w = find(s, digest);

	check(w);
	waits_remove(&w->waits, arg);
	if (!w->lock && waits_empty(&w->waits))
		ingest_wait_free(w);
}

void ingest_wait_run(struct store *s, const char *digest)
{
	struct ingest_wait *w = find(s, digest);
	const struct err none = { 0 };

	if (!w)
		return;
	waits_run(&w->waits, 0, &none);
	if (!w->lock)
		ingest_wait_free(w);
}

void ingest_wait_close(struct store *s)
{
	while (s->ingest_waits)
		ingest_wait_free(s->ingest_waits);
}
