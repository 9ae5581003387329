#include "vmm/dev/vsock_conn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/util.h"
#include "vmm/iov.h"

#define SHUT_RECEIVE 1u /* the sender of the packet takes no more data */
#define SHUT_SEND 2u	/* ... sends no more */
#define SHUT_BOTH 3u

/* Packets that a connection owes the guest. */
enum { TODO_REQUEST = 1, TODO_RESPONSE = 2, TODO_SHUTDOWN = 4, TODO_CREDIT = 8, TODO_RST = 16 };

struct vsock_conn {
	struct vsock_conns *t;
	TAILQ_ENTRY(vsock_conn) in_all;
	TAILQ_ENTRY(vsock_conn) in_table;
	TAILQ_ENTRY(vsock_conn) in_list; /* ready or dead */
	uint32_t host_port, guest_port;
	int fd; /* owned; -1 = the host's side is over */
	struct ev_io io;
	struct ev_timer timer; /* connecting, or waiting for the guest's end */
	struct buf out;	       /* from the guest, what the socket did not take yet */
	unsigned todo;
	uint32_t shut_host;  /* SHUT_*: what the host's side has ended */
	uint32_t shut_guest; /* SHUT_*: what the guest has ended */
	bool listed;	     /* in t->table */
	bool open;	     /* established: data may flow */
	bool gone;	     /* over for the guest; perhaps `out` is still to be written */
	bool readable;	     /* the socket has something, and epoll is not asked about it */
	bool queued, dead;   /* in t->ready, in t->dead */
	/* Credit, 5.10.6.3; all modulo 2^32. */
	uint32_t tx_cnt, peer_alloc, peer_fwd; /* to the guest */
	uint32_t told_alloc;		       /* what the guest may have under way */
	uint32_t fwd_cnt, told_fwd;	       /* from the guest */
};

/* ---- the table ---- */

static struct vsock_list *bucket(struct vsock_conns *t, uint32_t host_port, uint32_t guest_port)
{
	uint32_t h = (host_port * 2654435761u) ^ (guest_port * 2246822519u);

	return &t->table[(h >> 16) & (VSOCK_BUCKETS - 1)];
}

