#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/pb.h"
#include "base/ttrpc/ttrpc.h"
#include "base/ttrpc/codec.h"
#include "base/ttrpc/conn.h"
#include "base/util.h"

#define ACCEPT_MOST 16
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define DEADLINE_MAX_NS (365 * 86400 * NS_PER_S)

/* A call is in one list: of its connection, or (the client is gone, or got its answer) of the
 * server's orphans. It ends with the handler's answer only. */
LIST_HEAD(call_list, ttrpc_call);
LIST_HEAD(peer_list, peer);

struct peer {
	struct ttrpc_conn conn;
	struct ttrpc_server *server;
	LIST_ENTRY(peer) link;
	struct call_list calls;
	unsigned n_calls;
	uint32_t last_id;
};

#define CALL_OPEN 0x63616c6cu

struct ttrpc_call {
	LIST_ENTRY(ttrpc_call) link;
	uint32_t open;		     /* CALL_OPEN until it is answered */
	struct ttrpc_server *server; /* NULL: freed */
	struct peer *peer;	     /* NULL: an orphan */
	uint32_t stream_id;
	bool streaming;
	struct ev_timer deadline;
	void (*on_cancel)(struct ttrpc_call *, void *);
	void *cancel_arg;
};

struct ttrpc_server {
	struct loop *loop;
	const struct ttrpc_service *services;
	size_t n_services;
	struct peer_list peers;
	unsigned n_peers;
	unsigned n_calls; /* with orphans */
	struct call_list orphans;
	struct call_list cancelling; /* orphans whose on_cancel has not been called yet */
	int listen_fd;
	bool same_user;
	struct ev_io listen_io;
	struct ev_timer listen_pause;
	void (*on_disconnect)(void *);
	void *disconnect_arg;
	bool *gone; /* set when the server is freed inside its callback */
};

/* ---- calls ---- */

/* Read from freed memory when a handler answers twice. As long as nobody has taken that memory, the
 * mark is what call_free left there. */
no_sanitize static bool call_open(const struct ttrpc_call *call)
{
	return call->open == CALL_OPEN;
}

static void call_orphan(struct ttrpc_call *call, struct call_list *list)
{
	check(call->peer && call->peer->n_calls > 0);
	LIST_REMOVE(call, link);
	LIST_INSERT_HEAD(list, call, link);
	ev_timer_del(&call->deadline);
	call->peer->n_calls--;
	call->peer = NULL;
}

/* The call is over; gives its connection back for the flush, NULL if there is none. */
static struct ttrpc_conn *call_free(struct ttrpc_call *call)
{
	struct ttrpc_conn *conn = NULL;

	if (call->server) {
		check(call->server->n_calls > 0);
		LIST_REMOVE(call, link);
		call->server->n_calls--;
	}
	if (call->peer) {
		check(call->server && call->peer->n_calls > 0);
		call->peer->n_calls--;
		conn = &call->peer->conn;
	}
	ev_timer_del(&call->deadline);
	/* Without `volatile` the compiler knows that free() makes it pointless. */
	*(volatile uint32_t *)&call->open = 0;
	free(call);
	return conn;
}

/* The last frame of a stream; one that cannot be queued ends the connection: its client must not
 * wait. */
static void put_last(struct peer *p, uint32_t stream_id, int r, enum rpc_code code, const char *msg)
{
	if (r == -EMSGSIZE)
		r = ttrpc_put_status(&p->conn.out, stream_id, code, msg, NULL, NULL);
	if (r < 0)
		ttrpc_conn_end(&p->conn, r);
}

static void put_error(struct peer *p, uint32_t stream_id, enum rpc_code code, const char *msg)
{
	put_last(p, stream_id, -EMSGSIZE, code, msg);
}

/* Answers in the handler's place. The handler's own answer goes nowhere then. */
static void call_abort(struct ttrpc_call *call, enum rpc_code code, const char *msg)
{
	struct ttrpc_conn *conn = &call->peer->conn;

	put_error(call->peer, call->stream_id, code, msg);
	call_orphan(call, &call->server->orphans);
	ttrpc_conn_flush(conn);
	if (call->on_cancel)
		call->on_cancel(call, call->cancel_arg);
}

static void server_on_deadline(struct ev_timer *t)
{
	call_abort(t->arg, RPC_DEADLINE_EXCEEDED, "deadline exceeded");
}

#define TOO_LARGE "the answer is larger than a ttrpc message may be (4 MiB)"

