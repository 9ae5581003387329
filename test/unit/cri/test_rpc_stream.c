/* Streams both ways, between the client of cli/ and the server of cri/: order, back-pressure,
 * errors in the middle, either side going away. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/rpc.h"
#undef RPC_MESSAGE_MAX
#include "cri/rpc/grpc.h"
#include "proto/husk.pb-c.h"
#include "test/lib/rpc_fixture.h"

#define CHUNK (1 * MIB)

/* ---- the server, on a thread of its own ---- */

static struct {
	struct rpc_fixture s;
	struct ev_timer timer;
	struct rpc_call *call;
	uint64_t received; /* bytes of the upload */
	uint64_t fail_at;  /* refuse the upload from here on */
	bool slow;	   /* take one message in 20 ms */
	bool last;
	int cancelled;
	uint64_t sent, to_send;
	int answers;
} g;

static void on_cancelled(struct rpc_call *call, void *arg)
{
	__atomic_add_fetch(&g.cancelled, 1, __ATOMIC_SEQ_CST);
	ev_timer_del(&g.timer);
	rpc_reply_err(call, -ECANCELED, NULL);
}

static void answer_step(struct rpc_call *call, void *arg)
{
	Husk__LoadProgress m = HUSK__LOAD_PROGRESS__INIT;

	m.image = (char *)"an image";
	if (g.answers-- == 0) {
		rpc_reply(call, NULL);
		return;
	}
	assert_int_equal(rpc_send(call, &m.base), 0);
	rpc_on_sent(call, answer_step, NULL);
}

static void on_chunk(struct rpc_call *call, int code, const ProtobufCMessage *msg, void *arg);

static void on_timer(struct ev_timer *t)
{
	rpc_recv(g.call, on_chunk, NULL);
}

static void handle_chunk(struct rpc_call *call, const Husk__LoadChunk *m)
{
	struct err err = { 0 };

	g.received += m->data.len;
	g.last = m->last;
	if (g.fail_at && g.received >= g.fail_at) {
		(void)err_set(&err, -ENOSPC, "no room for more");
		rpc_reply_err(call, -ENOSPC, &err);
	} else if (g.slow) {
		assert_int_equal(ev_timer_add(g.s.loop, &g.timer, 20 * NS_PER_MS, on_timer, call),
				 0);
	} else {
		rpc_recv(call, on_chunk, NULL);
	}
}

static void on_chunk(struct rpc_call *call, int code, const ProtobufCMessage *msg, void *arg)
{
	if (code < 0) {
		rpc_reply_err(call, code, NULL);
	} else if (msg) {
		handle_chunk(call, (const void *)msg);
	} else if (!g.last) {
		on_cancelled(call, NULL); /* its end may be seen before its cancelling */
	} else {
		g.answers = 3;
		answer_step(call, NULL);
	}
}

static void handle_load(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	g.call = call;
	rpc_on_cancel(call, on_cancelled, NULL);
	handle_chunk(call, (const void *)msg);
}

static void save_step(struct rpc_call *call, void *arg)
{
	static uint8_t bytes[CHUNK];
	Husk__SaveChunk m = HUSK__SAVE_CHUNK__INIT;

	if (g.sent == g.to_send) {
		rpc_reply(call, NULL);
		return;
	}
	memset(bytes, (int)(g.sent / CHUNK), CHUNK);
	m.data.data = bytes;
	m.data.len = CHUNK;
	m.total = g.to_send;
	assert_int_equal(rpc_send(call, &m.base), 0);
	__atomic_add_fetch(&g.sent, CHUNK, __ATOMIC_SEQ_CST);
	rpc_on_sent(call, save_step, NULL);
}

static void handle_save(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	rpc_on_cancel(call, on_cancelled, NULL);
	save_step(call, NULL);
}

static const struct rpc_method methods[] = {
	{ .name = "LoadImages", .handler = handle_load, .streams = true, .receives = true },
	{ .name = "SaveImages", .handler = handle_save, .streams = true },
	{ 0 },
};
static const struct rpc_service services[] = {
	{ &husk__husk__descriptor, methods, NULL, NULL },
};

static int setup(void **state)
{
	memset(&g, 0, sizeof(g));
	rpc_fixture_start(&g.s, services, ARRAY_SIZE(services));
	return 0;
}

static int teardown(void **state)
{
	return rpc_fixture_stop(&g.s);
}

/* ---- the client ---- */

struct client {
	struct rpc *rpc;
	struct err err;
	uint64_t to_send, sent, got;
	uint64_t give_up_at; /* bytes sent or got; 0 = never */
	int answers;
	Husk__LoadChunk chunk;
	uint8_t bytes[CHUNK];
};

static int next(void *arg, const ProtobufCMessage **ret)
{
	struct client *c = arg;

	if (c->sent == c->to_send)
		return 0;
	if (c->give_up_at && c->sent >= c->give_up_at)
		return -EINTR;
	husk__load_chunk__init(&c->chunk);
	c->chunk.data.data = c->bytes;
	c->chunk.data.len = CHUNK;
	c->sent += CHUNK;
	c->chunk.last = c->sent == c->to_send;
	*ret = &c->chunk.base;
	return 1;
}

