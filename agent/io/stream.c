#include "agent/io/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "agent/limits.h"
#include "agent/io/relay.h"
#include "base/buf.h"
#include "base/util.h"

#define ACCEPTS_A_ROUND 64
#define PREAMBLE_TIMEOUT_NS (10 * NS_PER_S)

/* A connection whose stream no process has claimed: its id is unknown (got < 8), or its request is
 * on the way. */
struct conn {
	struct stdio *s;
	struct conn *next;
	int fd;
	uint64_t id; /* 0 = not complete yet */
	uint8_t bytes[STDIO_PREAMBLE];
	size_t got;
	struct ev_io io;
	struct ev_timer timer;
};

struct stream {
	struct stdio *s;
	struct stream *next;
	const void *owner;
	uint64_t id;
	enum stream_dir dir;
	bool tty;
	int local; /* pipe or terminal, -1 = finished */
	int sock;  /* -1 = the host has not connected yet */
	struct relay relay;
	struct ev_io linger; /* output is finished, the host has not closed yet */
};

/* ---- streams ---- */

static struct stream **find_stream(struct stdio *s, uint64_t id)
{
	struct stream **p = &s->streams[id % STDIO_BUCKETS];

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

static void stream_free(struct stream *st)
{
	struct stream **p = find_stream(st->s, st->id);

	if (*p == st) {
		*p = st->next;
		st->s->n_streams--;
	}
	relay_stop(&st->relay);
	ev_io_del(&st->linger);
	fd_close(&st->local);
	fd_close(&st->sock);
	free(st);
}

static void stream_on_linger(struct ev_io *io, uint32_t events)
{
	stream_free(io->arg);
}

static void stream_on_relay_done(struct relay *r, enum relay_end how)
{
	struct stream *st = container_of(r, struct stream, relay);

	fd_close(&st->local);
	/* Only our direction ends. Closing at once would make the kernel reset the connection after
	 * 8 s, and a slow reader of the host lose what it has not read. */
	if (how == RELAY_SOURCE_END && st->dir == STREAM_OUTPUT &&
	    shutdown(st->sock, SHUT_WR) == 0 &&
	    ev_io_add(st->s->loop, &st->linger, st->sock, EPOLLRDHUP, stream_on_linger, st) == 0)
		return;
	stream_free(st);
}

static int stream_connect(struct stream *st, int sock)
{
	int src = st->dir == STREAM_INPUT ? sock : st->local;
	int dst = st->dir == STREAM_INPUT ? st->local : sock;

	st->sock = sock;
	return relay_start(&st->relay, st->s->loop, src, dst, !st->tty, stream_on_relay_done);
}

/* ---- connections without a claim ---- */

static void conn_unlink(struct conn *c)
{
	struct conn **p = &c->s->conns;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p) {
		*p = c->next;
		c->s->n_conns--;
	}
	ev_io_del(&c->io);
	ev_timer_del(&c->timer);
}

static void conn_free(struct conn *c)
{
	conn_unlink(c);
	fd_close(&c->fd);
	free(c);
}

bool stdio_preamble(const uint8_t bytes[STDIO_PREAMBLE], uint64_t *ret_id)
{
	struct cur cur = cur_of(bytes, STDIO_PREAMBLE);
	uint64_t id = cur_le64(&cur);

	if (cur.bad || id == 0)
		return false;
	*ret_id = id;
	return true;
}

static struct conn *find_conn(struct stdio *s, uint64_t id)
{
	struct conn *c = s->conns;

	while (c && c->id != id)
		c = c->next;
	return c;
}

static struct conn *oldest_conn(struct stdio *s)
{
	struct conn *c = s->conns;

	while (c->next)
		c = c->next;
	return c;
}

/* The id is known: to the stream that waits for it, or on the shelf. */
static void conn_identified(struct conn *c, uint64_t id)
{
	struct stream *st = *find_stream(c->s, id);

	/* What follows belongs to the process that claims it. */
	ev_io_del(&c->io);
	ev_timer_del(&c->timer);
	if (!st && !find_conn(c->s, id)) {
		c->id = id;
		return;
	}
	if (st && st->sock < 0) {
		int r = stream_connect(st, take_fd(&c->fd));

		if (r < 0)
			stream_free(st);
	}
	conn_free(c);
}

static void stream_on_preamble(struct ev_io *io, uint32_t events)
{
	struct conn *c = io->arg;
	/* Not one byte more: the rest is the container's. */
	ssize_t n = read(c->fd, c->bytes + c->got, STDIO_PREAMBLE - c->got);
	uint64_t id;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_free(c);
		return;
	}
	c->got += (size_t)n;
	if (c->got < STDIO_PREAMBLE)
		return;
	if (stdio_preamble(c->bytes, &id))
		conn_identified(c, id);
	else
		conn_free(c);
}

