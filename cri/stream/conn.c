#include "cri/stream/conn.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/stream/http.h"
#include "cri/stream/ws.h"

#define KEEPALIVE_S 30 /* a peer that is gone without a word is found in two minutes */

/*
 * HEAD, then SESSION or (a request that is refused) FLUSH; SESSION -> FLUSH when the session has
 * said its last, FLUSH -> LINGER when it is sent, and the end when the client has closed.
 */
enum phase { HEAD, SESSION, FLUSH, LINGER };

struct conn {
	struct loop *loop;
	int fd;
	struct ev_io io;
	struct ev_timer timer;
	enum phase phase;
	struct tokens *tokens; /* borrowed */
	uint64_t idle_ns, active_ns;
	void (*gone)(struct conn *c, void *arg);
	void *arg;
	struct buf head;  /* what came before the session */
	struct buf reply; /* and what is said before it */
	struct stream_session *session;
	int unsent;  /* LINGER: bytes that the client's kernel has not taken yet */
	bool broken; /* the client breaks the protocol: what is in `out` is the last */
};

static uint8_t chunk[CONN_READ]; /* callbacks do not nest */

void conn_free(struct conn *c)
{
	if (!c)
		return;
	ev_io_del(&c->io);
	ev_timer_del(&c->timer);
	session_free(c->session);
	fd_close(&c->fd);
	buf_fini(&c->head);
	buf_fini(&c->reply);
	free(c);
}

bool conn_admitted(const struct conn *c)
{
	return c->session != NULL;
}

static void conn_end(struct conn *c)
{
	c->gone(c, c->arg);
	conn_free(c);
}

static void conn_on_timer(struct ev_timer *t);

static int set_timer(struct conn *c, uint64_t after_ns)
{
	return ev_timer_add(c->loop, &c->timer, after_ns, conn_on_timer, c);
}

/* Closing now would throw away what the kernel has still to send, if the client says a word. */
static bool still_sends(struct conn *c)
{
	int n = 0;

	if (c->phase != LINGER || !c->session || ioctl(c->fd, SIOCOUTQ, &n) < 0 || n == 0)
		return false;
	if (n != c->unsent)
		c->active_ns = now_mono_ns();
	c->unsent = n;
	return now_mono_ns() - c->active_ns < c->idle_ns;
}

static void conn_on_timer(struct ev_timer *t)
{
	struct conn *c = t->arg;
	uint64_t quiet = now_mono_ns() - c->active_ns;

	if (still_sends(c) && set_timer(c, CONN_LINGER_MS * NS_PER_MS) == 0)
		return;
	if (c->session && session_opened(c->session) && c->phase != LINGER && !c->broken) {
		if (quiet < c->idle_ns && set_timer(c, c->idle_ns - quiet) == 0)
			return;
		log_limited(LOG_INFO, "a session ends: nothing was said for too long");
	}
	conn_end(c);
}

/* ---- sending ---- */

/* One write of what there is. 0, or -errno: the client is gone. */
static int send_some(struct conn *c, struct buf *b)
{
	ssize_t n = buf_len(b) ? send(c->fd, buf_data(b), buf_len(b), MSG_NOSIGNAL) : 0;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n > 0) {
		buf_consume(b, (size_t)n);
		c->active_ns = now_mono_ns();
	}
	return 0;
}

static int send_all(struct conn *c)
{
	int r = send_some(c, &c->reply);

	if (r == 0 && c->session && buf_len(&c->reply) == 0) {
		r = send_some(c, session_out(c->session));
		if (r == 0)
			session_sent(c->session);
	}
	return r;
}

static bool all_sent(const struct conn *c)
{
	return buf_len(&c->reply) == 0 && (!c->session || buf_len(session_out(c->session)) == 0);
}

static int arm(struct conn *c)
{
	uint32_t events = EPOLLRDHUP;

	if (c->phase != SESSION || session_wants_input(c->session))
		events |= EPOLLIN;
	if (!all_sent(c))
		events |= EPOLLOUT;
	return events == c->io.events ? 0 : ev_io_set(&c->io, events);
}

