#include "cri/rpc/grpc.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"
#include "cri/rpc/decode.h"

/* One operation that the completion queue reports: at most one is outstanding. */
struct tag {
	struct rpc_server *server;
	struct rpc_call *call;
	void (*fn)(struct rpc_call *call, bool ok);
	bool ok;
};

struct rpc_call {
	struct rpc_server *server;
	struct rpc_call *prev, *next; /* open calls of the server */
	grpc_call *grpc;
	grpc_call_details details;
	grpc_metadata_array headers;
	const struct rpc_service *service;
	const ProtobufCMethodDescriptor *method;
	const struct rpc_method *entry;

	struct tag t_new, t_close, t_recv, t_send, t_status;
	grpc_byte_buffer *received;
	struct pb_arena arena; /* of the request */
	int was_cancelled;     /* set by gRPC with t_close */

	bool headers_sent;
	bool sending;	/* t_send is outstanding */
	bool receiving; /* t_recv is outstanding */
	bool answered;	/* the final answer was given */
	bool finishing; /* t_status is outstanding */
	bool finished;	/* t_status came */
	bool closed;	/* t_close came */
	bool cancelled;

	/* The final answer, kept while a message of the stream is on its way. */
	grpc_byte_buffer *final_message;
	enum rpc_code status;
	char *status_text;
	char *trailer_key, *trailer_value;

	void (*on_cancel)(struct rpc_call *, void *);
	void *on_cancel_arg;
	void (*on_sent)(struct rpc_call *, void *);
	void *on_sent_arg;
	rpc_recv_fn on_recv;
	void *on_recv_arg;
	struct ev_timer late; /* rpc_on_cancel of a call that was cancelled before */
};

struct rpc_server {
	struct loop *loop;
	const struct rpc_service *services;
	size_t n_services;
	grpc_server *grpc;
	grpc_completion_queue *cq;
	grpc_server_credentials *creds;
	pthread_t thread;
	struct ev_io listen_io;
	int listen_fd;
	struct ev_timer accept_pause;
	struct rpc_call *calls; /* open */
	unsigned n_calls;
	bool requested; /* gRPC has been asked for the next call */
	bool stopping, drained;
	struct tag t_shutdown;
};

static void call_next(struct rpc_server *s);

/* ---- the thread ---- */

static void rpc_tag_run(void *arg)
{
	struct tag *t = arg;

	t->fn(t->call, t->ok);
}