void ttrpc_reply(struct ttrpc_call *call, const ProtobufCMessage *resp)
{
	struct peer *p;
	struct ttrpc_conn *conn;
	int r;

	check(call_open(call));
	p = call->peer;
	if (p) {
		if (call->streaming)
			r = ttrpc_put_data(&p->conn.out, call->stream_id,
					   TTRPC_REMOTE_CLOSED | (resp ? 0 : TTRPC_NO_DATA), resp);
		else
			r = ttrpc_put_response(&p->conn.out, call->stream_id, resp);
		put_last(p, call->stream_id, r, RPC_RESOURCE_EXHAUSTED, TOO_LARGE);
	}
	conn = call_free(call);
	if (conn)
		ttrpc_conn_flush(conn);
}

void ttrpc_reply_status(struct ttrpc_call *call, enum rpc_code code, const char *msg,
			const char *detail_type, const ProtobufCMessage *detail)
{
	struct peer *p;
	struct ttrpc_conn *conn;
	int r;

	check(call_open(call));
	p = call->peer;
	if (p) {
		r = ttrpc_put_status(&p->conn.out, call->stream_id, code, msg, detail_type, detail);
		put_last(p, call->stream_id, r, code, "the error's details are too large");
	}
	conn = call_free(call);
	if (conn)
		ttrpc_conn_flush(conn);
}

void ttrpc_reply_err(struct ttrpc_call *call, int code, const struct err *err)
{
	enum rpc_code rpc = rpc_code_of_errno(code);

	/* A handler that fails with 0 has a bug; its client must not take it for success. */
	if (rpc == RPC_OK)
		rpc = RPC_UNKNOWN;
	ttrpc_reply_status(call, rpc, err && err->msg[0] ? err->msg : strerror(-code), NULL, NULL);
}

int ttrpc_send(struct ttrpc_call *call, const ProtobufCMessage *msg)
{
	struct peer *p;
	int r;

	check(call_open(call));
	p = call->peer;
	if (!call->streaming)
		return -EINVAL;
	if (!p || p->conn.ended)
		return -EPIPE;
	if (buf_len(&p->conn.out) > TTRPC_STREAM_QUEUE_MAX)
		return -ENOBUFS;
	r = ttrpc_put_data(&p->conn.out, call->stream_id, 0, msg);
	if (r == 0)
		ttrpc_conn_flush(&p->conn);
	return r;
}

void ttrpc_call_on_cancel(struct ttrpc_call *call, void (*cb)(struct ttrpc_call *, void *),
			  void *arg)
{
	check(call_open(call));
	call->on_cancel = cb;
	call->cancel_arg = arg;
}

/* ---- frames ---- */

static const struct ttrpc_service *find_service(const struct ttrpc_server *s, const char *name)
{
	for (size_t i = 0; i < s->n_services; i++)
		if (str_eq(s->services[i].desc->name, name))
			return &s->services[i];
	return NULL;
}

static const struct ttrpc_method *find_method(const struct ttrpc_service *svc, const char *name)
{
	for (const struct ttrpc_method *m = svc->methods; m->name; m++)
		if (str_eq(m->name, name))
			return m;
	return NULL;
}

static struct ttrpc_call *call_new(struct peer *p, uint32_t stream_id, int64_t timeout_ns)
{
	struct ttrpc_call *call = calloc(1, sizeof(*call));
	uint64_t ns = (uint64_t)timeout_ns;

	if (!call)
		return NULL;
	if (timeout_ns > 0 &&
	    ev_timer_add(p->server->loop, &call->deadline, MIN_OF(ns, DEADLINE_MAX_NS),
			 server_on_deadline, call) < 0) {
		free(call);
		return NULL;
	}
	call->open = CALL_OPEN;
	call->server = p->server;
	call->peer = p;
	call->stream_id = stream_id;
	LIST_INSERT_HEAD(&p->calls, call, link);
	p->n_calls++;
	p->server->n_calls++;
	return call;
}

/* Why a message could not be unpacked, as an answer. */
static void put_unpack_error(struct peer *p, uint32_t stream_id, int r)
{
	if (r == -EBADMSG)
		put_error(p, stream_id, RPC_INVALID_ARGUMENT, "malformed request");
	else
		put_error(p, stream_id, RPC_RESOURCE_EXHAUSTED,
			  "the request needs too much memory");
}

