#include "shim/io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"
#include "shim/io/crilog.h"
#include "shim/io/tee.h"

enum sink { SINK_NONE, SINK_FIFO, SINK_FILE, SINK_CRILOG };
enum which { IN, OUT, ERR };

struct stream {
	struct stdio *io;
	enum which which;
	enum sink sink;
	int fd;	    /* FIFO or file, -1 = none */
	int keeper; /* input: write end of the FIFO, until CloseIO */
	int sock;   /* to the guest, -1 = not connected or ended */
	struct ev_io fd_io, sock_io;
	struct buf pending;
	struct crilog_stream cri;
	struct tees tees;
	bool eof;  /* nothing more to read */
	bool done; /* and nothing more to write */
	bool lost; /* the owner knows that output is lost */
};

struct stdio {
	struct loop *loop;
	struct stream s[3];
	struct crilog *log;
	const struct stdio_ops *ops;
	void *arg;
	struct ev_timer report_timer;
	bool input_started;
};

/* Bytes in transit; callbacks do not nest. */
static uint8_t chunk[STDIO_CHUNK];

static void report_later(struct stdio *io);

static void stream_end(struct stream *s)
{
	ev_io_del(&s->fd_io);
	ev_io_del(&s->sock_io);
	if (s->sink == SINK_CRILOG && !s->done)
		crilog_eof(&s->cri, now_real_ns());
	buf_fini(&s->pending);
	tees_end(&s->tees);
	fd_close(&s->fd);
	fd_close(&s->keeper);
	fd_close(&s->sock);
	s->done = true;
}

/* ---- output: guest -> host ---- */

static void stream_on_output(struct ev_io *ev, uint32_t events);
static void stream_on_fifo_writable(struct ev_io *ev, uint32_t events);

static void output_failed(struct stream *s, int code)
{
	struct err err = { 0 };

	if (s->lost)
		return;
	s->lost = true;
	if (s->sink == SINK_CRILOG)
		(void)err_errno(&err, code, "log %s", crilog_path(s->io->log));
	else
		(void)err_errno(&err, code, "%s", s->which == ERR ? "stderr" : "stdout");
	s->io->ops->lost(&err, s->io->arg);
}

static bool output_waits(const struct stream *s)
{
	return buf_len(&s->pending) || tees_full(&s->tees);
}

/* The connection is read again, or the stream ends. */
static void output_next(struct stream *s)
{
	struct stdio *io = s->io;

	if (output_waits(s))
		return;
	if (!s->eof && !s->sock_io.loop &&
	    ev_io_add(io->loop, &s->sock_io, s->sock, EPOLLIN, stream_on_output, s) < 0)
		s->eof = true;
	if (s->eof) {
		stream_end(s);
		report_later(io);
	}
}

static void output_fifo(struct stream *s, const uint8_t *p, size_t n)
{
	ssize_t w = write(s->fd, p, n);
	int r = 0;

	if (w < 0 && errno != EAGAIN && errno != EINTR) {
		output_failed(s, -errno);
		return;
	}
	if (w < 0)
		w = 0;
	if ((size_t)w == n)
		return;
	r = buf_put(&s->pending, p + w, n - (size_t)w);
	if (r == 0)
		r = ev_io_add(s->io->loop, &s->fd_io, s->fd, EPOLLOUT, stream_on_fifo_writable, s);
	if (r < 0) {
		buf_fini(&s->pending);
		output_failed(s, r);
		return;
	}
	/* Not only disarmed: a connection that hung up would be reported for ever. */
	ev_io_del(&s->sock_io);
}

static void stream_on_fifo_writable(struct ev_io *ev, uint32_t events)
{
	struct stream *s = ev->arg;
	ssize_t n = buf_write_fd(&s->pending, s->fd);

	if (n < 0 && n != -EAGAIN) {
		output_failed(s, (int)n);
		buf_clear(&s->pending);
	}
	if (buf_len(&s->pending))
		return;
	ev_io_del(&s->fd_io);
	buf_fini(&s->pending);
	report_later(s->io);
	output_next(s);
}

static void stream_on_tees_flushed(void *arg)
{
	struct stream *s = arg;

	report_later(s->io);
	output_next(s);
}