struct vsock_conn *vsock_conn_find(struct vsock_conns *t, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *c;

	TAILQ_FOREACH(c, bucket(t, host_port, guest_port), in_table)
	{
		if (c->host_port == host_port && c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

/* Never less than it was told before: the guest may have used that up. */
static uint32_t buf_alloc(const struct vsock_conn *c)
{
	return c->t->n <= VSOCK_CONNS_WIDE ? VSOCK_BUF_ALLOC : c->told_alloc;
}

static void drop_out(struct vsock_conn *c)
{
	check(c->t->kept >= buf_len(&c->out));
	c->t->kept -= buf_len(&c->out);
	buf_fini(&c->out);
}

static int conn_new(struct vsock_conns *t, uint32_t host_port, uint32_t guest_port,
		    struct vsock_conn **ret)
{
	struct vsock_conn *c;

	check(!vsock_conn_find(t, host_port, guest_port));
	if (t->n == VSOCK_CONNS_MAX)
		return -ENOBUFS;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->t = t;
	c->host_port = host_port;
	c->guest_port = guest_port;
	c->fd = -1;
	buf_init(&c->out, VSOCK_BUF_ALLOC);
	c->told_alloc = VSOCK_BUF_ALLOC_SHORT;
	TAILQ_INSERT_TAIL(bucket(t, host_port, guest_port), c, in_table);
	c->listed = true;
	TAILQ_INSERT_TAIL(&t->all, c, in_all);
	t->n++;
	*ret = c;
	return 0;
}

static void conn_unlist(struct vsock_conn *c)
{
	if (c->listed)
		TAILQ_REMOVE(bucket(c->t, c->host_port, c->guest_port), c, in_table);
	c->listed = false;
}

static void conn_close_fd(struct vsock_conn *c)
{
	uint8_t scrap[4096];

	ev_io_del(&c->io);
	drop_out(c);
	c->readable = false;
	if (c->fd < 0)
		return;
	/* A unix socket closed over unread bytes gives its peer ECONNRESET instead of EOF. */
	shutdown(c->fd, SHUT_RD);
	for (int i = 0; i < 128; i++)
		if (recv(c->fd, scrap, sizeof(scrap), MSG_DONTWAIT) <= 0)
			break;
	fd_close(&c->fd);
}

/* Off all lists and without callbacks at once; the memory goes when the entry point returns. */
static void conn_kill(struct vsock_conn *c)
{
	if (c->dead)
		return;
	check(c->t->n > 0);
	conn_unlist(c);
	if (c->queued)
		TAILQ_REMOVE(&c->t->ready, c, in_list);
	c->queued = false;
	ev_timer_del(&c->timer);
	conn_close_fd(c);
	c->dead = true;
	TAILQ_REMOVE(&c->t->all, c, in_all);
	TAILQ_INSERT_TAIL(&c->t->dead, c, in_list);
	c->t->n--;
}

void vsock_conns_reap(struct vsock_conns *t)
{
	struct vsock_conn *c;

	while ((c = TAILQ_FIRST(&t->dead))) {
		check(c->dead && !c->listed && !c->queued && c->fd < 0);
		TAILQ_REMOVE(&t->dead, c, in_list);
		free(c);
	}
}

/* ---- what a connection wants ---- */

static uint32_t credit(const struct vsock_conn *c)
{
	uint32_t under_way = c->tx_cnt - c->peer_fwd;

	return under_way < c->peer_alloc ? c->peer_alloc - under_way : 0;
}

/* The host's bytes still go to the guest. */
static bool reading(const struct vsock_conn *c)
{
	return c->open && !c->gone && c->fd >= 0 && !(c->shut_host & SHUT_SEND) &&
	       !(c->shut_guest & SHUT_RECEIVE);
}

static void conn_queue(struct vsock_conn *c)
{
	if (c->queued || c->dead)
		return;
	TAILQ_INSERT_TAIL(&c->t->ready, c, in_list);
	c->queued = true;
}

static void conn_owe(struct vsock_conn *c, unsigned todo)
{
	c->todo |= todo;
	conn_queue(c);
}

static void vsock_conn_on_io(struct ev_io *io, uint32_t events);
static void vsock_conn_on_timeout(struct ev_timer *t);
static void host_shut(struct vsock_conn *c, uint32_t how);

/* Makes epoll ask for what the connection waits for, and for nothing else: a socket whose peer is
 * gone reports EPOLLHUP without end, so one that waits for the guest is not watched at all. */
static void conn_watch(struct vsock_conn *c)
{
	bool stalled = reading(c) && c->readable;
	uint32_t events = 0;
	int r = 0;

	if (c->dead || c->fd < 0)
		return;
	if (reading(c) && !c->readable)
		events |= EPOLLIN;
	if (buf_len(&c->out) > 0)
		events |= EPOLLOUT;
	if (!c->open || (events == 0 && (stalled || c->gone)))
		ev_io_del(&c->io);
	else if (!c->io.loop)
		r = ev_io_add(c->t->loop, &c->io, c->fd, events, vsock_conn_on_io, c);
	else if (c->io.events != events)
		r = ev_io_set(&c->io, events);
	if (r < 0) /* out of memory */
		host_shut(c, SHUT_BOTH);
}

/* Ends the connection with RST; bytes for the host that were accepted are still written. */
static void conn_finish(struct vsock_conn *c)
{
	c->gone = true;
	c->todo = 0;
	c->readable = false;
	ev_timer_del(&c->timer);
	if (buf_len(&c->out) == 0)
		conn_close_fd(c);
	conn_owe(c, TODO_RST);
	conn_watch(c);
}

void vsock_conn_reset(struct vsock_conn *c)
{
	conn_close_fd(c);
	conn_finish(c);
}

/* The guest knows the connection is over. */
static void conn_forget(struct vsock_conn *c)
{
	conn_unlist(c);
	c->gone = true;
	c->todo = 0;
	c->readable = false;
	ev_timer_del(&c->timer);
	if (c->fd < 0 || buf_len(&c->out) == 0)
		conn_kill(c);
	else
		conn_watch(c);
}

/* The host's side ended one direction or both (SHUT_*). */
static void host_shut(struct vsock_conn *c, uint32_t how)
{
	if ((c->shut_host | how) == c->shut_host)
		return;
	c->shut_host |= how;
	if (c->shut_host & SHUT_SEND)
		c->readable = false;
	if (c->shut_host & SHUT_RECEIVE)
		drop_out(c);
	if (c->gone) {
		conn_close_fd(c);
		if (!c->todo)
			conn_kill(c);
		return;
	}
	conn_owe(c, TODO_SHUTDOWN);
	if (c->shut_host != SHUT_BOTH)
		return;
	conn_close_fd(c);
	/* The guest answers with RST; if not, it gets one. */
	if (ev_timer_add(c->t->loop, &c->timer, VSOCK_CLOSE_TIMEOUT_NS, vsock_conn_on_timeout, c) <
	    0)
		vsock_conn_reset(c);
}

/* ---- host to guest ---- */

/* Reads from the socket behind the header's room. Bytes, 0 = nothing now (perhaps host_shut was
 * called). */
static size_t read_into(struct vsock_conn *c, const struct iovec *iov, unsigned n, size_t room)
{
	size_t want = MIN_OF(MIN_OF(room - sizeof(struct vsock_hdr), credit(c)), VSOCK_PACKET_MAX);
	struct iovec part[IOV_ENTRIES_MAX];
	struct msghdr m = { .msg_iov = part };
	struct pollfd p = { .fd = c->fd };
	bool closed;
	ssize_t r;

	if (want == 0)
		return 0;
	m.msg_iovlen = iov_slice(iov, n, sizeof(struct vsock_hdr), want, part, ARRAY_SIZE(part));
	r = recvmsg(c->fd, &m, MSG_DONTWAIT);
	if (r > 0) {
		c->tx_cnt += (uint32_t)r;
		if ((size_t)r < want)
			c->readable = false; /* level-triggered: epoll tells when there is more */
		return (size_t)r;
	}
	if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->readable = errno == EINTR;
		return 0;
	}
	/* End of stream. Did the peer close the socket, or one direction of it? */
	closed = r < 0 || (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)));
	host_shut(c, closed ? SHUT_BOTH : SHUT_SEND);
	return 0;
}

