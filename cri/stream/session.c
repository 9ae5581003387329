#include "cri/stream/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

/* An output of the process. */
struct pump {
	struct stream_session *s;
	enum channel ch;
	int fd; /* -1 = it has ended, or there is none */
	struct ev_io io;
};

struct stream_session {
	struct loop *loop;
	struct stream_want want;
	bool plain; /* statuses are texts */
	const struct stream_ops *ops;
	void *ops_arg;
	session_changed_fn changed;
	void *arg;
	struct wire *wire;
	struct buf out;
	bool busy; /* inside session_feed: the connection sees what has changed itself */
	bool opened, running, exited, left;
	bool closed;   /* the owner is told */
	bool finished; /* and so is the client */
	int exit_code;

	int in_fd;
	struct ev_io in_io;
	struct buf in;	 /* what the process did not take yet */
	bool in_ended;	 /* the client sends no more */
	bool in_refused; /* the process takes no more */
	struct pump outputs[2];
	struct ev_timer silence;
	struct remote_sizes sizes;
	unsigned width, height; /* the last size before `open` */
};

/* Bytes in transit; callbacks do not nest. */
static uint8_t chunk[SESSION_CHUNK];

static void tell_changed(struct stream_session *s)
{
	if (!s->busy)
		s->changed(s->arg);
}

static void tell_closed(struct stream_session *s)
{
	if (s->closed)
		return;
	s->closed = true;
	s->ops->closed(s->ops_arg);
}

/* From now on what the client sends is dropped. */
static void close_input(struct stream_session *s)
{
	ev_io_del(&s->in_io);
	fd_close(&s->in_fd);
	buf_fini(&s->in);
	s->in_refused = true;
}

static void close_output(struct pump *p)
{
	ev_io_del(&p->io);
	fd_close(&p->fd);
}

static void close_all(struct stream_session *s)
{
	close_input(s);
	for (size_t i = 0; i < ARRAY_SIZE(s->outputs); i++)
		close_output(&s->outputs[i]);
	ev_timer_del(&s->silence);
}

/* ---- the end ---- */

/* The last words to the client. Nothing of the session may be used after `changed`. */
static void finish(struct stream_session *s, char *status)
{
	int r = status ? 0 : -ENOMEM;

	close_all(s);
	s->finished = true;
	for (int ch = CHANNEL_OUT; ch <= CHANNEL_ERR && r == 0; ch++)
		r = wire_end(s->wire, (enum channel)ch);
	if (r == 0 && *status)
		r = wire_send(s->wire, CHANNEL_STATUS, (const uint8_t *)status, strlen(status));
	for (int ch = 0; ch < CHANNELS && r == 0; ch++)
		r = wire_end(s->wire, (enum channel)ch);
	if (r == 0)
		r = wire_close(s->wire);
	/* Without memory for it the client sees a connection that ends without a status. */
	free(status);
	tell_closed(s);
	tell_changed(s);
}

/* True: it was, and nothing of the session may be used. */
static bool finish_if_due(struct stream_session *s)
{
	if (!s->exited || s->finished || s->outputs[0].fd >= 0 || s->outputs[1].fd >= 0)
		return false;
	finish(s, remote_exit_status(s->exit_code, s->plain));
	return true;
}

void stream_fail(struct stream_session *s, const char *why, int exit_code)
{
	if (s->finished)
		return;
	finish(s, remote_failure(why, exit_code, s->plain));
}

/* ---- output ---- */

static void session_on_output(struct ev_io *io, uint32_t events);

static bool out_full(const struct stream_session *s)
{
	return buf_len(&s->out) >= SESSION_OUT_HIGH;
}

static void session_on_silence(struct ev_timer *t)
{
	struct stream_session *s = t->arg;

	/* A client that does not read is not a process that does not write. */
	if (out_full(s) &&
	    ev_timer_add(s->loop, t, SESSION_SILENCE_MS * NS_PER_MS, session_on_silence, s) == 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(s->outputs); i++)
		close_output(&s->outputs[i]);
	(void)finish_if_due(s);
}

