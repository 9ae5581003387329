/* The gRPC server against a real client: codes, limits, streams, cancelling, trailing metadata. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>

#include "base/util.h"
#include "test/lib/rpc_fixture.h"
#include "proto/cri.pb-c.h"
#include "proto/husk.pb-c.h"

/* ---- the server, on a thread of its own ---- */

static struct {
	struct rpc_fixture s;
	struct rpc_call *waiting;
	int cancelled;
	struct ev_timer timer;
	int left;  /* messages of the stream */
	int stops; /* StopContainer handled */
	struct rpc_call *late;
} g;

/* ---- the order in which gRPC's thread posts ---- */

struct posted {
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
};

static struct {
	int mode; /* 0: as always; 1: the next post passes; 2: kept; atomic */
	int n;	  /* kept; atomic */
	struct posted kept[2];
} order;

int __real_loop_post(struct loop *l, void (*fn)(void *arg), void *arg);
int __wrap_loop_post(struct loop *l, void (*fn)(void *arg), void *arg);
int __wrap_loop_post(struct loop *l, void (*fn)(void *arg), void *arg)
{
	int mode = __atomic_load_n(&order.mode, __ATOMIC_SEQ_CST);

	if (mode == 1)
		__atomic_store_n(&order.mode, 2, __ATOMIC_SEQ_CST);
	if (mode != 2)
		return __real_loop_post(l, fn, arg);
	assert_true(order.n < 2);
	order.kept[order.n] = (struct posted){ l, fn, arg };
	__atomic_add_fetch(&order.n, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static bool kept(int n)
{
	for (int i = 0; i < 200 && __atomic_load_n(&order.n, __ATOMIC_SEQ_CST) < n; i++)
		(void)usleep(20000);
	return __atomic_load_n(&order.n, __ATOMIC_SEQ_CST) == n;
}

static void handle_version(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Cri__VersionResponse resp = CRI__VERSION_RESPONSE__INIT;

	resp.runtime_name = (char *)"test";
	rpc_reply(call, &resp.base);
}

static void handle_status(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	struct err e = { 0 };

	rpc_set_trailer(call, "husk-exit-code", "127");
	(void)err_set(&e, -ENOENT, "not there: %s", "a thing");
	rpc_reply_err(call, -ENOENT, &e);
}

static void on_cancelled(struct rpc_call *call, void *arg)
{
	__atomic_add_fetch(&g.cancelled, 1, __ATOMIC_SEQ_CST);
	rpc_reply_err(call, -ECANCELED, NULL);
}

/* Never answers by itself. */
static void handle_stop(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	__atomic_add_fetch(&g.stops, 1, __ATOMIC_SEQ_CST);
	rpc_on_cancel(call, on_cancelled, NULL);
}

static void on_late(struct ev_timer *t)
{
	assert_true(rpc_cancelled(g.late));
	rpc_on_cancel(g.late, on_cancelled, NULL);
}

/* Asks for the cancel when it has happened already. */
static void handle_stop_pod(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	g.late = call;
	assert_int_equal(ev_timer_add(g.s.loop, &g.timer, 600 * NS_PER_MS, on_late, NULL), 0);
}

/* An answer larger than any client takes. */
static void handle_exec(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Cri__ExecSyncResponse resp = CRI__EXEC_SYNC_RESPONSE__INIT;

	resp.stdout.len = 17u << 20;
	resp.stdout.data = calloc(1, resp.stdout.len);
	rpc_reply(call, &resp.base);
	free(resp.stdout.data);
}

static void stream_step(struct ev_timer *t)
{
	Husk__PullProgress m = HUSK__PULL_PROGRESS__INIT;
	struct rpc_call *call = t->arg;

	m.total_ns = (uint64_t)g.left;
	if (g.left == 0) {
		m.image_ref = (char *)"done";
		rpc_reply(call, &m.base);
		return;
	}
	int r = rpc_send(call, &m.base);
	if (r == 0)
		g.left--;
	assert_true(r == 0 || r == -EAGAIN);
	assert_int_equal(ev_timer_add(g.s.loop, &g.timer, NS_PER_MS, stream_step, call), 0);
}

static void handle_pull(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	g.left = 5;
	assert_int_equal(ev_timer_add(g.s.loop, &g.timer, NS_PER_MS, stream_step, call), 0);
}

static const struct rpc_method runtime[] = {
	{ "Version", handle_version, false },	 { "Status", handle_status, false },
	{ "StopContainer", handle_stop, false }, { "StopPodSandbox", handle_stop_pod, false },
	{ "ExecSync", handle_exec, false },	 { NULL, NULL, false },
};
static const struct rpc_method husk[] = {
	{ "PullImage", handle_pull, true },
	{ NULL, NULL, false },
};

static const struct rpc_service services[] = {
	{ &cri__runtime_service__descriptor, runtime, NULL, "later" },
	{ &husk__husk__descriptor, husk, NULL, NULL },
};

static int setup(void **state)
{
	rpc_fixture_start(&g.s, services, ARRAY_SIZE(services));
	return 0;
}

static int teardown(void **state)
{
	return rpc_fixture_stop(&g.s);
}

/* ---- a client that sends any bytes ---- */

struct answer {
	grpc_status_code code;
	char text[256];
	char trailer[64];   /* of husk-exit-code */
	uint8_t data[4096]; /* of the last message */
	size_t len;
	int messages;
};

static void wait_op(grpc_completion_queue *cq, bool *ok)
{
	grpc_event ev = grpc_completion_queue_next(
		cq,
		gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_seconds(20, GPR_TIMESPAN)),
		NULL);

	assert_int_equal(ev.type, GRPC_OP_COMPLETE);
	*ok = ev.success;
}

static void take_message(struct answer *a, grpc_byte_buffer *b)
{
	grpc_byte_buffer_reader r;

	assert_true(grpc_byte_buffer_reader_init(&r, b));
	grpc_slice s = grpc_byte_buffer_reader_readall(&r);
	a->len = GRPC_SLICE_LENGTH(s);
	assert_true(a->len <= sizeof(a->data));
	memcpy(a->data, GRPC_SLICE_START_PTR(s), a->len);
	grpc_slice_unref(s);
	grpc_byte_buffer_reader_destroy(&r);
	a->messages++;
}

static struct answer ask(const char *method, const void *data, size_t len, int64_t deadline_ms)
{
	grpc_channel_credentials *creds = grpc_insecure_credentials_create();
	grpc_arg arg = { .type = GRPC_ARG_INTEGER,
			 .key = (char *)GRPC_ARG_MAX_SEND_MESSAGE_LENGTH,
			 .value.integer = -1 };
	grpc_channel_args args = { 1, &arg };
	grpc_channel *ch = grpc_channel_create(g.s.address, creds, &args);
	grpc_completion_queue *cq = grpc_completion_queue_create_for_next(NULL);
	grpc_slice path = grpc_slice_from_copied_string(method);
	grpc_call *call = grpc_channel_create_call(
		ch, NULL, GRPC_PROPAGATE_DEFAULTS, cq, path, NULL,
		gpr_time_add(gpr_now(GPR_CLOCK_REALTIME),
			     gpr_time_from_millis(deadline_ms, GPR_TIMESPAN)),
		NULL);
	grpc_slice body = grpc_slice_from_copied_buffer(data, len);
	grpc_byte_buffer *out = grpc_raw_byte_buffer_create(&body, 1), *in = NULL;
	grpc_metadata_array initial, trailing;
	grpc_slice text = grpc_empty_slice();
	struct answer a = { 0 };
	grpc_op ops[4] = { 0 }, recv = { 0 }, status = { 0 };
	bool ok;

	grpc_metadata_array_init(&initial);
	grpc_metadata_array_init(&trailing);
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[1].op = GRPC_OP_SEND_MESSAGE;
	ops[1].data.send_message.send_message = out;
	ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &initial;
	assert_int_equal(grpc_call_start_batch(call, ops, 4, &a, NULL), GRPC_CALL_OK);
	wait_op(cq, &ok);
	do {
		recv.op = GRPC_OP_RECV_MESSAGE;
		recv.data.recv_message.recv_message = &in;
		assert_int_equal(grpc_call_start_batch(call, &recv, 1, &a, NULL), GRPC_CALL_OK);
		wait_op(cq, &ok);
		if (in) {
			take_message(&a, in);
			grpc_byte_buffer_destroy(in);
		}
	} while (in);
	status.op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	status.data.recv_status_on_client.trailing_metadata = &trailing;
	status.data.recv_status_on_client.status = &a.code;
	status.data.recv_status_on_client.status_details = &text;
	assert_int_equal(grpc_call_start_batch(call, &status, 1, &a, NULL), GRPC_CALL_OK);
	wait_op(cq, &ok);
	(void)snprintf(a.text, sizeof(a.text), "%.*s", (int)GRPC_SLICE_LENGTH(text),
		       (const char *)GRPC_SLICE_START_PTR(text));
	for (size_t i = 0; i < trailing.count; i++) {
		if (grpc_slice_str_cmp(trailing.metadata[i].key, "husk-exit-code") == 0)
			(void)snprintf(
				a.trailer, sizeof(a.trailer), "%.*s",
				(int)GRPC_SLICE_LENGTH(trailing.metadata[i].value),
				(const char *)GRPC_SLICE_START_PTR(trailing.metadata[i].value));
	}
	grpc_metadata_array_destroy(&initial);
	grpc_metadata_array_destroy(&trailing);
	grpc_slice_unref(text);
	grpc_slice_unref(path);
	grpc_slice_unref(body);
	grpc_byte_buffer_destroy(out);
	grpc_call_unref(call);
	grpc_channel_destroy(ch);
	grpc_channel_credentials_release(creds);
	grpc_completion_queue_shutdown(cq);
	while (grpc_completion_queue_next(cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
	       GRPC_QUEUE_SHUTDOWN)
		;
	grpc_completion_queue_destroy(cq);
	return a;
}

#define RT "/runtime.v1.RuntimeService/"

static void unary(void **state)
{
	struct answer a = ask(RT "Version", "", 0, 10000);

	assert_int_equal(a.code, GRPC_STATUS_OK);
	assert_int_equal(a.messages, 1);
	Cri__VersionResponse *m = cri__version_response__unpack(NULL, a.len, a.data);
	assert_non_null(m);
	assert_string_equal(m->runtime_name, "test");
	cri__version_response__free_unpacked(m, NULL);
}

static void error_with_trailer(void **state)
{
	struct answer a = ask(RT "Status", "", 0, 10000);

	assert_int_equal(a.code, GRPC_STATUS_NOT_FOUND);
	assert_string_equal(a.text, "not there: a thing");
	assert_string_equal(a.trailer, "127");
	assert_int_equal(a.messages, 0);
}

static void unimplemented(void **state)
{
	struct answer a = ask(RT "Attach", "", 0, 10000);

	assert_int_equal(a.code, GRPC_STATUS_UNIMPLEMENTED);
	assert_text(a.text, "Attach is not implemented");
	assert_text(a.text, "later");
	a = ask(RT "NoSuchMethod", "", 0, 10000);
	assert_int_equal(a.code, GRPC_STATUS_UNIMPLEMENTED);
	a = ask("/runtime.v1alpha2.RuntimeService/Version", "", 0, 10000);
	assert_int_equal(a.code, GRPC_STATUS_UNIMPLEMENTED);
	a = ask("/", "", 0, 10000);
	assert_int_equal(a.code, GRPC_STATUS_UNIMPLEMENTED);
}

static void bad_requests(void **state)
{
	struct answer a = ask(RT "Version", "\x0a\xff", 2, 10000);

	assert_int_equal(a.code, GRPC_STATUS_INVALID_ARGUMENT);
	a = ask(RT "Version", "\x0a\x01\xff", 3, 10000);
	assert_int_equal(a.code, GRPC_STATUS_INVALID_ARGUMENT);
	assert_text(a.text, "UTF-8");
	/* Unknown fields are of a newer client. */
	a = ask(RT "Version", "\xfa\x3f\x01x", 4, 10000);
	assert_int_equal(a.code, GRPC_STATUS_OK);
	cleanup_free char *big = calloc(1, 17u << 20);
	a = ask(RT "Version", big, 17u << 20, 10000);
	assert_int_equal(a.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
}

static void large_answer(void **state)
{
	struct answer a = ask(RT "ExecSync", "", 0, 10000);

	assert_int_equal(a.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
	assert_text(a.text, "16 MiB");
}

static void stream(void **state)
{
	struct answer a = ask("/husk.v1.Husk/PullImage", "", 0, 10000);

	assert_int_equal(a.code, GRPC_STATUS_OK);
	assert_int_equal(a.messages, 6);
	Husk__PullProgress *m = husk__pull_progress__unpack(NULL, a.len, a.data);
	assert_non_null(m);
	assert_string_equal(m->image_ref, "done");
	husk__pull_progress__free_unpacked(m, NULL);
}

static void deadline_cancels(void **state)
{
	struct answer a = ask(RT "StopContainer", "", 0, 200);

	assert_int_equal(a.code, GRPC_STATUS_DEADLINE_EXCEEDED);
	for (int i = 0; i < 100 && __atomic_load_n(&g.cancelled, __ATOMIC_SEQ_CST) == 0; i++)
		(void)usleep(50000);
	assert_int_equal(__atomic_load_n(&g.cancelled, __ATOMIC_SEQ_CST), 1);
}

static bool cancelled(int want)
{
	for (int i = 0; i < 100 && __atomic_load_n(&g.cancelled, __ATOMIC_SEQ_CST) < want; i++)
		(void)usleep(50000);
	return __atomic_load_n(&g.cancelled, __ATOMIC_SEQ_CST) == want;
}

static void cancel_asked_for_too_late(void **state)
{
	int before = __atomic_load_n(&g.cancelled, __ATOMIC_SEQ_CST);
	struct answer a = ask(RT "StopPodSandbox", "", 0, 200);

	assert_int_equal(a.code, GRPC_STATUS_DEADLINE_EXCEEDED);
	assert_true(cancelled(before + 1));
}

/* The request reaches the loop after the news that its client is gone: nothing is started. */
static void cancelled_before_it_is_handled(void **state)
{
	int stops;
	struct answer a;
	bool both = false;

	/* What an earlier call still had to say can take the place of this one's first word. */
	for (int tries = 0; tries < 5 && !both; tries++) {
		stops = __atomic_load_n(&g.stops, __ATOMIC_SEQ_CST);
		__atomic_store_n(&order.mode, 1, __ATOMIC_SEQ_CST);
		a = ask(RT "StopContainer", "", 0, 300);
		assert_int_equal(a.code, GRPC_STATUS_DEADLINE_EXCEEDED);
		both = kept(2);
		__atomic_store_n(&order.mode, 0, __ATOMIC_SEQ_CST);
		for (int i = __atomic_load_n(&order.n, __ATOMIC_SEQ_CST) - 1; i >= 0; i--)
			assert_int_equal(__real_loop_post(order.kept[i].loop, order.kept[i].fn,
							  order.kept[i].arg),
					 0);
		if (!both) {
			(void)usleep(500000);
			__atomic_store_n(&order.n, 0, __ATOMIC_SEQ_CST);
		}
	}
	assert_true(both);
	a = ask(RT "Version", "", 0, 10000);
	assert_int_equal(a.code, GRPC_STATUS_OK);
	assert_int_equal(__atomic_load_n(&g.stops, __ATOMIC_SEQ_CST), stops);
}

static void socket_mode(void **state)
{
	struct stat st;

	assert_int_equal(stat(g.s.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
}

static void wrong_table(void **state)
{
	static const struct rpc_method table[] = { { "NoSuchMethod", handle_version, false },
						   { NULL, NULL, false } };
	struct rpc_service s = { &cri__runtime_service__descriptor, table, NULL, NULL };
	struct rpc_server *server;
	struct err e = { 0 };

	assert_int_equal(rpc_server_new(NULL, &s, 1, &server, &e), -EINVAL);
	assert_text(e.msg, "NoSuchMethod");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unary),
		cmocka_unit_test(error_with_trailer),
		cmocka_unit_test(unimplemented),
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(large_answer),
		cmocka_unit_test(stream),
		cmocka_unit_test(deadline_cancels),
		cmocka_unit_test(cancel_asked_for_too_late),
		cmocka_unit_test(cancelled_before_it_is_handled),
		cmocka_unit_test(socket_mode),
		cmocka_unit_test(wrong_table),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