static void *rpc_thread(void *arg)
{
	struct rpc_server *s = arg;

	for (;;) {
		struct tag *t;
		grpc_event ev =
			grpc_completion_queue_next(s->cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

		if (ev.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (ev.type != GRPC_OP_COMPLETE)
			continue;
		t = ev.tag;
		t->ok = ev.success;
		while (loop_post(s->loop, rpc_tag_run, t) < 0)
			usleep(1000); /* out of memory: nothing may be lost */
	}
}

/* ---- one call ---- */

static void tag_set(struct tag *t, struct rpc_call *c, void (*fn)(struct rpc_call *, bool))
{
	*t = (struct tag){ .server = c->server, .call = c, .fn = fn };
}

static void call_free(struct rpc_call *c)
{
	struct rpc_server *s = c->server;

	if (c->prev)
		c->prev->next = c->next;
	else if (s->calls == c)
		s->calls = c->next;
	if (c->next)
		c->next->prev = c->prev;
	pb_arena_fini(&c->arena);
	if (c->received)
		grpc_byte_buffer_destroy(c->received);
	if (c->final_message)
		grpc_byte_buffer_destroy(c->final_message);
	grpc_call_details_destroy(&c->details);
	grpc_metadata_array_destroy(&c->headers);
	if (c->grpc)
		grpc_call_unref(c->grpc);
	free(c->status_text);
	free(c->trailer_key);
	free(c->trailer_value);
	free(c);
}

/* Frees the call once gRPC holds none of its tags. */
static void call_end_check(struct rpc_call *c)
{
	struct rpc_server *s = c->server;

	if (!c->finished || !c->closed || c->sending || c->receiving)
		return;
	call_free(c);
	s->n_calls--;
	call_next(s);
}

static void rpc_on_status_sent(struct rpc_call *c, bool ok)
{
	c->finished = true;
	call_end_check(c);
}

/* A failed batch is a bug or a call that is gone: the tag is run as if it had failed. */
static void start_batch(struct rpc_call *c, const grpc_op *ops, size_t n, struct tag *t)
{
	grpc_call_error e = grpc_call_start_batch(c->grpc, ops, n, t, NULL);

	if (e == GRPC_CALL_OK)
		return;
	log_limited(LOG_ERROR, "gRPC refused a batch", "method", rpc_method_name(c), "error",
		    grpc_call_error_to_string(e));
	t->ok = false;
	while (loop_post(c->server->loop, rpc_tag_run, t) < 0)
		usleep(1000);
}

/* The final batch: headers unless they are sent, message if any, status. */
static void call_finish(struct rpc_call *c)
{
	grpc_op ops[3] = { 0 };
	size_t n = 0;
	grpc_slice text = grpc_slice_from_copied_string(c->status_text ? c->status_text : "");
	grpc_metadata trailer = { 0 };
	bool has_trailer = c->trailer_key && c->trailer_value;

	c->finishing = true;
	if (!c->headers_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	c->headers_sent = true;
	if (c->final_message) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = c->final_message;
	}
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)c->status;
	ops[n].data.send_status_from_server.status_details = &text;
	if (has_trailer) {
		trailer.key = grpc_slice_from_copied_string(c->trailer_key);
		trailer.value = grpc_slice_from_copied_string(c->trailer_value);
		ops[n].data.send_status_from_server.trailing_metadata_count = 1;
		ops[n].data.send_status_from_server.trailing_metadata = &trailer;
	}
	n++;
	start_batch(c, ops, n, &c->t_status);
	grpc_slice_unref(text);
	if (has_trailer) {
		grpc_slice_unref(trailer.key);
		grpc_slice_unref(trailer.value);
	}
}

static void call_answer(struct rpc_call *c, grpc_byte_buffer *message, enum rpc_code status,
			const char *text)
{
	check(!c->answered);
	c->answered = true;
	c->on_cancel = c->on_sent = NULL;
	ev_timer_del(&c->late);
	c->on_recv = NULL;
	c->final_message = message;
	c->status = status;
	c->status_text = text ? strdup(text) : NULL;
	pb_arena_fini(&c->arena);
	if (!c->sending)
		call_finish(c);
}

/* NULL: too large, then *ret_code says so. A NULL message packs to nothing. */
static grpc_byte_buffer *pack(const ProtobufCMessage *m, int *ret_code)
{
	cleanup_pb ProtobufCMessage *copy = NULL;
	grpc_slice slice;
	grpc_byte_buffer *b;
	size_t n;
	int r = pb_repair(&m, &copy);

	n = r == 0 && m ? protobuf_c_message_get_packed_size(m) : 0;
	if (n > RPC_MESSAGE_MAX)
		r = -ENOBUFS;
	if (r < 0) {
		*ret_code = r;
		return NULL;
	}
	slice = grpc_slice_malloc(n);
	if (n)
		protobuf_c_message_pack(m, GRPC_SLICE_START_PTR(slice));
	b = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return b;
}

void rpc_reply(struct rpc_call *c, const ProtobufCMessage *resp)
{
	int r = 0;
	grpc_byte_buffer *b = NULL;

	if (resp || !c->entry->streams) {
		b = pack(resp, &r);
		if (r == -ENOMEM) {
			rpc_reply_err(c, r, NULL);
			return;
		}
		if (r < 0) {
			rpc_reply_status(c, RPC_RESOURCE_EXHAUSTED,
					 "the answer is larger than 16 MiB; use a filter");
			return;
		}
	}
	call_answer(c, b, RPC_OK, NULL);
}

void rpc_reply_status(struct rpc_call *c, enum rpc_code code, const char *msg)
{
	call_answer(c, NULL, code, msg);
}

void rpc_reply_err(struct rpc_call *c, int code, const struct err *err)
{
	const char *text = code == -ENOMEM ? "out of memory" : strerror(-code);

	call_answer(c, NULL, rpc_code_of_errno(code), err && err->msg[0] ? err->msg : text);
}

void rpc_reply_done(void *arg, int code, const struct err *err)
{
	if (code < 0)
		rpc_reply_err(arg, code, err);
	else
		rpc_reply(arg, NULL);
}

void rpc_set_trailer(struct rpc_call *c, const char *key, const char *value)
{
	free(c->trailer_key);
	free(c->trailer_value);
	c->trailer_key = strdup(key);
	c->trailer_value = strdup(value);
}

static void rpc_on_message_sent(struct rpc_call *c, bool ok)
{
	void (*cb)(struct rpc_call *, void *) = c->on_sent;

	c->sending = false;
	c->on_sent = NULL;
	if (c->answered && !c->finishing)
		call_finish(c);
	else if (cb && ok && !c->answered && !c->cancelled)
		cb(c, c->on_sent_arg);
	else
		call_end_check(c);
}

int rpc_send(struct rpc_call *c, const ProtobufCMessage *msg)
{
	grpc_op ops[2] = { 0 };
	size_t n = 0;
	int r = 0;
	grpc_byte_buffer *b;

	if (c->answered || c->cancelled)
		return -EPIPE;
	if (c->sending)
		return -EAGAIN;
	b = pack(msg, &r);
	if (r < 0)
		return r;
	if (!c->headers_sent)
		ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	c->headers_sent = true;
	ops[n].op = GRPC_OP_SEND_MESSAGE;
	ops[n++].data.send_message.send_message = b;
	c->sending = true;
	tag_set(&c->t_send, c, rpc_on_message_sent);
	start_batch(c, ops, n, &c->t_send);
	grpc_byte_buffer_destroy(b); /* gRPC keeps its own reference of the slices */
	return 0;
}

bool rpc_sending(const struct rpc_call *c)
{
	return c->sending;
}

void rpc_on_sent(struct rpc_call *c, void (*cb)(struct rpc_call *, void *), void *arg)
{
	c->on_sent = cb;
	c->on_sent_arg = arg;
}

static void call_cancel(struct rpc_call *c)
{
	void (*cb)(struct rpc_call *, void *) = c->on_cancel;

	c->on_cancel = NULL;
	c->cancelled = true;
	if (cb && !c->answered)
		cb(c, c->on_cancel_arg);
}

static void rpc_on_late_cancel(struct ev_timer *t)
{
	call_cancel(t->arg);
}

void rpc_on_cancel(struct rpc_call *c, void (*cb)(struct rpc_call *, void *), void *arg)
{
	c->on_cancel = cb;
	c->on_cancel_arg = arg;
	ev_timer_del(&c->late);
	/* Without memory for a timer the call has no owner: it ends when its work does. */
	if (cb && c->cancelled && !c->answered)
		(void)!ev_timer_add(c->server->loop, &c->late, 0, rpc_on_late_cancel, c);
}

bool rpc_cancelled(const struct rpc_call *c)
{
	return c->cancelled;
}

const char *rpc_method_name(const struct rpc_call *c)
{
	return c->method ? c->method->name : "?";
}

static void rpc_on_close(struct rpc_call *c, bool ok)
{
	c->closed = true;
	if ((!ok || c->was_cancelled) && !c->answered)
		call_cancel(c);
	/* The callback may have answered; the status comes as a tag of its own, so c lives. */
	call_end_check(c);
}

/* ---- requests ---- */

static int flatten(grpc_byte_buffer *b, uint8_t **ret, size_t *ret_len)
{
	grpc_byte_buffer_reader reader;
	size_t max = grpc_byte_buffer_length(b), len = 0;
	grpc_slice slice;
	uint8_t *data;

	if (max > RPC_MESSAGE_MAX)
		return -ENOBUFS;
	data = malloc(max + 1);
	if (!data)
		return -ENOMEM;
	if (!grpc_byte_buffer_reader_init(&reader, b)) {
		free(data);
		return -EINVAL;
	}
	while (grpc_byte_buffer_reader_next(&reader, &slice)) {
		size_t n = GRPC_SLICE_LENGTH(slice);

		if (n <= max - len) { /* always true, but the two come from different calls */
			memcpy(data + len, GRPC_SLICE_START_PTR(slice), n);
			len += n;
		}
		grpc_slice_unref(slice);
	}
	grpc_byte_buffer_reader_destroy(&reader);
	*ret = data;
	*ret_len = len;
	return 0;
}

/* The message that came, decoded into the call's arena. */
static int take_message(struct rpc_call *c, ProtobufCMessage **ret, struct err *err)
{
	cleanup_free uint8_t *data = NULL;
	size_t len = 0;
	int r = flatten(c->received, &data, &len);

	grpc_byte_buffer_destroy(take_ptr(&c->received));
	return r < 0 ? r : rpc_decode(&c->arena, c->method->input, data, len, ret, err);
}

static void rpc_on_request(struct rpc_call *c, bool ok)
{
	struct err err = { 0 };
	ProtobufCMessage *req = NULL;
	int r;

	c->receiving = false;
	/* No work for nobody: its handler would never hear that the client is gone. */
	if (c->cancelled) {
		rpc_reply_status(c, RPC_CANCELLED, "cancelled");
		return;
	}
	if (!ok || !c->received) {
		rpc_reply_status(c, RPC_INVALID_ARGUMENT, "the request has no message");
		return;
	}
	r = take_message(c, &req, &err);
	if (r < 0) {
		rpc_reply_err(c, r, &err);
		return;
	}
	if (log_on(LOG_DEBUG))
		log_debug("request", "method", rpc_method_name(c));
	c->entry->handler(c, req, c->service->arg);
}

/* A further message of a client's stream, or its end. */
static void rpc_on_message(struct rpc_call *c, bool ok)
{
	rpc_recv_fn cb = c->on_recv;
	ProtobufCMessage *msg = NULL;
	int r = 0;

	c->receiving = false;
	c->on_recv = NULL;
	if (c->answered || c->cancelled) {
		call_end_check(c);
		return;
	}
	pb_arena_fini(&c->arena);
	pb_arena_init(&c->arena, RPC_DECODED_MAX);
	if (ok && c->received)
		r = take_message(c, &msg, NULL);
	if (cb)
		cb(c, r, msg, c->on_recv_arg);
}

static void start_recv(struct rpc_call *c, void (*fn)(struct rpc_call *, bool))
{
	grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };

	op.data.recv_message.recv_message = &c->received;
	c->receiving = true;
	tag_set(&c->t_recv, c, fn);
	start_batch(c, &op, 1, &c->t_recv);
}