static bool has_packet(const struct vsock_conn *c)
{
	return c->todo || (c->readable && reading(c) && credit(c) > 0);
}

/* What is next: the op, VSOCK_OP_INVALID = nothing. Data comes before the shutdown that follows
 * it. */
static enum vsock_op next_packet(struct vsock_conn *c, const struct iovec *iov, unsigned n,
				 size_t room, size_t *ret_len)
{
	if (c->todo & TODO_RST)
		return VSOCK_OP_RST;
	if (c->todo & TODO_REQUEST)
		return VSOCK_OP_REQUEST;
	if (c->todo & TODO_RESPONSE)
		return VSOCK_OP_RESPONSE;
	if (reading(c) && c->readable) {
		*ret_len = read_into(c, iov, n, room);
		if (*ret_len > 0)
			return VSOCK_OP_RW;
	}
	if (c->todo & TODO_SHUTDOWN)
		return VSOCK_OP_SHUTDOWN;
	return c->todo & TODO_CREDIT ? VSOCK_OP_CREDIT_UPDATE : VSOCK_OP_INVALID;
}

bool vsock_conn_emit(struct vsock_conn *c, struct vsock_hdr *h, const struct iovec *iov, unsigned n,
		     size_t room)
{
	/* Every packet carries the credit. */
	static const unsigned pays[VSOCK_OP_COUNT] = {
		[VSOCK_OP_REQUEST] = TODO_REQUEST | TODO_CREDIT,
		[VSOCK_OP_RESPONSE] = TODO_RESPONSE | TODO_CREDIT,
		[VSOCK_OP_RW] = TODO_CREDIT,
		[VSOCK_OP_SHUTDOWN] = TODO_SHUTDOWN | TODO_CREDIT,
		[VSOCK_OP_CREDIT_UPDATE] = TODO_CREDIT,
	};
	size_t len = 0;
	enum vsock_op op = next_packet(c, iov, n, room, &len);

	if (op != VSOCK_OP_INVALID) {
		*h = (struct vsock_hdr){
			.src_port = c->host_port,
			.dst_port = c->guest_port,
			.len = (uint32_t)len,
			.op = (uint16_t)op,
			.flags = op == VSOCK_OP_SHUTDOWN ? c->shut_host : 0,
			.buf_alloc = buf_alloc(c),
			.fwd_cnt = c->fwd_cnt,
		};
		c->told_fwd = c->fwd_cnt;
		c->told_alloc = h->buf_alloc;
		c->todo &= ~pays[op];
		if (op == VSOCK_OP_RST)
			conn_forget(c);
	}
	if (!c->dead) {
		if (has_packet(c))
			conn_queue(c);
		conn_watch(c);
	}
	return op != VSOCK_OP_INVALID;
}

