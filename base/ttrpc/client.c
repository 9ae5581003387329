#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/check.h"
#include "base/pb.h"
#include "base/ttrpc/ttrpc.h"
#include "base/ttrpc/codec.h"
#include "base/ttrpc/conn.h"
#include "base/util.h"

#define BUCKETS 64u
#define METADATA_MAX 8u
#define TIMEOUT_MAX_MS (365ull * 86400 * 1000)

struct out_call {
	LIST_ENTRY(out_call) link;
	struct ttrpc_client *client;
	uint32_t stream_id;
	const ProtobufCMethodDescriptor *method;
	bool streaming;
	void (*data)(const ProtobufCMessage *msg, void *arg);
	ttrpc_done done;
	void *arg;
	struct ev_timer timer;
};
LIST_HEAD(out_call_list, out_call);

struct ttrpc_client {
	struct loop *loop;
	struct ttrpc_conn conn;
	bool closed; /* no call is possible any more */
	void (*on_close)(void *arg);
	void *arg;
	uint32_t next_id;
	unsigned n_calls;
	struct out_call_list calls[BUCKETS];	/* by stream id */
	Ttrpc__KeyValue metadata[METADATA_MAX]; /* strings owned */
	size_t n_metadata;
	bool freeing;
	bool *gone; /* set when the client is freed inside its callback */
};

/* ---- ends of calls ---- */

static struct out_call_list *bucket(struct ttrpc_client *c, uint32_t stream_id)
{
	return &c->calls[stream_id / 2 % BUCKETS];
}

static struct out_call *find_call(struct ttrpc_client *c, uint32_t stream_id)
{
	struct out_call *call;

	LIST_FOREACH(call, bucket(c, stream_id), link)
	if (call->stream_id == stream_id)
		return call;
	return NULL;
}

/* Frees the call and tells its owner, who may free the client. */
static void finish(struct out_call *call, const struct ttrpc_result *res)
{
	ttrpc_done done = call->done;
	void *arg = call->arg;

	check(call->client->n_calls > 0);
	LIST_REMOVE(call, link);
	call->client->n_calls--;
	ev_timer_del(&call->timer);
	free(call);
	done(res, arg);
}

static void fail(struct out_call *call, int code, enum rpc_code status, const char *text)
{
	struct ttrpc_result res = { .code = code, .status = status, .detail_type = "" };
	struct err err = { 0 };

	(void)err_set(&err, code, "%s: %s", call->method->name, text);
	res.err = &err;
	finish(call, &res);
}

static void fail_all(struct ttrpc_client *c, int code, enum rpc_code status, const char *text,
		     const bool *gone)
{
	struct out_call *call;

	for (size_t i = 0; i < BUCKETS; i++)
		while (!*gone && (call = LIST_FIRST(&c->calls[i])))
			fail(call, code, status, text);
}

static void client_on_timeout(struct ev_timer *t)
{
	fail(t->arg, -ETIMEDOUT, RPC_DEADLINE_EXCEEDED, "no answer in time");
}

static void fail_unpack(struct out_call *call, int r)
{
	if (r == -EBADMSG)
		fail(call, -EBADMSG, RPC_INTERNAL, "malformed answer");
	else
		fail(call, -ENOBUFS, RPC_RESOURCE_EXHAUSTED, "the answer needs too much memory");
}

/* ---- frames ---- */

static void finish_status(struct out_call *call, const Rpc__Status *st)
{
	struct ttrpc_result res = { .status = (enum rpc_code)st->code, .detail_type = "" };
	struct err err = { 0 };

	res.code = rpc_code_to_errno(res.status);
	(void)err_set(&err, res.code, "%s",
		      str_empty(st->message) ? strerror(-res.code) : st->message);
	res.err = &err;
	if (st->n_details > 0) {
		res.detail_type = pb_any_type(st->details[0]);
		res.detail = st->details[0]->value.data;
		res.detail_len = st->details[0]->value.len;
	}
	finish(call, &res);
}