void rpc_recv(struct rpc_call *c, rpc_recv_fn cb, void *arg)
{
	if (c->answered || c->cancelled || c->receiving)
		return;
	c->on_recv = cb;
	c->on_recv_arg = arg;
	start_recv(c, rpc_on_message);
}

/* "/package.Service/Method" -> descriptor; both NULL when there is none. */
static void find_method(struct rpc_server *s, struct rpc_call *c)
{
	cleanup_free char *path = strndup((const char *)GRPC_SLICE_START_PTR(c->details.method),
					  GRPC_SLICE_LENGTH(c->details.method));
	char *slash = path && path[0] == '/' ? strchr(path + 1, '/') : NULL;

	if (!slash)
		return;
	*slash = '\0';
	for (size_t i = 0; i < s->n_services; i++) {
		const struct rpc_service *sv = &s->services[i];

		if (!str_eq(sv->desc->name, path + 1))
			continue;
		c->service = sv;
		c->method = protobuf_c_service_descriptor_get_method_by_name(sv->desc, slash + 1);
		for (const struct rpc_method *m = sv->methods; c->method && m->name; m++) {
			if (str_eq(m->name, c->method->name))
				c->entry = m;
		}
	}
}

static void reply_unimplemented(struct rpc_call *c)
{
	struct err err = { 0 };

	if (c->method)
		(void)err_set(&err, -ENOSYS, "%s is not implemented in Husk " HUSK_VERSION "%s%s",
			      c->method->name, c->service->unimplemented ? ": " : "",
			      c->service->unimplemented ? c->service->unimplemented : "");
	else
		(void)err_set(&err, -ENOSYS, "unknown method");
	rpc_reply_status(c, RPC_UNIMPLEMENTED, err_text(&err));
}