struct vsock_conn *vsock_conns_next(struct vsock_conns *t)
{
	struct vsock_conn *c = TAILQ_FIRST(&t->ready);

	if (c) {
		check(c->queued && !c->dead);
		TAILQ_REMOVE(&t->ready, c, in_list);
		c->queued = false;
	}
	return c;
}

/* ---- guest to host ---- */

static void forwarded(struct vsock_conn *c, size_t n)
{
	c->fwd_cnt += (uint32_t)n;
	/* Not for each byte: when it is a good part of what the guest may send. */
	if (c->fwd_cnt - c->told_fwd >= c->told_alloc / 4 && !c->gone)
		conn_owe(c, TODO_CREDIT);
}

/* Everything is written: what was waiting for that? */
static void drained(struct vsock_conn *c)
{
	drop_out(c);
	if (c->gone) {
		conn_close_fd(c);
		if (!c->todo)
			conn_kill(c);
	} else if (c->shut_guest & SHUT_SEND) {
		shutdown(c->fd, SHUT_WR);
	}
}

static ssize_t send_iov(int fd, struct iovec *iov, unsigned n)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t r = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);

	return r < 0 ? -errno : r;
}

static void write_out(struct vsock_conn *c)
{
	struct iovec iov = { .iov_base = (void *)buf_data(&c->out), .iov_len = buf_len(&c->out) };
	ssize_t n = send_iov(c->fd, &iov, 1);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n < 0) {
		host_shut(c, SHUT_RECEIVE);
		return;
	}
	buf_consume(&c->out, (size_t)n);
	c->t->kept -= (size_t)n;
	forwarded(c, (size_t)n);
	if (buf_len(&c->out) == 0)
		drained(c);
}

/* Data of the guest: into the socket, and what that does not take into `out`. */
static void take_data(struct vsock_conn *c, const struct iovec *iov, unsigned n, uint32_t len)
{
	struct iovec part[IOV_ENTRIES_MAX];
	size_t off = sizeof(struct vsock_hdr), done = 0;
	unsigned k;

	if (len == 0)
		return;
	if (c->shut_host & SHUT_RECEIVE) {
		forwarded(c, len); /* there is no reader; the guest knows */
		return;
	}
	if (len > VSOCK_BUF_ALLOC - buf_len(&c->out) || c->t->kept > VSOCK_KEPT_MAX) {
		vsock_conn_reset(c); /* more than it has credit for */
		return;
	}
	if (buf_len(&c->out) == 0) {
		ssize_t r;

		k = iov_slice(iov, n, off, len, part, ARRAY_SIZE(part));
		r = send_iov(c->fd, part, k);
		if (r < 0 && r != -EAGAIN && r != -EINTR) {
			host_shut(c, SHUT_RECEIVE);
			return;
		}
		done = r > 0 ? (size_t)r : 0;
		forwarded(c, done);
	}
	k = iov_slice(iov, n, off + done, len - done, part, ARRAY_SIZE(part));
	for (unsigned i = 0; i < k; i++) {
		if (buf_put(&c->out, part[i].iov_base, part[i].iov_len) < 0) {
			vsock_conn_reset(c);
			return;
		}
		c->t->kept += part[i].iov_len;
	}
	conn_watch(c);
}

static void take_shutdown(struct vsock_conn *c, uint32_t flags)
{
	c->shut_guest |= flags & SHUT_BOTH;
	if (c->shut_guest == SHUT_BOTH) {
		conn_finish(c);
		return;
	}
	if (c->shut_guest & SHUT_RECEIVE) {
		c->readable = false;
		if (c->fd >= 0)
			shutdown(c->fd, SHUT_RD);
	}
	if ((c->shut_guest & SHUT_SEND) && c->fd >= 0 && buf_len(&c->out) == 0)
		shutdown(c->fd, SHUT_WR);
	conn_watch(c);
}