static void dispatch(struct peer *p, const struct ttrpc_frame *f, struct pb_arena *arena)
{
	const ProtobufCMethodDescriptor *desc;
	const struct ttrpc_service *svc;
	const struct ttrpc_method *m;
	ProtobufCMessage *msg, *req;
	struct ttrpc_call *call;
	Ttrpc__Request *head;
	char text[200];
	int r;

	r = pb_unpack(arena, &ttrpc__request__descriptor, f->payload, f->len, &msg);
	if (r < 0)
		return put_unpack_error(p, f->stream_id, r);
	head = (Ttrpc__Request *)msg;
	svc = find_service(p->server, head->service);
	m = svc ? find_method(svc, head->method) : NULL;
	if (!m) {
		(void)snprintf(text, sizeof(text), "%s %.60s/%.60s is not implemented",
			       svc ? "method" : "service", head->service, head->method);
		return put_error(p, f->stream_id, RPC_UNIMPLEMENTED, text);
	}
	if (f->flags & TTRPC_REMOTE_OPEN)
		return put_error(p, f->stream_id, RPC_UNIMPLEMENTED,
				 "streams from the client are not implemented");
	if (p->n_calls >= TTRPC_CALLS_MAX || p->server->n_calls >= TTRPC_SERVER_CALLS_MAX)
		return put_error(p, f->stream_id, RPC_RESOURCE_EXHAUSTED, "too many open calls");
	desc = protobuf_c_service_descriptor_get_method_by_name(svc->desc, m->name);
	r = pb_unpack(arena, desc->input, head->payload.data, head->payload.len, &req);
	if (r < 0)
		return put_unpack_error(p, f->stream_id, r);
	call = call_new(p, f->stream_id, head->timeout_nano);
	if (!call)
		return put_error(p, f->stream_id, RPC_RESOURCE_EXHAUSTED, "out of memory");
	call->streaming = m->streams;
	m->handler(call, req, svc->arg);
}

static void take_request(struct peer *p, const struct ttrpc_frame *f)
{
	cleanup_pb_arena struct pb_arena arena;

	pb_arena_init(&arena, TTRPC_UNPACKED_MAX);
	if (f->stream_id % 2 == 0)
		return put_error(p, f->stream_id, RPC_INVALID_ARGUMENT, "stream id is not odd");
	if (f->stream_id <= p->last_id)
		return put_error(p, f->stream_id, RPC_INVALID_ARGUMENT,
				 "stream id was used before");
	p->last_id = f->stream_id;
	if (f->oversize)
		return put_error(p, f->stream_id, RPC_RESOURCE_EXHAUSTED,
				 "the request is larger than a ttrpc message may be (4 MiB)");
	dispatch(p, f, &arena);
}

/* No method takes a stream, so a client may at most say once more that it sends nothing. */
static void take_data(struct peer *p, const struct ttrpc_frame *f)
{
	struct ttrpc_call *call;

	LIST_FOREACH(call, &p->calls, link)
	if (call->stream_id == f->stream_id)
		break;
	if (!call)
		put_error(p, f->stream_id, RPC_INVALID_ARGUMENT, "no such stream");
	else if (f->len > 0 || !(f->flags & TTRPC_NO_DATA))
		call_abort(call, RPC_INVALID_ARGUMENT, "the method takes no stream");
}

static void server_on_frame(struct ttrpc_conn *c, const struct ttrpc_frame *f)
{
	struct peer *p = container_of(c, struct peer, conn);

	if (f->type == TTRPC_REQUEST)
		take_request(p, f);
	else if (f->type == TTRPC_DATA)
		take_data(p, f);
}

/* ---- connections ---- */

static bool server_owes(const struct ttrpc_conn *c)
{
	return container_of(c, const struct peer, conn)->n_calls > 0;
}

static void peer_free(struct peer *p)
{
	check(LIST_EMPTY(&p->calls));
	check(p->server->n_peers > 0);
	LIST_REMOVE(p, link);
	p->server->n_peers--;
	ttrpc_conn_fini(&p->conn);
	free(p);
}

static void listen_resume(struct ttrpc_server *s)
{
	if (s->listen_io.loop && s->n_peers < TTRPC_CONNS_MAX && !s->listen_pause.loop)
		(void)!ev_io_set(&s->listen_io, EPOLLIN);
}

static void server_on_closed(struct ttrpc_conn *c, int code)
{
	struct peer *p = container_of(c, struct peer, conn);
	struct ttrpc_server *s = p->server;
	struct ttrpc_call *call;
	bool gone = false;

	while ((call = LIST_FIRST(&p->calls)))
		call_orphan(call, &s->cancelling);
	peer_free(p);
	listen_resume(s);
	s->gone = &gone;
	while (!gone && (call = LIST_FIRST(&s->cancelling))) {
		LIST_REMOVE(call, link);
		LIST_INSERT_HEAD(&s->orphans, call, link);
		if (call->on_cancel)
			call->on_cancel(call, call->cancel_arg);
	}
	if (!gone && s->on_disconnect)
		s->on_disconnect(s->disconnect_arg);
	if (!gone)
		s->gone = NULL;
}