static void rpc_on_new_call(struct rpc_call *c, bool ok)
{
	struct rpc_server *s = c->server;
	grpc_op op = { 0 };

	s->requested = false;
	if (!ok || s->stopping) {
		if (c->grpc)
			grpc_call_cancel(c->grpc, NULL);
		call_free(c);
		s->n_calls--;
		return;
	}
	c->next = s->calls;
	if (s->calls)
		s->calls->prev = c;
	s->calls = c;

	op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	op.data.recv_close_on_server.cancelled = &c->was_cancelled;
	start_batch(c, &op, 1, &c->t_close);
	call_next(s);

	find_method(s, c);
	if (!c->entry) {
		reply_unimplemented(c);
		return;
	}
	start_recv(c, rpc_on_request);
}

/* Asks gRPC for the next call, unless too many are open. */
static void call_next(struct rpc_server *s)
{
	struct rpc_call *c;
	grpc_call_error e;

	if (s->requested || s->stopping || s->n_calls >= RPC_CALLS_MAX)
		return;
	c = calloc(1, sizeof(*c));
	if (!c) {
		log_limited(LOG_ERROR, "out of memory for the next call");
		return; /* the end of an open call tries again */
	}
	c->server = s;
	grpc_call_details_init(&c->details);
	grpc_metadata_array_init(&c->headers);
	pb_arena_init(&c->arena, RPC_DECODED_MAX);
	tag_set(&c->t_new, c, rpc_on_new_call);
	tag_set(&c->t_close, c, rpc_on_close);
	tag_set(&c->t_status, c, rpc_on_status_sent);
	e = grpc_server_request_call(s->grpc, &c->grpc, &c->details, &c->headers, s->cq, s->cq,
				     &c->t_new);
	if (e != GRPC_CALL_OK) {
		log_limited(LOG_ERROR, "gRPC gives no calls", "error",
			    grpc_call_error_to_string(e));
		call_free(c);
		return;
	}
	s->n_calls++;
	s->requested = true;
}

