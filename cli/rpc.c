#include "cli/rpc.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "base/limits.h"
#include "base/rpc_code.h"
#include "base/util.h"

#define RPC_PATH_MAX 160

struct rpc {
	char *endpoint;
	grpc_channel *channel;
};

/* Everything of one call; fini works on a half-built one. */
struct call {
	grpc_completion_queue *cq;
	grpc_call *call;
	grpc_byte_buffer *out, *in;
	grpc_metadata_array initial, trailing;
	grpc_status_code code;
	grpc_slice text;
};

int rpc_open(const char *endpoint, struct rpc **ret, struct err *err)
{
	struct rpc *rpc;
	grpc_arg args[] = {
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)"grpc.max_receive_message_length",
		  .value.integer = RPC_MESSAGE_MAX },
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)"grpc.max_send_message_length",
		  .value.integer = RPC_MESSAGE_MAX },
		/* A socket in a namespace of ours needs no HTTP proxy. */
		{ .type = GRPC_ARG_INTEGER,
		  .key = (char *)"grpc.enable_http_proxy",
		  .value.integer = 0 },
	};
	grpc_channel_args channel_args = { .num_args = ARRAY_SIZE(args), .args = args };
	grpc_channel_credentials *creds;
	sigset_t all, before;

	if (!str_starts(endpoint, "unix:///"))
		return err_set(err, -EINVAL, "endpoint %s: expected unix:///path/of/the/socket",
			       endpoint);
	rpc = calloc(1, sizeof(*rpc));
	if (!rpc || !(rpc->endpoint = strdup(endpoint))) {
		free(rpc);
		return err_nomem(err);
	}
	/* gRPC's threads never take a signal: `husk run` reads them from a descriptor later. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	grpc_init();
	creds = grpc_insecure_credentials_create();
	rpc->channel = grpc_channel_create(endpoint, creds, &channel_args);
	grpc_channel_credentials_release(creds);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	*ret = rpc;
	return 0;
}

void rpc_close(struct rpc *rpc)
{
	if (!rpc)
		return;
	grpc_channel_destroy(rpc->channel);
	grpc_shutdown();
	free(rpc->endpoint);
	free(rpc);
}

const char *rpc_endpoint(const struct rpc *rpc)
{
	return rpc->endpoint;
}

static void call_fini(struct call *c)
{
	if (c->call)
		grpc_call_unref(c->call);
	if (c->out)
		grpc_byte_buffer_destroy(c->out);
	if (c->in)
		grpc_byte_buffer_destroy(c->in);
	grpc_metadata_array_destroy(&c->initial);
	grpc_metadata_array_destroy(&c->trailing);
	grpc_slice_unref(c->text);
	if (c->cq) {
		grpc_completion_queue_shutdown(c->cq);
		grpc_completion_queue_destroy(c->cq);
	}
}

static grpc_byte_buffer *pack(const ProtobufCMessage *m)
{
	grpc_slice bytes = grpc_slice_malloc(protobuf_c_message_get_packed_size(m));
	grpc_byte_buffer *bb;

	protobuf_c_message_pack(m, GRPC_SLICE_START_PTR(bytes));
	bb = grpc_raw_byte_buffer_create(&bytes, 1);
	grpc_slice_unref(bytes);
	return bb;
}

/* req NULL: a stream, which sends its messages itself. */
static int call_init(struct call *c, struct rpc *rpc, const char *path, const ProtobufCMessage *req,
		     uint64_t timeout_ms)
{
	gpr_timespec deadline = gpr_inf_future(GPR_CLOCK_MONOTONIC);
	grpc_slice method;

	*c = (struct call){ .text = grpc_empty_slice() };
	grpc_metadata_array_init(&c->initial);
	grpc_metadata_array_init(&c->trailing);
	c->cq = grpc_completion_queue_create_for_pluck(NULL);
	if (timeout_ms)
		deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
					gpr_time_from_millis((int64_t)timeout_ms, GPR_TIMESPAN));
	method = grpc_slice_from_copied_string(path);
	c->call = grpc_channel_create_call(rpc->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->cq,
					   method, NULL, deadline, NULL);
	grpc_slice_unref(method);
	if (!c->call)
		return -ENOMEM;
	if (req)
		c->out = pack(req);
	return 0;
}

/* Runs a batch to its end. The tag is the batch's first operation. 1, or 0 when the call has ended
 * before it could be done. */
