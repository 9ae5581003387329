#include "vmm/dev/vsock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/util.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT };

/* 5.10.6 */
struct vsock_hdr {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct vsock_hdr) == 44, "virtio 1.2, 5.10.6");

#define TYPE_STREAM 1
enum vsock_op {
	OP_INVALID,
	OP_REQUEST,
	OP_RESPONSE,
	OP_RST,
	OP_SHUTDOWN,
	OP_RW,
	OP_CREDIT_UPDATE,
	OP_CREDIT_REQUEST,
	OP_COUNT,
};
#define SHUT_RECEIVE 1u /* the sender of the packet takes no more data */
#define SHUT_SEND 2u	/* ... sends no more */
#define SHUT_BOTH 3u

/* One round on the loop: whichever comes first. */
#define ROUND_PACKETS 64
#define ROUND_BYTES (512 * KIB)
/* Tell the guest when this much was forwarded that it does not know of. */
#define CREDIT_STEP (VSOCK_BUF_ALLOC / 4)
#define FIRST_HOST_PORT (1u << 30)

/* Packets that a connection owes the guest. */
enum { TODO_REQUEST = 1, TODO_RESPONSE = 2, TODO_SHUTDOWN = 4, TODO_CREDIT = 8, TODO_RST = 16 };

struct vsock_conn {
	struct virtio_vsock *v;
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
	bool listed;	     /* in v->table */
	bool open;	     /* established: data may flow */
	bool gone;	     /* over for the guest; perhaps `out` is still to be written */
	bool readable;	     /* the socket has something, and epoll is not asked about it */
	bool queued, dead;   /* in v->ready, in v->dead */
	/* Credit, 5.10.6.3; all modulo 2^32. */
	uint32_t tx_cnt, peer_alloc, peer_fwd; /* to the guest */
	uint32_t fwd_cnt, told_fwd;	       /* from the guest */
};

/* ---- the table ---- */

static struct vsock_list *bucket(struct virtio_vsock *v, uint32_t host_port, uint32_t guest_port)
{
	uint32_t h = (host_port * 2654435761u) ^ (guest_port * 2246822519u);
	return &v->table[(h >> 16) & (VSOCK_BUCKETS - 1)];
}