/* ---- connections ---- */

static void rpc_on_accept(struct ev_io *io, uint32_t events);

static void rpc_on_accept_pause(struct ev_timer *t)
{
	struct rpc_server *s = t->arg;

	if (ev_io_set(&s->listen_io, EPOLLIN) < 0)
		log_limited(LOG_ERROR, "cannot listen any more");
}

static void rpc_on_accept(struct ev_io *io, uint32_t events)
{
	struct rpc_server *s = io->arg;

	for (int i = 0; i < 64; i++) {
		int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			grpc_server_add_channel_from_fd(s->grpc, fd, s->creds);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		/* No descriptors or memory: pause instead of spinning. */
		log_limited(LOG_ERROR, "cannot accept a connection", "err", strerror(errno));
		(void)!ev_io_set(&s->listen_io, 0);
		(void)!ev_timer_add(s->loop, &s->accept_pause, 200 * NS_PER_MS, rpc_on_accept_pause,
				    s);
		return;
	}
}

/* ---- server ---- */

static int check_tables(const struct rpc_service *services, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		for (const struct rpc_method *m = services[i].methods; m->name; m++) {
			if (!protobuf_c_service_descriptor_get_method_by_name(services[i].desc,
									      m->name))
				return err_set(err, -EINVAL, "%s has no method %s",
					       services[i].desc->name, m->name);
		}
	}
	return 0;
}