/* From now on, once the process has ended. Without memory for it the connection's time counts. */
static void watch_silence(struct stream_session *s)
{
	if (s->exited)
		(void)!ev_timer_add(s->loop, &s->silence, SESSION_SILENCE_MS * NS_PER_MS,
				    session_on_silence, s);
}

/* Listens to the outputs, or does not, as the client reads. */
static void watch_outputs(struct stream_session *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(s->outputs); i++) {
		struct pump *p = &s->outputs[i];

		if (p->fd < 0)
			continue;
		/* Not only disarmed: a FIFO that hung up would be reported for ever. */
		if (out_full(s)) {
			ev_io_del(&p->io);
		} else if (!p->io.loop) {
			if (ev_io_add(s->loop, &p->io, p->fd, EPOLLIN, session_on_output, p) < 0)
				close_output(p);
			watch_silence(s); /* what is in it has not been looked at yet */
		}
	}
}

static void session_on_output(struct ev_io *io, uint32_t events)
{
	struct pump *p = io->arg;
	struct stream_session *s = p->s;
	ssize_t n = read(p->fd, chunk, sizeof(chunk));
	int r = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		r = wire_send(s->wire, p->ch, chunk, (size_t)n);
	if (n > 0 && r == 0) {
		watch_outputs(s);
		watch_silence(s);
		tell_changed(s);
		return;
	}
	close_output(p);
	if (r < 0) {
		stream_fail(s, "out of memory", 0);
		return;
	}
	(void)!wire_end(s->wire, p->ch); /* the end says it again */
	if (!finish_if_due(s))
		tell_changed(s);
}

void stream_exit(struct stream_session *s, int exit_code)
{
	if (s->exited || s->finished)
		return;
	s->exited = true;
	s->exit_code = exit_code;
	/* What it did not read is of no use any more. */
	close_input(s);
	if (!finish_if_due(s)) {
		watch_silence(s);
		tell_changed(s);
	}
}

/* ---- input ---- */

static void session_on_input(struct ev_io *io, uint32_t events);

/* What is pending goes to the process as far as it takes it. */
static void write_input(struct stream_session *s)
{
	ssize_t n = 0;

	while (buf_len(&s->in) > 0 && n >= 0)
		n = buf_write_fd(&s->in, s->in_fd);
	if (n == -EAGAIN || n == -EINTR) {
		if (!s->in_io.loop &&
		    ev_io_add(s->loop, &s->in_io, s->in_fd, EPOLLOUT, session_on_input, s) < 0)
			close_input(s);
		return;
	}
	if (n < 0) {
		close_input(s);
		return;
	}
	ev_io_del(&s->in_io);
	if (s->in_ended) {
		close_input(s);
		s->ops->input_ended(s->ops_arg);
	}
}

static void session_on_input(struct ev_io *io, uint32_t events)
{
	struct stream_session *s = io->arg;

	write_input(s);
	tell_changed(s);
}

static int take_size(struct stream_session *s, const uint8_t *data, size_t n)
{
	unsigned width, height;
	int r = 0;

	while (n > 0) {
		r = remote_size(&s->sizes, data, n, &width, &height);
		if (r < 0)
			return -EPROTO;
		data += r;
		n -= (size_t)r;
		if (!width || s->closed || !s->want.tty)
			continue;
		s->width = width;
		s->height = height;
		if (s->opened)
			s->ops->resize(s->ops_arg, width, height);
	}
	return 0;
}

static int session_on_data(void *arg, enum channel ch, const uint8_t *data, size_t n)
{
	struct stream_session *s = arg;
	int r;

	if (ch == CHANNEL_RESIZE)
		return take_size(s, data, n);
	if (ch != CHANNEL_IN || !s->want.in || s->in_ended || s->in_refused)
		return 0;
	r = buf_put(&s->in, data, n);
	if (r == 0 && s->running && !s->in_io.loop)
		write_input(s);
	return r;
}