void vsock_conn_take(struct vsock_conn *c, const struct vsock_hdr *h, const struct iovec *iov,
		     unsigned n)
{
	if (h->op == VSOCK_OP_RST) {
		conn_forget(c);
		return;
	}
	if (c->gone)
		return; /* its RST is under way */
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (h->op == VSOCK_OP_RESPONSE && !c->open && !(c->todo & TODO_REQUEST)) {
		c->open = true;
		ev_timer_del(&c->timer);
	} else if (!c->open || h->op == VSOCK_OP_RESPONSE || h->op == VSOCK_OP_REQUEST) {
		vsock_conn_reset(c);
		return;
	} else if (h->op == VSOCK_OP_RW) {
		if (c->shut_guest & SHUT_SEND)
			vsock_conn_reset(c);
		else
			take_data(c, iov, n, h->len);
	} else if (h->op == VSOCK_OP_SHUTDOWN) {
		take_shutdown(c, h->flags);
	} else if (h->op == VSOCK_OP_CREDIT_REQUEST) {
		conn_owe(c, TODO_CREDIT);
	}
	if (c->dead)
		return;
	if (has_packet(c)) /* credit may have come with any packet */
		conn_queue(c);
	conn_watch(c);
}

/* ---- entry points ---- */

static void vsock_conn_on_io(struct ev_io *io, uint32_t events)
{
	struct vsock_conn *c = io->arg;
	struct vsock_conns *t = c->t;
	bool over = events & (EPOLLHUP | EPOLLERR);

	if (buf_len(&c->out) > 0 && (over || (events & EPOLLOUT)))
		write_out(c);
	if (!c->dead && reading(c) && (over || (events & EPOLLIN))) {
		c->readable = true;
		if (credit(c) > 0)
			conn_queue(c);
	} else if (!c->dead && over && c->fd >= 0) {
		host_shut(c, SHUT_BOTH);
	}
	t->pump(t);
	conn_watch(c);
	vsock_conns_reap(t);
}

static void vsock_conn_on_timeout(struct ev_timer *timer)
{
	struct vsock_conn *c = timer->arg;
	struct vsock_conns *t = c->t;

	if (c->todo & TODO_REQUEST)
		conn_kill(c); /* the guest never heard of it */
	else
		vsock_conn_reset(c);
	t->pump(t);
	vsock_conns_reap(t);
}

int vsock_conn_open(struct vsock_conns *t, uint32_t host_port, uint32_t guest_port, int fd)
{
	struct vsock_conn *c;
	int r = conn_new(t, host_port, guest_port, &c);

	if (r < 0)
		return r;
	r = ev_timer_add(t->loop, &c->timer, VSOCK_CONNECT_TIMEOUT_NS, vsock_conn_on_timeout, c);
	if (r < 0) {
		conn_kill(c);
		return r;
	}
	c->fd = fd;
	conn_owe(c, TODO_REQUEST);
	return 0;
}

int vsock_conn_accept(struct vsock_conns *t, const struct vsock_hdr *h, int fd)
{
	struct vsock_conn *c;
	int r = conn_new(t, h->dst_port, h->src_port, &c);

	if (r < 0)
		return r;
	c->fd = fd;
	c->open = true;
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	conn_owe(c, TODO_RESPONSE);
	conn_watch(c);
	return 0;
}

void vsock_conns_init(struct vsock_conns *t, struct loop *loop, void (*pump)(struct vsock_conns *t))
{
	*t = (struct vsock_conns){ .loop = loop, .pump = pump };
	for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
		TAILQ_INIT(&t->table[i]);
	TAILQ_INIT(&t->all);
	TAILQ_INIT(&t->ready);
	TAILQ_INIT(&t->dead);
}

void vsock_conns_close(struct vsock_conns *t, bool flush)
{
	struct vsock_conn *c, *next;

	for (c = TAILQ_FIRST(&t->all); c; c = next) {
		next = TAILQ_NEXT(c, in_all);
		if (flush)
			conn_forget(c);
		else
			conn_kill(c);
	}
	vsock_conns_reap(t);
}