static grpc_server *grpc_server_new(void)
{
	grpc_arg arg[] = {
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
		  .value.integer = RPC_MESSAGE_MAX },
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_ARG_MAX_SEND_MESSAGE_LENGTH,
		  .value.integer = RPC_MESSAGE_MAX },
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_ARG_MAX_CONCURRENT_STREAMS,
		  .value.integer = RPC_STREAMS_MAX },
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)GRPC_ARG_MAX_METADATA_SIZE,
		  .value.integer = RPC_METADATA_MAX },
	};
	grpc_channel_args args = { .num_args = ARRAY_SIZE(arg), .args = arg };

	return grpc_server_create(&args, NULL);
}

int rpc_server_new(struct loop *l, const struct rpc_service *services, size_t n,
		   struct rpc_server **ret, struct err *err)
{
	struct rpc_server *s;
	int r = check_tables(services, n, err);

	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_nomem(err);
	s->loop = l;
	s->services = services;
	s->n_services = n;
	s->listen_fd = -1;

	grpc_init();
	s->cq = grpc_completion_queue_create_for_next(NULL);
	s->creds = grpc_insecure_server_credentials_create();
	s->grpc = grpc_server_new();
	grpc_server_register_completion_queue(s->grpc, s->cq, NULL);
	grpc_server_start(s->grpc);
	r = -pthread_create(&s->thread, NULL, rpc_thread, s);
	if (r < 0) {
		/* Not worth taking gRPC apart again: the program ends. */
		free(s);
		return err_errno(err, r, "start the gRPC thread");
	}
	call_next(s);
	*ret = s;
	return 0;
}

int rpc_server_listen(struct rpc_server *s, int listen_fd, struct err *err)
{
	int r = fd_set_nonblock(listen_fd, true);

	if (r == 0)
		r = ev_io_add(s->loop, &s->listen_io, listen_fd, EPOLLIN, rpc_on_accept, s);
	if (r < 0) {
		close(listen_fd);
		return err_errno(err, r, "watch the listening socket");
	}
	s->listen_fd = listen_fd;
	return 0;
}

static void rpc_on_shutdown(struct rpc_call *none, bool ok)
{
}

static void rpc_on_drained(void *arg)
{
	struct rpc_server *s = arg;

	s->drained = true;
}

void rpc_server_free(struct rpc_server *s)
{
	uint64_t end = now_mono_ns() + 2 * NS_PER_S;

	if (!s)
		return;
	s->stopping = true;
	ev_timer_del(&s->accept_pause);
	ev_io_del(&s->listen_io);
	fd_close(&s->listen_fd);
	s->t_shutdown = (struct tag){ .server = s, .fn = rpc_on_shutdown };
	grpc_server_shutdown_and_notify(s->grpc, s->cq, &s->t_shutdown);
	grpc_server_cancel_all_calls(s->grpc);
	for (struct rpc_call *c = s->calls, *next; c; c = next) {
		next = c->next;
		if (!c->answered && !c->cancelled)
			call_cancel(c);
	}
	/* Calls whose owners never answer stay behind; the process is about to end. */
	while ((s->calls || s->n_calls) && now_mono_ns() < end) {
		if (loop_once(s->loop, 50) < 0)
			break;
	}
	if (s->calls || s->n_calls) {
		log_limited(LOG_WARN, "calls were left open at the end");
		return;
	}
	grpc_completion_queue_shutdown(s->cq);
	pthread_join(s->thread, NULL);
	/* When this runs, so has everything that the thread posted. */
	if (loop_post(s->loop, rpc_on_drained, s) == 0) {
		while (!s->drained && loop_once(s->loop, 100) >= 0)
			;
	}
	grpc_server_destroy(s->grpc);
	grpc_server_credentials_release(s->creds);
	grpc_completion_queue_destroy(s->cq);
	grpc_shutdown();
	free(s);
}