static int on_answer(const ProtobufCMessage *msg, void *arg)
{
	struct client *c = arg;

	assert_string_equal(((const Husk__LoadProgress *)(const void *)msg)->image, "an image");
	c->answers++;
	return 0;
}

static int on_bytes(const ProtobufCMessage *msg, void *arg)
{
	const Husk__SaveChunk *m = (const void *)msg;
	struct client *c = arg;

	assert_int_equal(m->data.len, CHUNK);
	assert_int_equal(m->data.data[0], (uint8_t)(c->got / CHUNK));
	c->got += m->data.len;
	return c->give_up_at && c->got >= c->give_up_at ? -EINTR : 0;
}

static struct client *client(uint64_t to_send)
{
	struct client *c = calloc(1, sizeof(*c));

	assert_ok(rpc_open(g.s.address, &c->rpc, &c->err), &c->err);
	c->to_send = to_send;
	return c;
}

static void done(struct client *c)
{
	rpc_close(c->rpc);
	free(c);
}

static int upload(struct client *c)
{
	return rpc_upload(c->rpc, &husk__husk__descriptor, "LoadImages", next, on_answer, c,
			  &c->err);
}

static void up_in_order(void **state)
{
	struct client *c = client(64 * CHUNK);

	assert_ok(upload(c), &c->err);
	assert_int_equal(g.received, 64 * CHUNK);
	assert_int_equal(c->answers, 3);
	done(c);
}

static void server_refuses_in_the_middle(void **state)
{
	struct client *c = client(200 * CHUNK);

	g.fail_at = 3 * CHUNK;
	assert_int_equal(upload(c), -ENOBUFS); /* RESOURCE_EXHAUSTED */
	assert_text(c->err.msg, "no room for more");
	assert_true(c->sent < 100 * CHUNK);
	assert_int_equal(g.cancelled, 0);
	done(c);
}

static void slow_server_holds_the_client_back(void **state)
{
	struct client *c = client(16 * CHUNK);
	uint64_t begin = now_mono_ns();

	g.slow = true;
	assert_ok(upload(c), &c->err);
	assert_true(now_mono_ns() - begin >= 16 * 20 * NS_PER_MS);
	done(c);
}

static void client_goes_away(void **state)
{
	struct client *c = client(100 * CHUNK);

	c->give_up_at = 5 * CHUNK;
	assert_int_equal(upload(c), -EINTR);
	for (int i = 0; i < 200 && __atomic_load_n(&g.cancelled, __ATOMIC_SEQ_CST) == 0; i++)
		usleep(10000);
	assert_int_equal(g.cancelled, 1);
	done(c);
}

static void down_in_order(void **state)
{
	Husk__SaveImagesRequest req = HUSK__SAVE_IMAGES_REQUEST__INIT;
	struct client *c = client(0);

	g.to_send = 64 * CHUNK;
	assert_ok(rpc_stream(c->rpc, &husk__husk__descriptor, "SaveImages", &req.base, on_bytes, c,
			     &c->err),
		  &c->err);
	assert_int_equal(c->got, 64 * CHUNK);
	done(c);
}

static int on_bytes_slowly(const ProtobufCMessage *msg, void *arg)
{
	struct client *c = arg;

	if (c->got == 0) {
		usleep(300000);
		/* What a reader does not take stays where it is. */
		assert_true(__atomic_load_n(&g.sent, __ATOMIC_SEQ_CST) < 32 * CHUNK);
	}
	return on_bytes(msg, arg);
}

static void slow_client_holds_the_server_back(void **state)
{
	Husk__SaveImagesRequest req = HUSK__SAVE_IMAGES_REQUEST__INIT;
	struct client *c = client(0);

	g.to_send = 64 * CHUNK;
	assert_ok(rpc_stream(c->rpc, &husk__husk__descriptor, "SaveImages", &req.base,
			     on_bytes_slowly, c, &c->err),
		  &c->err);
	assert_int_equal(c->got, 64 * CHUNK);
	c->got = 0;
	g.sent = 0;
	c->give_up_at = 3 * CHUNK;
	assert_int_equal(rpc_stream(c->rpc, &husk__husk__descriptor, "SaveImages", &req.base,
				    on_bytes, c, &c->err),
			 -EINTR);
	for (int i = 0; i < 200 && __atomic_load_n(&g.cancelled, __ATOMIC_SEQ_CST) == 0; i++)
		usleep(10000);
	assert_int_equal(g.cancelled, 1);
	done(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(up_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(server_refuses_in_the_middle, setup, teardown),
		cmocka_unit_test_setup_teardown(slow_server_holds_the_client_back, setup, teardown),
		cmocka_unit_test_setup_teardown(client_goes_away, setup, teardown),
		cmocka_unit_test_setup_teardown(down_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(slow_client_holds_the_server_back, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