static int try_batch(struct call *c, const grpc_op *ops, size_t n)
{
	gpr_timespec forever = gpr_inf_future(GPR_CLOCK_REALTIME);
	void *tag = (void *)ops;

	if (grpc_call_start_batch(c->call, ops, n, tag, NULL) != GRPC_CALL_OK)
		return -EIO;
	return grpc_completion_queue_pluck(c->cq, tag, forever, NULL).success != 0;
}

static int run_batch(struct call *c, const grpc_op *ops, size_t n)
{
	int r = try_batch(c, ops, n);

	return r < 0 ? r : 0;
}

static int unpack(grpc_byte_buffer *bb, const ProtobufCMessageDescriptor *desc,
		  ProtobufCMessage **ret)
{
	grpc_byte_buffer_reader reader;
	grpc_slice all;
	ProtobufCMessage *m;

	if (!grpc_byte_buffer_reader_init(&reader, bb))
		return -EBADMSG;
	all = grpc_byte_buffer_reader_readall(&reader);
	m = protobuf_c_message_unpack(desc, NULL, GRPC_SLICE_LENGTH(all),
				      GRPC_SLICE_START_PTR(all));
	grpc_slice_unref(all);
	grpc_byte_buffer_reader_destroy(&reader);
	if (!m)
		return -EBADMSG;
	*ret = m;
	return 0;
}

static const ProtobufCMethodDescriptor *method_of(const ProtobufCServiceDescriptor *svc,
						  const char *method, char path[RPC_PATH_MAX])
{
	(void)snprintf(path, RPC_PATH_MAX, "/%s/%s", svc->name, method);
	return protobuf_c_service_descriptor_get_method_by_name(svc, method);
}

/* The end of a call as 0 or -errno with the server's text. */
static int finish(struct rpc *rpc, struct call *c, struct rpc_status *status, struct err *err)
{
	cleanup_free char *text = grpc_slice_to_c_string(c->text);
	struct rpc_status st = { .code = (int)c->code, .exit_code = -1 };
	uint64_t v;

	for (size_t i = 0; i < c->trailing.count; i++) {
		cleanup_free char *value = NULL;

		if (grpc_slice_str_cmp(c->trailing.metadata[i].key, "husk-exit-code") != 0)
			continue;
		value = grpc_slice_to_c_string(c->trailing.metadata[i].value);
		if (str_to_u64(value, 0, 255, &v) == 0)
			st.exit_code = (int)v;
	}
	if (status)
		*status = st;
	if (c->code == GRPC_STATUS_OK)
		return 0;
	if (c->code == GRPC_STATUS_UNAVAILABLE)
		return err_set(
			err, -ECONNREFUSED,
			"no answer at %s (%s). Is huskd running? Start it, or name its socket "
			"with --endpoint or HUSK_ENDPOINT",
			rpc->endpoint, text);
	return err_set(err, rpc_code_to_errno((enum rpc_code)c->code), "%s",
		       text[0] ? text : "the server gave no reason");
}

int rpc_call(struct rpc *rpc, const ProtobufCServiceDescriptor *svc, const char *method,
	     const ProtobufCMessage *req, uint64_t timeout_ms, ProtobufCMessage **ret_resp,
	     struct rpc_status *status, struct err *err)
{
	char path[RPC_PATH_MAX];
	const ProtobufCMethodDescriptor *m = method_of(svc, method, path);
	ProtobufCMessage *resp = NULL;
	struct call c;
	int r;

