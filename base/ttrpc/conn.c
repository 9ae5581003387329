#include "base/ttrpc/conn.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/util.h"

#define READ_MOST (64 * KIB)
#define THROTTLE_AT (TTRPC_QUEUE_MAX / 4)
/* A buffer that grew above this is given back when it is empty. */
#define KEEP_MOST (4 * KIB)

static void trim(struct buf *b)
{
	if (buf_len(b) == 0 && b->cap > KEEP_MOST)
		buf_fini(b);
}

static void throttle(struct ttrpc_conn *c)
{
	size_t n = buf_len(&c->out);

	if (c->ops->throttle)
		c->throttled = n > (c->throttled ? THROTTLE_AT / 2 : THROTTLE_AT);
}

/* 0 also when the socket takes no more now. */
static int send_queue(struct ttrpc_conn *c)
{
	ssize_t n;

	while (buf_len(&c->out) > 0) {
		n = send(c->fd, buf_data(&c->out), buf_len(&c->out), MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		buf_consume(&c->out, (size_t)n);
	}
	trim(&c->out);
	return 0;
}

/* Nothing more can happen: the peer sends no more, and we owe it nothing. */
static bool finished(const struct ttrpc_conn *c)
{
	if (!c->eof)
		return false;
	return !c->ops->busy || (buf_len(&c->out) == 0 && !c->ops->busy(c));
}

static int watch(struct ttrpc_conn *c)
{
	uint32_t events = 0;

	if (!c->eof && !c->throttled)
		events |= EPOLLIN;
	if (buf_len(&c->out) > 0)
		events |= EPOLLOUT;
	return ev_io_set(&c->io, events);
}

void ttrpc_conn_end(struct ttrpc_conn *c, int code)
{
	if (c->ended || c->fd < 0)
		return;
	c->ended = true;
	c->code = code;
	/* Makes the socket ready (EPOLLHUP), so that the callback comes. */
	(void)shutdown(c->fd, SHUT_RDWR);
	if (!c->in_call && ev_io_set(&c->io, EPOLLIN | EPOLLOUT) < 0)
		return; /* HUP is reported without it */
}

void ttrpc_conn_flush(struct ttrpc_conn *c)
{
	int r;

	if (c->in_call || c->ended || c->fd < 0)
		return;
	/* A queue that waits for EPOLLOUT is sent by the callback, which then also takes frames
	 * that were left when the peer was throttled. */
	if (c->io.events & EPOLLOUT)
		return;
	r = send_queue(c);
	throttle(c);
	if (r == 0 && !finished(c))
		r = watch(c);
	if (r < 0 || finished(c))
		ttrpc_conn_end(c, r);
}

/* Frames that are there, as long as the peer takes the answers. false: `c` is gone. */
static bool take_frames(struct ttrpc_conn *c)
{
	struct ttrpc_frame f;
	bool gone = false;

	c->gone = &gone;
	while (!c->ended && !c->throttled && ttrpc_decode(&c->dec, &c->in, &f)) {
		c->ops->frame(c, &f);
		if (gone)
			return false;
		throttle(c);
	}
	c->gone = NULL;
	trim(&c->in);
	return true;
}

static int receive(struct ttrpc_conn *c)
{
	ssize_t n = buf_read_fd(&c->in, c->fd, READ_MOST);

	if (n == 0)
		c->eof = true;
	return n < 0 && n != -EAGAIN ? (int)n : 0;
}

static void conn_on_ready(struct ev_io *io, uint32_t events)
{
	struct ttrpc_conn *c = io->arg;
	const bool hup = events & (EPOLLHUP | EPOLLERR);
	int r = 0;

	c->in_call = true;
	if (!c->ended && (events & EPOLLOUT)) {
		r = send_queue(c);
		throttle(c);
	}
	if (r == 0 && !c->ended && !c->eof && !c->throttled && (hup || (events & EPOLLIN)))
		r = receive(c);
	for (bool more = r == 0; more;) {
		if (!take_frames(c))
			return;
		more = c->throttled;
		r = c->ended ? 0 : send_queue(c);
		throttle(c);
		/* The queue drained at once: frames may be left, and no event would tell. */
		more = more && !c->throttled && r == 0 && !c->ended;
	}
	c->in_call = false;
	/* After a hang-up nobody reads our answers; what the peer sent before is read first. */
	if (r == 0 && hup && (c->eof || c->throttled))
		r = -ECONNRESET;
	if (r == 0 && !c->ended && !finished(c))
		r = watch(c);
	if (r == 0 && !c->ended && !finished(c))
		return;
	if (!c->ended)
		c->code = r;
	c->ended = true;
	ev_io_del(&c->io);
	c->ops->closed(c, c->code);
}

int ttrpc_conn_init(struct ttrpc_conn *c, struct loop *l, int fd, const struct ttrpc_conn_ops *ops)
{
	int r;

	*c = (struct ttrpc_conn){ .loop = l, .fd = fd, .ops = ops };
	buf_init(&c->in, TTRPC_FRAME_MAX + READ_MOST);
	buf_init(&c->out, TTRPC_QUEUE_MAX);
	r = fd_set_nonblock(fd, true);
	if (r == 0)
		r = ev_io_add(l, &c->io, fd, EPOLLIN, conn_on_ready, c);
	if (r < 0)
		ttrpc_conn_fini(c);
	return r;
}

void ttrpc_conn_fini(struct ttrpc_conn *c)
{
	if (c->gone)
		*c->gone = true;
	c->gone = NULL;
	ev_io_del(&c->io);
	fd_close(&c->fd);
	buf_fini(&c->in);
	buf_fini(&c->out);
}