static int session_on_end(void *arg, enum channel ch)
{
	struct stream_session *s = arg;

	if (ch != CHANNEL_IN || s->in_ended)
		return 0;
	s->in_ended = true;
	if (s->running && !s->in_refused && !s->in_io.loop)
		write_input(s);
	return 0;
}

static void session_on_closed(void *arg)
{
	struct stream_session *s = arg;

	s->left = true;
}

void stream_run(struct stream_session *s, int in, int out, int err)
{
	s->running = true;
	s->in_fd = in;
	s->outputs[0].fd = out;
	s->outputs[1].fd = err;
	watch_outputs(s);
	if (in < 0)
		close_input(s);
	else
		write_input(s);
	if (!finish_if_due(s))
		tell_changed(s);
}

/* ---- for the connection ---- */

int session_new(struct loop *l, const struct wire_dialect *d, struct stream_want want,
		const struct stream_ops *ops, void *ops_arg, session_changed_fn changed, void *arg,
		struct stream_session **ret)
{
	static const struct wire_ops wire_ops = {
		.data = session_on_data,
		.end = session_on_end,
		.closed = session_on_closed,
	};
	struct stream_session *s = calloc(1, sizeof(*s));
	unsigned wanted = 1u << CHANNEL_STATUS;
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct stream_session){ .loop = l,
				      .want = want,
				      .plain = d->version < 4,
				      .ops = ops,
				      .ops_arg = ops_arg,
				      .changed = changed,
				      .arg = arg,
				      .in_fd = -1,
				      .outputs = { { s, CHANNEL_OUT, -1 },
						   { s, CHANNEL_ERR, -1 } } };
	wanted |= want.in ? 1u << CHANNEL_IN : 0;
	wanted |= want.out ? 1u << CHANNEL_OUT : 0;
	wanted |= want.err ? 1u << CHANNEL_ERR : 0;
	wanted |= want.tty && d->version >= 3 ? 1u << CHANNEL_RESIZE : 0;
	buf_init(&s->out, SESSION_OUT_MAX);
	buf_init(&s->in, SESSION_IN_MAX);
	r = wire_new(d, wanted, &s->out, &wire_ops, s, &s->wire);
	if (r < 0) {
		buf_fini(&s->out);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void session_free(struct stream_session *s)
{
	if (!s)
		return;
	s->busy = true;
	close_all(s);
	tell_closed(s);
	wire_free(s->wire);
	buf_fini(&s->out);
	free(s);
}

void session_abandon(struct stream_session *s)
{
	s->busy = true;
	close_all(s);
	s->finished = true;
	tell_closed(s);
	s->busy = false;
}

struct buf *session_out(struct stream_session *s)
{
	return &s->out;
}

int session_feed(struct stream_session *s, const uint8_t *data, size_t n)
{
	int r;

	s->busy = true;
	r = wire_feed(s->wire, data, n);
	if (r == 0 && !s->opened && wire_ready(s->wire)) {
		s->opened = true;
		s->ops->open(s, s->ops_arg);
		if (s->width && !s->closed)
			s->ops->resize(s->ops_arg, s->width, s->height);
	}
	s->busy = false;
	return r;
}

void session_sent(struct stream_session *s)
{
	if (s->running && !s->finished)
		watch_outputs(s);
}

bool session_wants_input(const struct stream_session *s)
{
	return buf_len(&s->in) < SESSION_IN_HIGH && !out_full(s);
}

bool session_opened(const struct stream_session *s)
{
	return s->opened;
}

bool session_finished(const struct stream_session *s)
{
	return s->finished;
}

bool session_left(const struct stream_session *s)
{
	return s->left;
}