static struct vsock_conn *conn_find(struct virtio_vsock *v, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *c;
	TAILQ_FOREACH(c, bucket(v, host_port, guest_port), in_table)
	{
		if (c->host_port == host_port && c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

static void on_timeout(struct ev_timer *t);

static struct vsock_conn *conn_new(struct virtio_vsock *v, uint32_t host_port, uint32_t guest_port)
{
	if (v->n_conns == VSOCK_CONNS_MAX)
		return NULL;
	struct vsock_conn *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->v = v;
	c->host_port = host_port;
	c->guest_port = guest_port;
	c->fd = -1;
	c->timer.cb = on_timeout;
	c->timer.arg = c;
	buf_init(&c->out, VSOCK_BUF_ALLOC);
	TAILQ_INSERT_TAIL(bucket(v, host_port, guest_port), c, in_table);
	c->listed = true;
	TAILQ_INSERT_TAIL(&v->all, c, in_all);
	v->n_conns++;
	return c;
}

static void conn_unlist(struct vsock_conn *c)
{
	if (c->listed)
		TAILQ_REMOVE(bucket(c->v, c->host_port, c->guest_port), c, in_table);
	c->listed = false;
}

static void conn_close_fd(struct vsock_conn *c)
{
	ev_io_del(&c->io);
	buf_fini(&c->out);
	c->readable = false;
	if (c->fd < 0)
		return;
	/* A unix socket closed over unread bytes gives its peer ECONNRESET instead of EOF. */
	uint8_t scrap[4096];
	shutdown(c->fd, SHUT_RD);
	for (int i = 0; i < 128; i++) {
		if (recv(c->fd, scrap, sizeof(scrap), MSG_DONTWAIT) <= 0)
			break;
	}
	fd_close(&c->fd);
}

/* Off all lists and without callbacks at once; the memory goes when the entry point returns. */
static void conn_kill(struct vsock_conn *c)
{
	if (c->dead)
		return;
	conn_unlist(c);
	if (c->queued)
		TAILQ_REMOVE(&c->v->ready, c, in_list);
	c->queued = false;
	ev_timer_del(&c->timer);
	conn_close_fd(c);
	c->dead = true;
	TAILQ_REMOVE(&c->v->all, c, in_all);
	TAILQ_INSERT_TAIL(&c->v->dead, c, in_list);
	c->v->n_conns--;
}

static void reap(struct virtio_vsock *v)
{
	struct vsock_conn *c;
	while ((c = TAILQ_FIRST(&v->dead))) {
		TAILQ_REMOVE(&v->dead, c, in_list);
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
	TAILQ_INSERT_TAIL(&c->v->ready, c, in_list);
	c->queued = true;
}

static void conn_owe(struct vsock_conn *c, unsigned todo)
{
	c->todo |= todo;
	conn_queue(c);
}

static void on_io(struct ev_io *io, uint32_t events);
static void host_shut(struct vsock_conn *c, uint32_t how);

/* Makes epoll ask for what the connection waits for, and for nothing else: a socket whose peer is
 * gone reports EPOLLHUP for ever, so one that waits for the guest is not watched at all. */
static void conn_watch(struct vsock_conn *c)
{
	if (c->dead || c->fd < 0)
		return;
	bool stalled = reading(c) && c->readable;
	uint32_t events = 0;
	if (reading(c) && !c->readable)
		events |= EPOLLIN;
	if (buf_len(&c->out) > 0)
		events |= EPOLLOUT;
	int r = 0;
	if (!c->open || (events == 0 && (stalled || c->gone)))
		ev_io_del(&c->io);
	else if (!c->io.loop)
		r = ev_io_add(c->v->loop, &c->io, c->fd, events, on_io, c);
	else if (c->io.events != events)
		r = ev_io_set(&c->io, events);
	if (r < 0) /* no memory for it */
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

/* As conn_finish, and forgets what was not written. */
static void conn_reset(struct vsock_conn *c)
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
		buf_fini(&c->out);
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
	if (ev_timer_add(c->v->loop, &c->timer, VSOCK_CLOSE_TIMEOUT_NS, on_timeout, c) < 0)
		conn_reset(c);
}

/* ---- host to guest ---- */

static void put_header(struct virtio_vsock *v, const struct virtq_chain *chain, enum vsock_op op,
		       uint32_t host_port, uint32_t guest_port, const struct vsock_conn *c,
		       uint32_t len, uint32_t flags)
{
	struct vsock_hdr h = {
		.src_cid = VSOCK_HOST_CID,
		.dst_cid = v->guest_cid,
		.src_port = host_port,
		.dst_port = guest_port,
		.len = len,
		.type = TYPE_STREAM,
		.op = (uint16_t)op,
		.flags = flags,
		.buf_alloc = c ? VSOCK_BUF_ALLOC : 0,
		.fwd_cnt = c ? c->fwd_cnt : 0,
	};
	iov_write(chain->iov + chain->n_out, chain->n_in, 0, &h, sizeof(h));
	virtq_push(&v->dev.queues[QUEUE_RX], chain->head, (uint32_t)sizeof(h) + len);
}

static void put_packet(struct vsock_conn *c, const struct virtq_chain *chain, enum vsock_op op,
		       uint32_t len, uint32_t flags)
{
	put_header(c->v, chain, op, c->host_port, c->guest_port, c, len, flags);
	c->told_fwd = c->fwd_cnt; /* every packet carries it */
	c->todo &= ~(unsigned)TODO_CREDIT;
}

/* Reads from the socket into the chain. Bytes, 0 = nothing now (perhaps host_shut was called). */
static size_t read_into(struct vsock_conn *c, const struct virtq_chain *chain)
{
	struct iovec iov[VIRTQ_CHAIN_MAX];
	size_t room = chain->in_len - sizeof(struct vsock_hdr);
	size_t want = MIN_OF(MIN_OF(room, credit(c)), VSOCK_PACKET_MAX);
	struct msghdr m = { .msg_iov = iov };

	if (want == 0)
		return 0;
	m.msg_iovlen = iov_slice(chain->iov + chain->n_out, chain->n_in, sizeof(struct vsock_hdr),
				 want, iov, ARRAY_SIZE(iov));
	ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT);
	if (n > 0) {
		c->tx_cnt += (uint32_t)n;
		if ((size_t)n < want)
			c->readable = false; /* level-triggered: epoll tells when there is more */
		return (size_t)n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->readable = errno == EINTR;
		return 0;
	}
	/* End of stream. Did the peer close the socket, or one direction of it? */
	struct pollfd p = { .fd = c->fd };
	bool closed = n < 0 || (poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)));
	host_shut(c, closed ? SHUT_BOTH : SHUT_SEND);
	return 0;
}

/* Fills the chain with the next packet of c. False: it has none. */
static bool conn_emit(struct vsock_conn *c, const struct virtq_chain *chain)
{
	if (c->todo & TODO_RST) {
		put_packet(c, chain, OP_RST, 0, 0);
		conn_forget(c);
		return true;
	}
	if (c->todo & (TODO_REQUEST | TODO_RESPONSE)) {
		bool request = c->todo & TODO_REQUEST;
		c->todo &= ~(unsigned)(TODO_REQUEST | TODO_RESPONSE);
		put_packet(c, chain, request ? OP_REQUEST : OP_RESPONSE, 0, 0);
		return true;
	}
	if (reading(c) && c->readable) {
		size_t n = read_into(c, chain);
		if (n > 0) {
			put_packet(c, chain, OP_RW, (uint32_t)n, 0);
			return true;
		}
	}
	if (c->todo & TODO_SHUTDOWN) {
		c->todo &= ~(unsigned)TODO_SHUTDOWN;
		put_packet(c, chain, OP_SHUTDOWN, 0, c->shut_host);
		return true;
	}
	if (c->todo & TODO_CREDIT) {
		put_packet(c, chain, OP_CREDIT_UPDATE, 0, 0);
		return true;
	}
	return false;
}

static bool has_packet(const struct vsock_conn *c)
{
	return c->todo || (c->readable && reading(c) && credit(c) > 0);
}

static void emit_reset(struct virtio_vsock *v, const struct virtq_chain *chain)
{
	struct vsock_reset r = v->resets[v->reset_first];
	v->reset_first = (v->reset_first + 1) % VSOCK_RESETS_MAX;
	v->n_resets--;
	put_header(v, chain, OP_RST, r.host_port, r.guest_port, NULL, 0, 0);
}

static void later(struct virtio_vsock *v)
{
	if (ev_timer_add(v->loop, &v->again, 0, v->again.cb, v) < 0)
		log_debug("vsock: no memory for a timer");
}

/* Gives the driver's receive buffers to the connections in turn, one packet each. */
static void rx_pump(struct virtio_vsock *v)
{
	struct virtq *vq = &v->dev.queues[QUEUE_RX];
	struct virtq_chain chain;

	bool full = v->n_resets == VSOCK_RESETS_MAX;
	virtq_disarm(vq);
	for (unsigned n = 0; v->n_resets > 0 || !TAILQ_EMPTY(&v->ready); n++) {
		if (n == ROUND_PACKETS) {
			later(v);
			break;
		}
		if (!virtq_pop(vq, &chain)) {
			if (virtq_arm(vq))
				continue;
			break; /* the driver kicks when it has given new buffers */
		}
		if (chain.in_len <= sizeof(struct vsock_hdr)) {
			virtq_push(vq, chain.head, 0); /* of no use */
			continue;
		}
		if (v->n_resets > 0) {
			emit_reset(v, &chain);
			continue;
		}
		struct vsock_conn *c = TAILQ_FIRST(&v->ready);
		TAILQ_REMOVE(&v->ready, c, in_list);
		c->queued = false;
		if (!conn_emit(c, &chain))
			virtq_unpop(vq);
		if (c->dead)
			continue;
		if (has_packet(c))
			conn_queue(c);
		conn_watch(c);
	}
	if (full && v->n_resets < VSOCK_RESETS_MAX)
		later(v); /* tx_round stopped for that */
	virtio_flush(&v->dev, QUEUE_RX);
}

/* ---- guest to host ---- */

static void forwarded(struct vsock_conn *c, size_t n)
{
	c->fwd_cnt += (uint32_t)n;
	if (c->fwd_cnt - c->told_fwd >= CREDIT_STEP && !c->gone)
		conn_owe(c, TODO_CREDIT);
}

/* Everything is written: what was waiting for that? */
static void drained(struct vsock_conn *c)
{
	buf_fini(&c->out);
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
	forwarded(c, (size_t)n);
	if (buf_len(&c->out) == 0)
		drained(c);
}

/* Data of the guest: into the socket, and what that does not take into `out`. */
static void take_data(struct vsock_conn *c, const struct virtq_chain *chain, uint32_t len)
{
	struct iovec iov[VIRTQ_CHAIN_MAX];
	size_t off = sizeof(struct vsock_hdr), done = 0;

	if (len == 0)
		return;
	if (c->shut_host & SHUT_RECEIVE) {
		forwarded(c, len); /* nobody reads it; the guest was told */
		return;
	}
	if (len > VSOCK_BUF_ALLOC - buf_len(&c->out)) {
		conn_reset(c); /* more than it has credit for */
		return;
	}
	if (buf_len(&c->out) == 0) {
		unsigned n = iov_slice(chain->iov, chain->n_out, off, len, iov, ARRAY_SIZE(iov));
		ssize_t r = send_iov(c->fd, iov, n);
		if (r < 0 && r != -EAGAIN && r != -EINTR) {
			host_shut(c, SHUT_RECEIVE);
			return;
		}
		done = r > 0 ? (size_t)r : 0;
		forwarded(c, done);
	}
	unsigned n =
		iov_slice(chain->iov, chain->n_out, off + done, len - done, iov, ARRAY_SIZE(iov));
	for (unsigned i = 0; i < n; i++) {
		if (buf_put(&c->out, iov[i].iov_base, iov[i].iov_len) < 0) {
			conn_reset(c);
			return;
		}
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

static void refuse(struct virtio_vsock *v, const struct vsock_hdr *h)
{
	if (h->op == OP_RST)
		return; /* never an answer to an answer */
	/* There is room: tx_round looks before it takes a packet. */
	unsigned i = (v->reset_first + v->n_resets) % VSOCK_RESETS_MAX;
	v->resets[i] = (struct vsock_reset){ .host_port = h->dst_port, .guest_port = h->src_port };
	v->n_resets++;
}

/* The guest opens its one connection. */
static void take_request(struct virtio_vsock *v, const struct vsock_hdr *h)
{
	struct vsock_conn *c = NULL;
	if (h->dst_port == VSOCK_AGENT_PORT && v->agent_fd >= 0)
		c = conn_new(v, h->dst_port, h->src_port);
	if (!c) {
		refuse(v, h);
		return;
	}
	c->fd = take_fd(&v->agent_fd);
	c->open = true;
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	conn_owe(c, TODO_RESPONSE);
	conn_watch(c);
	if (v->agent_connected)
		v->agent_connected(v->arg);
}

/* (state, op) of a connection that the guest's packet names. Length and ids are checked. */
static void conn_take(struct vsock_conn *c, const struct vsock_hdr *h,
		      const struct virtq_chain *chain)
{
	if (h->op == OP_RST) {
		conn_forget(c);
		return;
	}
	if (c->gone)
		return; /* its RST is under way */
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (h->op == OP_RESPONSE && !c->open && !(c->todo & TODO_REQUEST)) {
		c->open = true;
		ev_timer_del(&c->timer);
	} else if (!c->open || h->op == OP_RESPONSE || h->op == OP_REQUEST) {
		conn_reset(c);
		return;
	} else if (h->op == OP_RW) {
		if (c->shut_guest & SHUT_SEND)
			conn_reset(c);
		else
			take_data(c, chain, h->len);
	} else if (h->op == OP_SHUTDOWN) {
		take_shutdown(c, h->flags);
	} else if (h->op == OP_CREDIT_REQUEST) {
		conn_owe(c, TODO_CREDIT);
	}
	if (c->dead)
		return;
	if (has_packet(c)) /* credit may have come with any packet */
		conn_queue(c);
	conn_watch(c);
}

static void take_packet(struct virtio_vsock *v, const struct virtq_chain *chain)
{
	struct vsock_hdr h;
	if (iov_read(chain->iov, chain->n_out, 0, &h, sizeof(h)) != sizeof(h))
		return; /* not even ports to answer to */
	if (h.src_cid != v->guest_cid || h.dst_cid != VSOCK_HOST_CID || h.type != TYPE_STREAM ||
	    h.op == OP_INVALID || h.op >= OP_COUNT || h.len > VSOCK_PACKET_MAX ||
	    h.len > chain->out_len - sizeof(h) || (h.len > 0 && h.op != OP_RW)) {
		struct vsock_conn *c = conn_find(v, h.dst_port, h.src_port);
		if (c && h.src_cid == v->guest_cid)
			conn_reset(c);
		else
			refuse(v, &h);
		return;
	}
	struct vsock_conn *c = conn_find(v, h.dst_port, h.src_port);
	if (c)
		conn_take(c, &h, chain);
	else if (h.op == OP_REQUEST)
		take_request(v, &h);
	else
		refuse(v, &h);
}

/* Serves the driver's send queue for one round. */
static void tx_round(struct virtio_vsock *v)
{
	struct virtq *vq = &v->dev.queues[QUEUE_TX];
	struct virtq_chain chain;
	unsigned n = 0;
	size_t bytes = 0;

	virtq_disarm(vq);
	do {
		while (n < ROUND_PACKETS && bytes < ROUND_BYTES && v->n_resets < VSOCK_RESETS_MAX &&
		       virtq_pop(vq, &chain)) {
			take_packet(v, &chain);
			virtq_push(vq, chain.head, 0);
			bytes += chain.out_len;
			n++;
		}
		if (n == ROUND_PACKETS || bytes >= ROUND_BYTES) {
			later(v);
			break;
		}
		/* A driver that does not take its RSTs is not served until it does: the rx kick. */
		if (v->n_resets == VSOCK_RESETS_MAX)
			break;
	} while (virtq_arm(vq));
	virtio_flush(&v->dev, QUEUE_TX);
}

/* ---- entry points ---- */

static void work(struct virtio_vsock *v)
{
	tx_round(v);
	rx_pump(v);
	reap(v);
}

static void notify(struct virtio_dev *d, unsigned queue)
{
	/* A kick of either queue can unblock the other: credit for rx, room for RSTs for tx. */
	if (queue != QUEUE_EVENT)
		work(container_of(d, struct virtio_vsock, dev));
}

static void on_again(struct ev_timer *t)
{
	work(t->arg);
}

static void on_io(struct ev_io *io, uint32_t events)
{
	struct vsock_conn *c = io->arg;
	struct virtio_vsock *v = c->v;
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
	rx_pump(v);
	conn_watch(c);
	reap(v);
}

static void on_timeout(struct ev_timer *t)
{
	struct vsock_conn *c = t->arg;
	struct virtio_vsock *v = c->v;
	if (c->todo & TODO_REQUEST)
		conn_kill(c); /* the guest never heard of it */
	else
		conn_reset(c);
	rx_pump(v);
	reap(v);
}

int virtio_vsock_connect(struct virtio_vsock *v, uint32_t guest_port, int fd, struct err *err)
{
	int type = 0;
	socklen_t len = sizeof(type);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return err_set(err, -EINVAL, "not a stream socket");
	do {
		v->next_port++;
		if (v->next_port < FIRST_HOST_PORT || v->next_port == UINT32_MAX)
			v->next_port = FIRST_HOST_PORT;
	} while (conn_find(v, v->next_port, guest_port));
	struct vsock_conn *c = conn_new(v, v->next_port, guest_port);
	if (!c)
		return err_set(err, -ENOBUFS, "more than %u vsock connections", VSOCK_CONNS_MAX);
	int r = ev_timer_add(v->loop, &c->timer, VSOCK_CONNECT_TIMEOUT_NS, on_timeout, c);
	if (r < 0) {
		conn_kill(c);
		reap(v);
		return err_set(err, r, "no memory for a timer");
	}
	c->fd = fd;
	conn_owe(c, TODO_REQUEST);
	rx_pump(v);
	reap(v);
	return 0;
}

void virtio_vsock_set_agent(struct virtio_vsock *v, int fd, void (*agent_connected)(void *arg),
			    void *arg)
{
	fd_close(&v->agent_fd);
	v->agent_fd = fd;
	v->agent_connected = agent_connected;
	v->arg = arg;
}

/* flush: bytes for the host that were accepted are still written. */
static void close_all(struct virtio_vsock *v, bool flush)
{
	struct vsock_conn *c, *next;
	for (c = TAILQ_FIRST(&v->all); c; c = next) {
		next = TAILQ_NEXT(c, in_all);
		if (flush)
			conn_forget(c);
		else
			conn_kill(c);
	}
	v->n_resets = 0;
	ev_timer_del(&v->again);
	reap(v);
}

static void stop(struct virtio_dev *d)
{
	close_all(container_of(d, struct virtio_vsock, dev), true);
}

static void config_read(const struct virtio_dev *d, size_t off, void *buf, size_t len)
{
	const struct virtio_vsock *v = container_of(d, const struct virtio_vsock, dev);
	memcpy(buf, (const uint8_t *)&v->guest_cid + off, len);
}

static const struct virtio_dev_ops vsock_ops = {
	.id = VIRTIO_ID_VSOCK,
	.name = "vsock",
	.n_queues = 3,
	.queue_max = { VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE, 16 },
	.config_len = sizeof(uint64_t),
	.config_read = config_read,
	.stop = stop,
	.notify = notify,
};

void virtio_vsock_init(struct virtio_vsock *v, struct loop *l, uint64_t guest_cid)
{
	*v = (struct virtio_vsock){
		.dev.ops = &vsock_ops, .loop = l, .guest_cid = guest_cid, .agent_fd = -1
	};
	v->again.cb = on_again;
	v->again.arg = v;
	for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
		TAILQ_INIT(&v->table[i]);
	TAILQ_INIT(&v->all);
	TAILQ_INIT(&v->ready);
	TAILQ_INIT(&v->dead);
}

void virtio_vsock_fini(struct virtio_vsock *v)
{
	close_all(v, false);
	fd_close(&v->agent_fd);
}