static void stream_on_preamble_late(struct ev_timer *t)
{
	conn_free(t->arg);
}

static bool from_host(int fd)
{
	struct sockaddr_vm addr;
	socklen_t len = sizeof(addr);

	return getpeername(fd, (struct sockaddr *)&addr, &len) == 0 &&
	       addr.svm_family == AF_VSOCK && addr.svm_cid == VMADDR_CID_HOST;
}

static void conn_new(struct stdio *s, int fd_in)
{
	cleanup_fd int fd = fd_in;
	struct conn *c;
	int r;

	/* A container can open vsock connections, too: it must not pose as the host. */
	if (s->vsock && !from_host(fd))
		return;
	if (s->n_conns >= AGENT_UNCLAIMED_MAX)
		conn_free(oldest_conn(s));
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->s = s;
	c->fd = take_fd(&fd);
	c->next = s->conns;
	s->conns = c;
	s->n_conns++;
	r = ev_io_add(s->loop, &c->io, c->fd, EPOLLIN, stream_on_preamble, c);
	if (r == 0)
		r = ev_timer_add(s->loop, &c->timer, PREAMBLE_TIMEOUT_NS, stream_on_preamble_late,
				 c);
	if (r < 0)
		conn_free(c);
}

static void stream_on_accept(struct ev_io *io, uint32_t events)
{
	for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
		int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		conn_new(io->arg, fd);
	}
}

/* ---- for the rest of the agent ---- */

int stdio_init(struct stdio *s, struct loop *l, int listener, bool vsock, struct err *err)
{
	int r;

	*s = (struct stdio){ .loop = l, .listener = listener, .vsock = vsock };
	r = fd_set_nonblock(listener, true);
	if (r == 0)
		r = ev_io_add(l, &s->io, listener, EPOLLIN, stream_on_accept, s);
	if (r < 0) {
		fd_close(&s->listener);
		return err_errno(err, r, "listener for streams");
	}
	return 0;
}

void stdio_fini(struct stdio *s)
{
	ev_io_del(&s->io);
	fd_close(&s->listener);
	while (s->conns)
		conn_free(s->conns);
	for (size_t i = 0; i < STDIO_BUCKETS; i++)
		while (s->streams[i])
			stream_free(s->streams[i]);
}

int stdio_claim(struct stdio *s, const void *owner, uint64_t id, enum stream_dir dir, int fd_in,
		bool tty, struct err *err)
{
	cleanup_fd int fd = fd_in;
	struct conn *c = find_conn(s, id);
	struct stream *st;
	int r;

	if (id == 0)
		return err_set(err, -EINVAL, "stream 0");
	if (*find_stream(s, id))
		return err_set(err, -EEXIST, "stream %llu is in use", (unsigned long long)id);
	if (s->n_streams >= AGENT_STREAMS_MAX)
		return err_set(err, -ENOBUFS, "%u streams are open already", AGENT_STREAMS_MAX);
	r = fd_set_nonblock(fd, true);
	if (r < 0)
		return err_errno(err, r, "stream");
	st = calloc(1, sizeof(*st));
	if (!st)
		return err_nomem(err);
	st->s = s;
	st->owner = owner;
	st->id = id;
	st->dir = dir;
	st->tty = tty;
	st->local = take_fd(&fd);
	st->sock = -1;
	st->next = s->streams[id % STDIO_BUCKETS];
	s->streams[id % STDIO_BUCKETS] = st;
	s->n_streams++;
	if (c) {
		int sock = take_fd(&c->fd);

		conn_unlink(c);
		free(c);
		r = stream_connect(st, sock);
		if (r < 0) {
			stream_free(st);
			return err_errno(err, r, "stream");
		}
	}
	return 0;
}

void stdio_drop(struct stdio *s, const void *owner)
{
	for (size_t i = 0; i < STDIO_BUCKETS; i++) {
		struct stream *st = s->streams[i], *next;

		for (; st; st = next) {
			next = st->next;
			if (st->owner == owner)
				stream_free(st);
		}
	}
}

void stdio_forget(struct stdio *s, uint64_t id)
{
	struct conn *c = id ? find_conn(s, id) : NULL;
	struct stream *st = id ? *find_stream(s, id) : NULL;

	if (c)
		conn_free(c);
	if (st)
		stream_free(st);
}

size_t stdio_count(const struct stdio *s, const void *owner)
{
	size_t n = 0;

	for (size_t i = 0; i < STDIO_BUCKETS; i++)
		for (const struct stream *st = s->streams[i]; st; st = st->next)
			n += st->owner == owner && st->local >= 0;
	return n;
}
