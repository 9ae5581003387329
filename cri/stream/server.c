#include "cri/stream/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/stream/conn.h"
#include "cri/stream/tokens.h"

#define ACCEPT_PAUSE_MS 100 /* after a failure, e.g. no descriptor is free */

struct client {
	TAILQ_ENTRY(client) link;
	struct stream_server *server;
	struct conn *conn;
};

struct stream_server {
	struct loop *loop;
	int fd;
	struct ev_io io;
	struct ev_timer pause;
	uint64_t idle_ms;
	char address[INET6_ADDRSTRLEN + 16];
	struct tokens *tokens;
	TAILQ_HEAD(clients, client) clients; /* the oldest first */
	unsigned n;
};

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static void server_on_gone(struct conn *conn, void *arg)
{
	struct client *c = arg;

	TAILQ_REMOVE(&c->server->clients, c, link);
	c->server->n--;
	free(c);
}

static void drop(struct client *c)
{
	struct conn *conn = c->conn;

	server_on_gone(conn, c);
	conn_free(conn);
}

/* Those who only hold connections must not keep out those who have a token. */
static void make_room(struct stream_server *s)
{
	struct client *c, *oldest = NULL;
	unsigned strangers = 0;

	TAILQ_FOREACH(c, &s->clients, link)
	{
		if (conn_admitted(c->conn))
			continue;
		strangers++;
		if (!oldest)
			oldest = c;
	}
	if (strangers >= STREAM_STRANGERS_MAX)
		drop(oldest);
}

static void add_client(struct stream_server *s, int fd)
{
	struct client *c = NULL;

	make_room(s);
	if (s->n < STREAM_CONNS_MAX)
		c = calloc(1, sizeof(*c));
	if (!c) {
		log_limited(LOG_WARN, "a connection for a stream is refused: there are too many");
		fd_close(&fd);
		return;
	}
	c->server = s;
	if (conn_new(s->loop, fd, s->tokens, s->idle_ms, server_on_gone, c, &c->conn) < 0) {
		free(c);
		return;
	}
	TAILQ_INSERT_TAIL(&s->clients, c, link);
	s->n++;
}

static void server_on_pause(struct ev_timer *t)
{
	struct stream_server *s = t->arg;

	if (ev_io_set(&s->io, EPOLLIN) < 0)
		log_limited(LOG_ERROR, "no stream can be opened any more");
}

static void server_on_connection(struct ev_io *io, uint32_t events)
{
	struct stream_server *s = io->arg;
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		add_client(s, fd);
		return;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	log_limited(LOG_WARN, "cannot accept a connection for a stream", "err", strerror(errno));
	if (ev_timer_add(s->loop, &s->pause, ACCEPT_PAUSE_MS * NS_PER_MS, server_on_pause, s) == 0)
		(void)!ev_io_set(&s->io, 0);
}

/* ---- the address ---- */

static int parse_address(const char *text, uint16_t port, union address *ret, socklen_t *ret_len,
			 struct err *err)
{
	*ret = (union address){ 0 };
	if (inet_pton(AF_INET, text, &ret->v4.sin_addr) == 1) {
		ret->v4.sin_family = AF_INET;
		ret->v4.sin_port = htons(port);
		*ret_len = sizeof(ret->v4);
		if (ret->v4.sin_addr.s_addr != htonl(INADDR_ANY))
			return 0;
	} else if (inet_pton(AF_INET6, text, &ret->v6.sin6_addr) == 1) {
		ret->v6.sin6_family = AF_INET6;
		ret->v6.sin6_port = htons(port);
		*ret_len = sizeof(ret->v6);
		if (!IN6_IS_ADDR_UNSPECIFIED(&ret->v6.sin6_addr))
			return 0;
	} else {
		return err_set(err, -EINVAL, "\"%s\" is no IP address", text);
	}
	return err_set(err, -EINVAL, "%s is no address that a client can be sent to", text);
}

static bool is_loopback(const union address *a)
{
	return a->any.sa_family == AF_INET ? ntohl(a->v4.sin_addr.s_addr) >> 24 == 127
					   : IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

static int listen_on(struct stream_server *s, const char *text, uint16_t port, struct err *err)
{
	static const int one = 1;
	union address a;
	socklen_t len;
	bool v4;
	int r = parse_address(text, port, &a, &len, err);

	if (r < 0)
		return r;
	s->fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 || setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(s->fd, &a.any, len) < 0 || listen(s->fd, 128) < 0 ||
	    getsockname(s->fd, &a.any, &len) < 0)
		return err_errno(err, -errno, "listen on %s, port %u", text, port);
	v4 = a.any.sa_family == AF_INET;
	(void)snprintf(s->address, sizeof(s->address), v4 ? "%s:%u" : "[%s]:%u", text,
		       ntohs(v4 ? a.v4.sin_port : a.v6.sin6_port));
	if (!is_loopback(&a))
		log_warn("streams are not encrypted, and are not served on loopback only",
			 "address", s->address);
	r = ev_io_add(s->loop, &s->io, s->fd, EPOLLIN, server_on_connection, s);
	return r < 0 ? err_errno(err, r, "listen on %s", s->address) : 0;
}

int stream_server_new(struct loop *l, const char *address, uint16_t port, uint64_t idle_s,
		      struct stream_server **ret, struct err *err)
{
	struct stream_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_nomem(err);
	*s = (struct stream_server){ .loop = l, .fd = -1, .idle_ms = idle_s * 1000 };
	TAILQ_INIT(&s->clients);
	r = tokens_new(l, &s->tokens);
	if (r < 0)
		(void)err_nomem(err);
	else
		r = listen_on(s, address, port, err);
	if (r < 0) {
		stream_server_free(s);
		return err_wrap(err, r, "the streaming server");
	}
	*ret = s;
	return 0;
}

void stream_server_free(struct stream_server *s)
{
	if (!s)
		return;
	ev_io_del(&s->io);
	ev_timer_del(&s->pause);
	fd_close(&s->fd);
	while (!TAILQ_EMPTY(&s->clients))
		drop(TAILQ_FIRST(&s->clients));
	tokens_free(s->tokens);
	free(s);
}

int stream_server_url(struct stream_server *s, const char *kind, struct stream_want want,
		      const struct stream_ops *ops, void *arg, char **ret, struct err *err)
{
	struct token token = { .kind = kind, .want = want, .ops = ops, .arg = arg };
	size_t size = strlen("http:///") + strlen(s->address) + strlen(kind) + TOKEN_LEN + 2;
	cleanup_free char *url = malloc(size);
	char text[TOKEN_LEN + 1];
	int r = url ? tokens_add(s->tokens, &token, text) : -ENOMEM;

	if (r == -ENOBUFS)
		return err_set(err, r, "%u streams wait for their clients already", TOKENS_MAX);
	if (r < 0)
		return r == -ENOMEM ? err_nomem(err) : err_errno(err, r, "make a token");
	(void)snprintf(url, size, "http://%s/%s/%s", s->address, kind, text);
	*ret = take_ptr(&url);
	return 0;
}

const char *stream_server_address(const struct stream_server *s)
{
	return s->address;
}