static const struct ttrpc_conn_ops peer_ops = {
	.frame = server_on_frame,
	.closed = server_on_closed,
	.busy = server_owes,
	.throttle = true,
};

int ttrpc_server_add(struct ttrpc_server *s, int fd)
{
	cleanup_fd int owned = fd;
	struct peer *p;
	int r;

	if (s->n_peers >= TTRPC_CONNS_MAX)
		return -ENOBUFS;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	r = ttrpc_conn_init(&p->conn, s->loop, take_fd(&owned), &peer_ops);
	if (r < 0) {
		free(p);
		return r;
	}
	p->server = s;
	LIST_INIT(&p->calls);
	LIST_INSERT_HEAD(&s->peers, p, link);
	s->n_peers++;
	return 0;
}

/* ---- listener ---- */

static bool may_connect(const struct ttrpc_server *s, int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (!s->same_user)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || len != sizeof(cred))
		return false;
	return cred.uid == 0 || cred.uid == geteuid();
}

static void server_on_pause_over(struct ev_timer *t)
{
	listen_resume(t->arg);
}

static void server_on_listen(struct ev_io *io, uint32_t events)
{
	struct ttrpc_server *s = io->arg;
	int fd;

	for (int i = 0; i < ACCEPT_MOST && s->n_peers < TTRPC_CONNS_MAX; i++) {
		fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0) {
			/* Out of descriptors or memory: the backlog keeps the listener readable, so
			 * look again later instead of spinning. */
			if (ev_timer_add(s->loop, &s->listen_pause, ACCEPT_PAUSE_NS,
					 server_on_pause_over, s) == 0)
				(void)!ev_io_set(io, 0);
			return;
		}
		if (may_connect(s, fd))
			(void)!ttrpc_server_add(s, fd);
		else
			fd_close(&fd);
	}
	if (s->n_peers >= TTRPC_CONNS_MAX)
		(void)!ev_io_set(io, 0);
}

int ttrpc_server_listen(struct ttrpc_server *s, int listen_fd, bool same_user)
{
	cleanup_fd int fd = listen_fd;
	int r;

	if (s->listen_fd >= 0)
		return -EBUSY;
	r = fd_set_nonblock(fd, true);
	if (r == 0)
		r = ev_io_add(s->loop, &s->listen_io, fd, EPOLLIN, server_on_listen, s);
	if (r < 0)
		return r;
	s->same_user = same_user;
	s->listen_fd = take_fd(&fd);
	return 0;
}

/* ---- the server ---- */

static void check_service(const struct ttrpc_service *svc)
{
	for (const struct ttrpc_method *m = svc->methods; m->name; m++) {
		check(protobuf_c_service_descriptor_get_method_by_name(svc->desc, m->name));
		check(find_method(svc, m->name) == m);
		check(m->handler);
	}
}

int ttrpc_server_new(struct loop *l, const struct ttrpc_service *services, size_t n,
		     struct ttrpc_server **ret, struct err *err)
{
	struct ttrpc_server *s = calloc(1, sizeof(*s));

	for (size_t i = 0; i < n; i++)
		check_service(&services[i]);
	if (!s)
		return err_nomem(err);
	s->loop = l;
	s->services = services;
	s->n_services = n;
	s->listen_fd = -1;
	*ret = s;
	return 0;
}

void ttrpc_server_on_disconnect(struct ttrpc_server *s, void (*cb)(void *arg), void *arg)
{
	s->on_disconnect = cb;
	s->disconnect_arg = arg;
}

static void disown(struct call_list *list)
{
	struct ttrpc_call *call;

	while ((call = LIST_FIRST(list))) {
		LIST_REMOVE(call, link);
		ev_timer_del(&call->deadline);
		call->server = NULL;
		call->peer = NULL;
	}
}

void ttrpc_server_free(struct ttrpc_server *s)
{
	struct peer *p;

	if (!s)
		return;
	if (s->gone)
		*s->gone = true;
	ev_io_del(&s->listen_io);
	ev_timer_del(&s->listen_pause);
	fd_close(&s->listen_fd);
	while ((p = LIST_FIRST(&s->peers))) {
		disown(&p->calls);
		peer_free(p);
	}
	disown(&s->orphans);
	disown(&s->cancelling);
	free(s);
}
