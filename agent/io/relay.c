#include "agent/io/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "agent/limits.h"

static int wait_source(struct relay *r);
static int wait_destination(struct relay *r);

/* What a round ended with. */
enum outcome { MOVED, SOURCE_DRY, DESTINATION_FULL, STUCK, ENDED, BROKEN };

static enum outcome splice_round(struct relay *r)
{
	size_t moved = 0;

	while (moved < AGENT_RELAY_ROUND) {
		ssize_t n = splice(r->src, NULL, r->dst, NULL, AGENT_RELAY_ROUND,
				   SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

		if (n > 0) {
			moved += (size_t)n;
			continue;
		}
		if (n == 0)
			return ENDED;
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			return moved ? MOVED : STUCK;
		return BROKEN;
	}
	return MOVED;
}

static enum outcome buffer_round(struct relay *r)
{
	size_t moved = 0;

	while (moved < AGENT_RELAY_ROUND) {
		ssize_t n;

		if (buf_len(&r->buf) == 0) {
			n = buf_read_fd(&r->buf, r->src, AGENT_RELAY_BUF);
			if (n == -EAGAIN || n == -EINTR)
				return SOURCE_DRY;
			if (n <= 0) /* a terminal without users reads EIO */
				return n == 0 || n == -EIO ? ENDED : BROKEN;
		}
		n = buf_write_fd(&r->buf, r->dst);
		if (n == -EAGAIN || n == -EINTR)
			return DESTINATION_FULL;
		if (n < 0)
			return BROKEN;
		moved += (size_t)n;
	}
	return buf_len(&r->buf) ? DESTINATION_FULL : MOVED;
}

static void finish(struct relay *r, enum relay_end how)
{
	relay_stop(r);
	r->done(r, how);
}

static void relay_round(struct relay *r, bool from_source)
{
	int e = 0;

	switch (r->splice ? splice_round(r) : buffer_round(r)) {
	case MOVED:
	case SOURCE_DRY:
		e = wait_source(r);
		break;
	case DESTINATION_FULL:
		e = wait_destination(r);
		break;
	case STUCK:
		/* splice does not say which side it was: not the one that just reported to be
		 * ready. */
		e = from_source ? wait_destination(r) : wait_source(r);
		break;
	case ENDED:
		finish(r, RELAY_SOURCE_END);
		return;
	case BROKEN:
		e = -EIO;
		break;
	}
	if (e < 0)
		finish(r, RELAY_BROKEN);
}

static void relay_on_source(struct ev_io *io, uint32_t events)
{
	relay_round(io->arg, true);
}

static void relay_on_destination(struct ev_io *io, uint32_t events)
{
	struct relay *r = io->arg;

	if ((events & EPOLLOUT) && (io->events & EPOLLOUT))
		relay_round(r, false);
	else if (events & (EPOLLERR | EPOLLHUP))
		finish(r, RELAY_BROKEN);
}

static int wait_source(struct relay *r)
{
	int e = ev_io_set(&r->dst_io, 0);

	if (e == 0 && !r->src_io.loop)
		e = ev_io_add(r->loop, &r->src_io, r->src, EPOLLIN, relay_on_source, r);
	return e;
}

static int wait_destination(struct relay *r)
{
	ev_io_del(&r->src_io);
	return ev_io_set(&r->dst_io, EPOLLOUT);
}

int relay_start(struct relay *r, struct loop *l, int src, int dst, bool splice_it,
		void (*done)(struct relay *, enum relay_end))
{
	int e;

	*r = (struct relay){ .src = src, .dst = dst, .splice = splice_it, .loop = l, .done = done };
	buf_init(&r->buf, AGENT_RELAY_BUF);
	e = ev_io_add(l, &r->dst_io, dst, 0, relay_on_destination, r);
	if (e == 0)
		e = wait_source(r);
	if (e < 0)
		relay_stop(r);
	return e;
}

void relay_stop(struct relay *r)
{
	ev_io_del(&r->src_io);
	ev_io_del(&r->dst_io);
	buf_fini(&r->buf);
}
