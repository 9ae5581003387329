#include "shim/io/tee.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"

struct tee {
	struct tees *tees;
	struct tee *next;
	int fd;
	struct ev_io io; /* always, for a reader that goes; with EPOLLOUT while one is waited for */
	struct buf pending;
};

static void tee_free(struct tee *tee)
{
	struct tee **at = &tee->tees->first;

	while (*at != tee)
		at = &(*at)->next;
	*at = tee->next;
	tee->tees->n--;
	ev_io_del(&tee->io);
	fd_close(&tee->fd);
	buf_fini(&tee->pending);
	free(tee);
}

bool tees_full(const struct tees *t)
{
	for (const struct tee *tee = t->first; tee; tee = tee->next)
		if (buf_len(&tee->pending))
			return true;
	return false;
}

static void tee_on_io(struct ev_io *io, uint32_t events)
{
	struct tee *tee = io->arg;
	struct tees *t = tee->tees;
	bool waited = buf_len(&tee->pending) > 0;
	ssize_t n = 0;

	if (events & EPOLLERR)
		n = -EPIPE; /* nobody reads it any more */
	else if (waited)
		n = buf_write_fd(&tee->pending, tee->fd);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n >= 0 && buf_len(&tee->pending) == 0) {
		buf_fini(&tee->pending);
		n = ev_io_set(&tee->io, 0);
	}
	if (n < 0)
		tee_free(tee);
	if (waited && !tees_full(t))
		t->flushed(t->arg);
}

void tees_write(struct tees *t, const uint8_t *p, size_t n)
{
	struct tee *tee, *next;

	for (tee = t->first; tee; tee = next) {
		ssize_t w = write(tee->fd, p, n);
		int r = 0;

		next = tee->next;
		if (w < 0 && (errno == EAGAIN || errno == EINTR))
			w = 0;
		if (w < 0)
			r = -errno;
		if (w >= 0 && (size_t)w < n)
			r = buf_put(&tee->pending, p + w, n - (size_t)w);
		if (r == 0 && w >= 0 && (size_t)w < n)
			r = ev_io_set(&tee->io, EPOLLOUT);
		if (r < 0)
			tee_free(tee);
	}
}

int tees_add(struct tees *t, const char *path, struct err *err)
{
	cleanup_fd int fd = -1;
	struct tee *tee;
	struct stat st;
	int r;

	if (t->n >= TEES_MAX)
		return err_set(err, -ENOBUFS, "%u clients are attached already", TEES_MAX);
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, -errno, "open %s", path);
	if (!S_ISFIFO(st.st_mode))
		return err_set(err, -EINVAL, "%s is not a FIFO", path);
	tee = calloc(1, sizeof(*tee));
	if (!tee)
		return err_nomem(err);
	*tee = (struct tee){ .tees = t, .next = t->first, .fd = take_fd(&fd) };
	buf_init(&tee->pending, t->most);
	t->first = tee;
	t->n++;
	r = ev_io_add(t->loop, &tee->io, tee->fd, 0, tee_on_io, tee);
	if (r < 0) {
		tee_free(tee);
		return err_errno(err, r, "watch %s", path);
	}
	return 0;
}

void tees_end(struct tees *t)
{
	while (t->first)
		tee_free(t->first);
}