static void stream_on_output(struct ev_io *ev, uint32_t events)
{
	struct stream *s = ev->arg;
	ssize_t n = read(s->sock, chunk, sizeof(chunk));
	int r = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		s->eof = true;
		output_next(s);
		return;
	}
	switch (s->sink) {
	case SINK_FIFO:
		output_fifo(s, chunk, (size_t)n);
		break;
	case SINK_CRILOG:
		r = crilog_write(&s->cri, chunk, (size_t)n, now_real_ns());
		break;
	case SINK_FILE:
		r = write_all(s->fd, chunk, (size_t)n);
		break;
	case SINK_NONE:
		break;
	}
	if (r < 0)
		output_failed(s, r);
	else if (s->sink != SINK_FIFO)
		s->lost = false;
	tees_write(&s->tees, chunk, (size_t)n);
	if (tees_full(&s->tees))
		ev_io_del(&s->sock_io); /* as in output_fifo */
}

/* ---- input: host -> guest ---- */

static void stream_on_input(struct ev_io *ev, uint32_t events);

static void input_next(struct stream *s)
{
	if (buf_len(&s->pending))
		return;
	buf_fini(&s->pending);
	if (s->eof) {
		/* End of file for the process; what it has not read yet is not lost. */
		(void)shutdown(s->sock, SHUT_WR);
		stream_end(s);
		return;
	}
	if (!s->fd_io.loop &&
	    ev_io_add(s->io->loop, &s->fd_io, s->fd, EPOLLIN, stream_on_input, s) < 0)
		stream_end(s);
}

static void stream_on_input_sock(struct ev_io *ev, uint32_t events)
{
	struct stream *s = ev->arg;
	ssize_t n;

	if (events & (EPOLLHUP | EPOLLERR)) {
		stream_end(s); /* the process closed its input, or is gone */
		return;
	}
	n = buf_write_fd(&s->pending, s->sock);
	if (n < 0 && n != -EAGAIN) {
		stream_end(s);
		return;
	}
	if (buf_len(&s->pending) == 0) {
		if (ev_io_set(&s->sock_io, 0) < 0)
			stream_end(s);
		else
			input_next(s);
	}
}

static void stream_on_input(struct ev_io *ev, uint32_t events)
{
	struct stream *s = ev->arg;
	ssize_t n = read(s->fd, chunk, sizeof(chunk)), w;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		s->eof = true;
		input_next(s);
		return;
	}
	w = send(s->sock, chunk, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (w < 0 && errno != EAGAIN && errno != EINTR) {
		stream_end(s);
		return;
	}
	if (w < 0)
		w = 0;
	if (w == n)
		return;
	if (buf_put(&s->pending, chunk + w, (size_t)(n - w)) < 0 ||
	    ev_io_set(&s->sock_io, EPOLLOUT) < 0) {
		stream_end(s);
		return;
	}
	ev_io_del(&s->fd_io);
}

void stdio_start_input(struct stdio *io)
{
	struct stream *s = &io->s[IN];

	if (s->done || s->sock < 0 || io->input_started)
		return;
	io->input_started = true;
	if (ev_io_add(io->loop, &s->sock_io, s->sock, 0, stream_on_input_sock, s) < 0)
		stream_end(s);
	else
		input_next(s);
}

void stdio_close_input(struct stdio *io)
{
	fd_close(&io->s[IN].keeper);
}

/* ---- opening ---- */

static int open_fifo(struct stream *s, const char *path, struct err *err)
{
	/* Output: one descriptor for both ends, so that writes neither fail nor block nor end the
	 * file when the client goes away and another one comes. */
	int flags = s->which == IN ? O_RDONLY : O_RDWR;
	cleanup_fd int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, -errno, "open %s", path);
	if (!S_ISFIFO(st.st_mode))
		return err_set(err, -EINVAL, "%s is not a FIFO", path);
	if (s->which == IN) {
		s->keeper = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
		if (s->keeper < 0)
			return err_errno(err, -errno, "open %s", path);
	}
	s->fd = take_fd(&fd);
	s->sink = SINK_FIFO;
	return 0;
}

static int open_file(struct stream *s, const char *path, struct err *err)
{
	struct stat st;

	s->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return err_errno(err, -errno, "open %s", path);
	/* A FIFO or a terminal that nobody reads would stop the shim. */
	if (!crilog_never_waits(&st))
		return err_set(err, -EINVAL, "%s is not a regular file", path);
	if (fd_set_nonblock(s->fd, false) < 0)
		return err_errno(err, -errno, "open %s", path);
	s->sink = SINK_FILE;
	return 0;
}

static int open_crilog(struct stream *s, const char *path, struct err *err)
{
	struct stdio *io = s->io;
	int r = 0;

	if (!io->log)
		r = crilog_open(path, &io->log, err);
	else if (!str_eq(crilog_path(io->log), path))
		r = err_set(err, -EINVAL, "stdout and stderr go to different CRI logs");
	if (r < 0)
		return r;
	s->cri = (struct crilog_stream){ .log = io->log, .is_stderr = s->which == ERR };
	s->sink = SINK_CRILOG;
	return 0;
}