/* A message of a stream. False: it was malformed, and the call is over; or the client is gone. */
static bool give_data(struct out_call *call, struct pb_arena *arena, const uint8_t *data,
		      size_t len)
{
	struct ttrpc_client *c = call->client;
	ProtobufCMessage *msg;
	bool gone = false;
	int r;

	r = pb_unpack(arena, call->method->output, data, len, &msg);
	if (r < 0) {
		fail_unpack(call, r);
		return false;
	}
	c->gone = &gone;
	call->data(msg, call->arg);
	if (!gone)
		c->gone = NULL;
	return !gone;
}

static void take_response(struct out_call *call, const struct ttrpc_frame *f)
{
	struct ttrpc_result res = { .detail_type = "" };
	cleanup_pb_arena struct pb_arena arena;
	ProtobufCMessage *msg;
	Ttrpc__Response *resp;
	int r;

	pb_arena_init(&arena, TTRPC_UNPACKED_MAX);
	r = pb_unpack(&arena, &ttrpc__response__descriptor, f->payload, f->len, &msg);
	if (r < 0)
		return fail_unpack(call, r);
	resp = (Ttrpc__Response *)msg;
	if (resp->status && resp->status->code != RPC_OK)
		return finish_status(call, resp->status);
	if (call->streaming) {
		if (resp->payload.len > 0 &&
		    !give_data(call, &arena, resp->payload.data, resp->payload.len))
			return;
		return finish(call, &res);
	}
	r = pb_unpack(&arena, call->method->output, resp->payload.data, resp->payload.len, &msg);
	if (r < 0)
		return fail_unpack(call, r);
	res.resp = msg;
	finish(call, &res);
}

static void take_data(struct out_call *call, const struct ttrpc_frame *f)
{
	struct ttrpc_result res = { .detail_type = "" };
	cleanup_pb_arena struct pb_arena arena;

	pb_arena_init(&arena, TTRPC_UNPACKED_MAX);
	if (!call->streaming)
		return fail(call, -EBADMSG, RPC_INTERNAL, "a stream where one answer was expected");
	if (!(f->flags & TTRPC_NO_DATA) && !give_data(call, &arena, f->payload, f->len))
		return;
	if (f->flags & TTRPC_REMOTE_CLOSED)
		finish(call, &res);
}

static void client_frame(struct ttrpc_conn *conn, const struct ttrpc_frame *f)
{
	struct ttrpc_client *c = container_of(conn, struct ttrpc_client, conn);
	struct out_call *call;

	if (f->type != TTRPC_RESPONSE && f->type != TTRPC_DATA)
		return;
	/* None: its time was over before the answer came. */
	call = find_call(c, f->stream_id);
	if (!call)
		return;
	if (f->oversize)
		fail(call, -ENOBUFS, RPC_RESOURCE_EXHAUSTED,
		     "the answer is larger than a ttrpc message may be (4 MiB)");
	else if (f->type == TTRPC_RESPONSE)
		take_response(call, f);
	else
		take_data(call, f);
}

static void client_closed(struct ttrpc_conn *conn, int code)
{
	struct ttrpc_client *c = container_of(conn, struct ttrpc_client, conn);
	bool gone = false;

	c->closed = true;
	ttrpc_conn_fini(conn);
	c->gone = &gone;
	fail_all(c, -ECONNRESET, RPC_UNAVAILABLE,
		 code < 0 ? strerror(-code) : "the connection was closed", &gone);
	if (gone)
		return;
	c->gone = NULL;
	if (c->on_close)
		c->on_close(c->arg);
}

static const struct ttrpc_conn_ops client_ops = { .frame = client_frame, .closed = client_closed };

/* ---- calls ---- */

static int put_call(struct ttrpc_client *c, const struct out_call *call,
		    const ProtobufCServiceDescriptor *svc, const ProtobufCMessage *req,
		    uint64_t timeout_ns)
{
	Ttrpc__KeyValue *metadata[METADATA_MAX];
	Ttrpc__Request head = TTRPC__REQUEST__INIT;

	for (size_t i = 0; i < c->n_metadata; i++)
		metadata[i] = &c->metadata[i];
	head.service = (char *)svc->name;
	head.method = (char *)call->method->name;
	head.timeout_nano = (int64_t)timeout_ns;
	head.metadata = metadata;
	head.n_metadata = c->n_metadata;
	return ttrpc_put_request(&c->conn.out, call->stream_id,
				 call->streaming ? TTRPC_REMOTE_CLOSED : 0, &head, req);
}