	if (!m)
		return err_set(err, -EINVAL, "%s: no such method", path);
	r = call_init(&c, rpc, path, req, timeout_ms);
	if (r == 0) {
		grpc_op ops[] = {
			{ .op = GRPC_OP_SEND_INITIAL_METADATA },
			{ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = c.out },
			{ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
			{ .op = GRPC_OP_RECV_INITIAL_METADATA,
			  .data.recv_initial_metadata.recv_initial_metadata = &c.initial },
			{ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &c.in },
			{ .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
			  .data.recv_status_on_client = { .trailing_metadata = &c.trailing,
							  .status = &c.code,
							  .status_details = &c.text } },
		};
		r = run_batch(&c, ops, ARRAY_SIZE(ops));
	}
	if (r < 0)
		(void)err_errno(err, r, "%s", path);
	else
		r = finish(rpc, &c, status, err);
	if (r == 0 && (!c.in || unpack(c.in, m->output, &resp) < 0))
		r = err_set(err, -EBADMSG, "%s: the answer cannot be read", path);
	call_fini(&c);
	if (r < 0)
		return r;
	if (ret_resp)
		*ret_resp = resp;
	else
		protobuf_c_message_free_unpacked(resp, NULL);
	return 0;
}

/* The server's messages, and the end of the call. r: of what was done before. */
static int read_stream(struct call *c, struct rpc *rpc, const ProtobufCMethodDescriptor *m,
		       const char *path, int r, bool cancel,
		       int (*on_msg)(const ProtobufCMessage *, void *), void *arg, struct err *err)
{
	ProtobufCMessage *msg;
	int stop = 0;

	while (r == 0 && !stop && !cancel) {
		grpc_op op = { .op = GRPC_OP_RECV_MESSAGE,
			       .data.recv_message.recv_message = &c->in };

		r = run_batch(c, &op, 1);
		if (r < 0 || !c->in)
			break;
		r = unpack(c->in, m->output, &msg);
		grpc_byte_buffer_destroy(c->in);
		c->in = NULL;
		if (r < 0)
			break;
		stop = on_msg(msg, arg);
		protobuf_c_message_free_unpacked(msg, NULL);
	}
	if (c->call) {
		grpc_op op = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
			       .data.recv_status_on_client = { .trailing_metadata = &c->trailing,
							       .status = &c->code,
							       .status_details = &c->text } };
		if (r < 0 || stop || cancel)
			(void)grpc_call_cancel(c->call, NULL);
		(void)run_batch(c, &op, 1);
	}
	if (r < 0)
		return err_errno(err, r, "%s", path);
	return cancel ? 0 : stop < 0 ? stop : finish(rpc, c, NULL, err);
}

int rpc_stream(struct rpc *rpc, const ProtobufCServiceDescriptor *svc, const char *method,
	       const ProtobufCMessage *req, int (*on_msg)(const ProtobufCMessage *msg, void *arg),
	       void *arg, struct err *err)
{
	char path[RPC_PATH_MAX];
	const ProtobufCMethodDescriptor *m = method_of(svc, method, path);
	struct call c;
	int r;

	if (!m)
		return err_set(err, -EINVAL, "%s: no such method", path);
	r = call_init(&c, rpc, path, req, 0);
	if (r == 0) {
		grpc_op ops[] = {
			{ .op = GRPC_OP_SEND_INITIAL_METADATA },
			{ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = c.out },
			{ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
			{ .op = GRPC_OP_RECV_INITIAL_METADATA,
			  .data.recv_initial_metadata.recv_initial_metadata = &c.initial },
		};
		r = run_batch(&c, ops, ARRAY_SIZE(ops));
	}
	r = read_stream(&c, rpc, m, path, r, false, on_msg, arg, err);
	call_fini(&c);
	return r;
}

/* Sends until there is no more, or the server has ended the call. 0, or what `next` returned. */
static int send_all(struct call *c, int (*next)(void *, const ProtobufCMessage **), void *arg)
{
	grpc_op begin = { .op = GRPC_OP_SEND_INITIAL_METADATA };
	grpc_op end = { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };
	const ProtobufCMessage *msg;
	int ok = try_batch(c, &begin, 1), r = 1;

	while (ok > 0 && (r = next(arg, &msg)) > 0) {
		grpc_byte_buffer *bb = pack(msg);
		grpc_op op = { .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = bb };

		ok = try_batch(c, &op, 1);
		grpc_byte_buffer_destroy(bb);
	}
	if (ok > 0 && r == 0)
		ok = try_batch(c, &end, 1);
	return ok < 0 ? ok : MIN_OF(r, 0);
}

int rpc_upload(struct rpc *rpc, const ProtobufCServiceDescriptor *svc, const char *method,
	       int (*next)(void *arg, const ProtobufCMessage **ret),
	       int (*on_msg)(const ProtobufCMessage *msg, void *arg), void *arg, struct err *err)
{
	char path[RPC_PATH_MAX];
	const ProtobufCMethodDescriptor *m = method_of(svc, method, path);
	struct call c;
	int r, sent = 0;

	if (!m)
		return err_set(err, -EINVAL, "%s: no such method", path);
	r = call_init(&c, rpc, path, NULL, 0);
	if (r == 0)
		sent = send_all(&c, next, arg);
	if (r == 0 && sent == 0) {
		grpc_op op = { .op = GRPC_OP_RECV_INITIAL_METADATA,
			       .data.recv_initial_metadata.recv_initial_metadata = &c.initial };
		r = run_batch(&c, &op, 1);
	}
	r = read_stream(&c, rpc, m, path, r, sent < 0, on_msg, arg, err);
	call_fini(&c);
	return sent < 0 ? sent : r;
}