static int open_uri(struct stream *s, const char *uri, struct err *err)
{
	static const char fifo[] = "fifo://", file[] = "file://", cri[] = "cri-log://";

	if (str_empty(uri)) {
		s->done = true;
		return 0;
	}
	if (uri[0] == '/')
		return open_fifo(s, uri, err);
	if (str_starts(uri, fifo))
		return open_fifo(s, uri + sizeof(fifo) - 1, err);
	if (s->which == IN)
		return err_set(err, -ENOSYS, "%s: standard input comes from a FIFO only", uri);
	if (str_starts(uri, file))
		return open_file(s, uri + sizeof(file) - 1, err);
	if (str_starts(uri, cri))
		return open_crilog(s, uri + sizeof(cri) - 1, err);
	return err_set(err, -ENOSYS, "%s: streams of this kind are not supported", uri);
}

int stdio_open(struct loop *l, const struct stdio_spec *spec, const struct stdio_ops *ops,
	       void *arg, struct stdio **ret, struct err *err)
{
	const char *uris[3] = { spec->in, spec->out, spec->terminal ? "" : spec->err };
	struct stdio *io = calloc(1, sizeof(*io));
	int r;

	if (!io)
		return err_nomem(err);
	*io = (struct stdio){ .loop = l, .ops = ops, .arg = arg };
	for (int i = 0; i < 3; i++) {
		struct stream *s = &io->s[i];

		*s = (struct stream){
			.io = io, .which = (enum which)i, .fd = -1, .keeper = -1, .sock = -1
		};
		s->tees = (struct tees){
			.loop = l, .most = STDIO_CHUNK, .flushed = stream_on_tees_flushed, .arg = s
		};
		buf_init(&s->pending, STDIO_CHUNK);
	}
	for (int i = 0; i < 3; i++) {
		r = open_uri(&io->s[i], uris[i], err);
		if (r < 0) {
			stdio_free(io);
			return r;
		}
	}
	*ret = io;
	return 0;
}

/* ---- connections ---- */

int stdio_connect(struct stdio *io, stdio_opener open_stream, void *arg, Agent__Stdio *ret_ids,
		  struct err *err)
{
	uint64_t ids[3] = { 0 };
	int r = 0;

	for (int i = 0; i < 3 && r == 0; i++) {
		struct stream *s = &io->s[i];

		if (s->done)
			continue;
		r = open_stream(arg, &ids[i], &s->sock, err);
		if (r == 0 && i != IN) {
			r = ev_io_add(io->loop, &s->sock_io, s->sock, EPOLLIN, stream_on_output, s);
			if (r < 0)
				(void)err_errno(err, r, "stream");
		}
	}
	if (r < 0)
		return r;
	ret_ids->stdin_stream = ids[IN];
	ret_ids->stdout_stream = ids[OUT];
	ret_ids->stderr_stream = ids[ERR];
	if (stdio_drained(io))
		report_later(io);
	return 0;
}

bool stdio_drained(const struct stdio *io)
{
	return io->s[OUT].done && io->s[ERR].done;
}

static void stream_on_report_timer(struct ev_timer *t)
{
	struct stdio *io = t->arg;

	/* The owner may free all this in either. */
	if (stdio_drained(io))
		io->ops->drained(io->arg);
	else if (!stdio_backlog(io))
		io->ops->flushed(io->arg);
}

/* From a fresh round of the loop: the owner may free all this then. */
static void report_later(struct stdio *io)
{
	/* Without memory for a timer the owner's own time limits see to the rest. */
	if (stdio_drained(io) || !stdio_backlog(io))
		(void)!ev_timer_add(io->loop, &io->report_timer, 0, stream_on_report_timer, io);
}

bool stdio_backlog(const struct stdio *io)
{
	return output_waits(&io->s[OUT]) || output_waits(&io->s[ERR]);
}

int stdio_tee(struct stdio *io, const char *out, const char *err_path, struct err *err)
{
	const char *paths[3] = { "", out, err_path };
	int r = 0;

	for (int i = OUT; i <= ERR && r == 0; i++)
		if (!io->s[i].done && *paths[i])
			r = tees_add(&io->s[i].tees, paths[i], err);
	return r;
}

int stdio_reopen_log(struct stdio *io, struct err *err)
{
	if (!io->log)
		return err_set(err, -ENOENT, "the container has no log");
	return crilog_reopen(io->log, err);
}

void stdio_free(struct stdio *io)
{
	if (!io)
		return;
	ev_timer_del(&io->report_timer);
	for (int i = 0; i < 3; i++)
		stream_end(&io->s[i]);
	crilog_free(io->log);
	free(io);
}