static int start(struct ttrpc_client *c, const struct out_call *tmpl,
		 const ProtobufCServiceDescriptor *svc, const char *method,
		 const ProtobufCMessage *req, uint64_t timeout_ms)
{
	uint64_t ns = MIN_OF(timeout_ms, TIMEOUT_MAX_MS) * NS_PER_MS;
	struct out_call *call;
	int r = 0;

	if (c->closed || c->conn.ended)
		return -ECONNRESET;
	if (c->n_calls >= TTRPC_CALLS_MAX || c->next_id > UINT32_MAX - 2)
		return -ENOBUFS;
	call = malloc(sizeof(*call));
	if (!call)
		return -ENOMEM;
	*call = *tmpl;
	call->client = c;
	call->stream_id = c->next_id;
	call->method = protobuf_c_service_descriptor_get_method_by_name(svc, method);
	if (!call->method || (req && req->descriptor != call->method->input))
		r = -EINVAL;
	if (r == 0 && ns)
		r = ev_timer_add(c->loop, &call->timer, ns, client_on_timeout, call);
	if (r == 0)
		r = put_call(c, call, svc, req, ns);
	if (r < 0) {
		ev_timer_del(&call->timer);
		free(call);
		return r;
	}
	c->next_id += 2;
	c->n_calls++;
	LIST_INSERT_HEAD(bucket(c, call->stream_id), call, link);
	ttrpc_conn_flush(&c->conn);
	return 0;
}

int ttrpc_client_call(struct ttrpc_client *c, const ProtobufCServiceDescriptor *svc,
		      const char *method, const ProtobufCMessage *req, uint64_t timeout_ms,
		      ttrpc_done done, void *arg)
{
	struct out_call call = { .done = done, .arg = arg };

	return start(c, &call, svc, method, req, timeout_ms);
}

int ttrpc_client_stream(struct ttrpc_client *c, const ProtobufCServiceDescriptor *svc,
			const char *method, const ProtobufCMessage *req,
			void (*data)(const ProtobufCMessage *msg, void *arg), ttrpc_done done,
			void *arg)
{
	struct out_call call = { .streaming = true, .data = data, .done = done, .arg = arg };

	return start(c, &call, svc, method, req, 0);
}

int ttrpc_client_set_metadata(struct ttrpc_client *c, const char *key, const char *value)
{
	cleanup_free char *k = strdup(key), *v = strdup(value);

	if (c->n_metadata >= METADATA_MAX)
		return -ENOBUFS;
	if (!k || !v)
		return -ENOMEM;
	c->metadata[c->n_metadata] = (Ttrpc__KeyValue)TTRPC__KEY_VALUE__INIT;
	c->metadata[c->n_metadata].key = take_ptr(&k);
	c->metadata[c->n_metadata].value = take_ptr(&v);
	c->n_metadata++;
	return 0;
}

/* ---- the client ---- */

int ttrpc_client_new(struct loop *l, int fd, void (*on_close)(void *arg), void *arg,
		     struct ttrpc_client **ret, struct err *err)
{
	cleanup_fd int owned = fd;
	struct ttrpc_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_nomem(err);
	c->loop = l;
	c->next_id = 1;
	c->on_close = on_close;
	c->arg = arg;
	r = ttrpc_conn_init(&c->conn, l, take_fd(&owned), &client_ops);
	if (r < 0) {
		free(c);
		return err_errno(err, r, "ttrpc client");
	}
	*ret = c;
	return 0;
}

void ttrpc_client_free(struct ttrpc_client *c)
{
	const bool never = false;

	if (!c || c->freeing)
		return;
	c->freeing = c->closed = true;
	if (c->gone)
		*c->gone = true;
	ttrpc_conn_fini(&c->conn);
	fail_all(c, -ECANCELED, RPC_CANCELLED, "cancelled", &never);
	check(c->n_calls == 0);
	for (size_t i = 0; i < c->n_metadata; i++) {
		free(c->metadata[i].key);
		free(c->metadata[i].value);
	}
	free(c);
}