/* Sends, and moves on as far as that leads. The connection may be gone after it. */
static void conn_go_on(struct conn *c)
{
	int r = send_all(c);

	if (r == 0 && c->phase == SESSION && session_finished(c->session)) {
		c->phase = FLUSH;
		r = set_timer(c, c->broken ? CONN_LINGER_MS * NS_PER_MS : c->idle_ns);
	}
	if (r == 0 && c->phase == FLUSH && all_sent(c)) {
		/* What the client still sends is read: closing over it would reset the connection,
		 * and the client would lose what it has not read yet. */
		c->phase = LINGER;
		r = shutdown(c->fd, SHUT_WR) < 0 ? -errno : 0;
		if (r == 0)
			r = set_timer(c, CONN_LINGER_MS * NS_PER_MS);
	}
	if (r == 0)
		r = arm(c);
	if (r < 0)
		conn_end(c);
}

static void conn_on_session_changed(void *arg)
{
	conn_go_on(arg);
}

/* ---- the request ---- */

static int refuse(struct conn *c, int status, const char *reason, const char *more)
{
	c->phase = FLUSH;
	log_limited(LOG_DEBUG, "a request for a stream is refused", "why", reason);
	return buf_printf(&c->reply,
			  "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain\r\nContent-Length: %zu\r\n"
			  "Connection: close\r\n\r\n%s\n",
			  status, reason, more, strlen(reason) + 1, reason);
}

static int start_session(struct conn *c, struct token *token, const struct wire_dialect *d)
{
	struct token t = *token;
	int r = session_new(c->loop, d, t.want, t.ops, t.arg, conn_on_session_changed, c,
			    &c->session);

	if (r < 0)
		return r;
	tokens_take(c->tokens, token);
	c->phase = SESSION;
	return set_timer(c, CONN_OPEN_MS * NS_PER_MS);
}

static int upgrade_spdy(struct conn *c, const struct http_head *h, struct token *token)
{
	static const char field[] = "X-Stream-Protocol-Version";
	const struct wire_dialect *d = wire_choose(h, field, true);
	char more[160];
	int r;

	if (!http_value(h, field))
		return refuse(c, 400, "Bad Request", "");
	(void)snprintf(more, sizeof(more), "X-Accepted-Stream-Protocol-Versions: %s\r\n",
		       wire_spdy_names);
	if (!d)
		return refuse(c, 403, "Forbidden", more);
	r = start_session(c, token, d);
	if (r == 0)
		r = buf_printf(&c->reply,
			       "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
			       "Upgrade: SPDY/3.1\r\n%s: %s\r\n\r\n",
			       field, d->name);
	return r;
}

static int upgrade_ws(struct conn *c, const struct http_head *h, struct token *token)
{
	static const char field[] = "Sec-WebSocket-Protocol";
	static const struct wire_dialect unnamed = { "", 1 };
	const struct wire_dialect *d = wire_choose(h, field, false);
	const char *version = http_value(h, "Sec-WebSocket-Version");
	char accept[WS_ACCEPT_LEN + 1];
	int r;

	if (!str_eq(h->method, "GET"))
		return refuse(c, 405, "Method Not Allowed", "Allow: GET\r\n");
	if (!str_eq(version, "13"))
		return refuse(c, 426, "Upgrade Required", "Sec-WebSocket-Version: 13\r\n");
	if (ws_accept(http_value(h, "Sec-WebSocket-Key"), accept) < 0)
		return refuse(c, 400, "Bad Request", "");
	if (!d && http_value(h, field))
		return refuse(c, 403, "Forbidden", "");
	r = start_session(c, token, d ? d : &unnamed);
	if (r == 0)
		r = buf_printf(&c->reply,
			       "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
			       "Upgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n",
			       accept);
	if (r == 0 && d)
		r = buf_printf(&c->reply, "%s: %s\r\n", field, d->name);
	return r == 0 ? buf_put(&c->reply, "\r\n", 2) : r;
}

static int answer(struct conn *c, const struct http_head *h)
{
	struct token *token;

	if (!str_eq(h->method, "GET") && !str_eq(h->method, "POST"))
		return refuse(c, 405, "Method Not Allowed", "Allow: GET, POST\r\n");
	token = tokens_find(c->tokens, h->target);
	if (!token)
		return refuse(c, 404, "Not Found", "");
	if (http_has_body(h) || !http_value(h, "Host"))
		return refuse(c, 400, "Bad Request", "");
	if (!http_has_word(h, "Connection", "Upgrade"))
		return refuse(c, 426, "Upgrade Required", "Upgrade: SPDY/3.1, websocket\r\n");
	if (http_has_word(h, "Upgrade", "SPDY/3.1"))
		return upgrade_spdy(c, h, token);
	if (http_has_word(h, "Upgrade", "websocket"))
		return upgrade_ws(c, h, token);
	return refuse(c, 426, "Upgrade Required", "Upgrade: SPDY/3.1, websocket\r\n");
}

static int feed_session(struct conn *c, const uint8_t *data, size_t n)
{
	bool opened = session_opened(c->session);

	if (session_feed(c->session, data, n) < 0) {
		log_limited(LOG_INFO, "a client breaks the protocol of its session");
		c->broken = true;
		session_abandon(c->session);
	}
	c->active_ns = now_mono_ns();
	/* From now on the timer looks for silence. */
	if (!opened && session_opened(c->session))
		return set_timer(c, c->idle_ns);
	return 0;
}

static int read_head(struct conn *c, const uint8_t *data, size_t n)
{
	struct http_head h;
	ssize_t len;
	int r = buf_put(&c->head, data, n);

	if (r < 0)
		return r;
	len = http_head_parse(buf_data(&c->head), buf_len(&c->head), &h);
	if (len == 0 || len == -ENOMEM)
		return (int)len;
	if (len == -EMSGSIZE)
		return refuse(c, 431, "Request Header Fields Too Large", "");
	if (len == -EOPNOTSUPP)
		return refuse(c, 505, "HTTP Version Not Supported", "");
	if (len < 0)
		return refuse(c, 400, "Bad Request", "");
	r = answer(c, &h);
	http_head_fini(&h);
	buf_consume(&c->head, (size_t)len);
	/* Also without a byte: some sessions begin at once. */
	if (r == 0 && c->phase == SESSION)
		r = feed_session(c, buf_data(&c->head), buf_len(&c->head));
	buf_fini(&c->head);
	return r;
}

/* ---- the socket ---- */

static int take(struct conn *c, const uint8_t *data, size_t n)
{
	if (c->phase == HEAD)
		return read_head(c, data, n);
	if (c->phase == SESSION && !session_finished(c->session))
		return feed_session(c, data, n);
	return 0; /* of no use any more */
}

static void conn_on_io(struct ev_io *io, uint32_t events)
{
	struct conn *c = io->arg;
	ssize_t n;
	int r = 0;

	if (events & EPOLLIN) {
		n = recv(c->fd, chunk, sizeof(chunk), 0);
		if (n > 0)
			r = take(c, chunk, (size_t)n);
		else if (n == 0)
			r = -EPIPE;
		else if (errno != EAGAIN && errno != EINTR)
			r = -errno;
	} else if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		/* Gone, while the process takes no more input. */
		r = -EPIPE;
	}
	if (r == 0 && c->phase == SESSION && session_left(c->session) &&
	    !session_finished(c->session))
		r = -EPIPE;
	if (r < 0)
		conn_end(c);
	else
		conn_go_on(c);
}

int conn_new(struct loop *l, int fd, struct tokens *tokens, uint64_t idle_ms,
	     void (*gone)(struct conn *c, void *arg), void *arg, struct conn **ret)
{
	static const int one = 1, idle = KEEPALIVE_S, count = 3;
	struct conn *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		fd_close(&fd);
		return -ENOMEM;
	}
	*c = (struct conn){ .loop = l,
			    .fd = fd,
			    .tokens = tokens,
			    .idle_ns = idle_ms * NS_PER_MS,
			    .active_ns = now_mono_ns(),
			    .gone = gone,
			    .arg = arg };
	buf_init(&c->head, HTTP_HEAD_MAX + CONN_READ);
	buf_init(&c->reply, 4 * KIB);
	/* Refused where it is no TCP socket, as in tests. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	r = ev_io_add(l, &c->io, fd, EPOLLIN | EPOLLRDHUP, conn_on_io, c);
	if (r == 0)
		r = set_timer(c, CONN_HEAD_MS * NS_PER_MS);
	if (r < 0) {
		conn_free(c);
		return r;
	}
	*ret = c;
	return 0;
}
