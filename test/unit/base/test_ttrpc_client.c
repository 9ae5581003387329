/* The client: against our server, and against a peer that keeps no rules. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "proto/shim.pb-c.h"
#include "test/lib/rawpeer.h"

static const ProtobufCServiceDescriptor *const desc = &agent__agent__descriptor;
static struct loop *l;
static struct ttrpc_client *c;
static struct rawpeer p;

/* What came back. */
struct got {
	int done, data, code;
	enum rpc_code status;
	char text[200], detail_type[100];
	uint64_t value; /* of the last message */
	size_t detail_len;
	bool free_client; /* in done */
	bool free_client_on_data;
	bool call_again;
};
static int n_closed;
static bool free_on_close;

static void closed(void *arg)
{
	assert_string_equal(arg, "arg");
	n_closed++;
	if (free_on_close)
		ttrpc_client_free(take_ptr(&c));
}

static int set_up(void **state)
{
	struct err e = { 0 };

	n_closed = 0;
	free_on_close = false;
	assert_ok(loop_new(&l, &e), &e);
	assert_ok(ttrpc_client_new(l, rawpeer_init(&p, l), closed, (void *)"arg", &c, &e), &e);
	return 0;
}

/* Ends the calls that are open, whose owners are on the stack of the test. */
static void drop(void)
{
	ttrpc_client_free(c);
	c = NULL;
}

static int tear_down(void **state)
{
	drop();
	rawpeer_fini(&p);
	loop_free(l);
	return 0;
}

static void done(const struct ttrpc_result *res, void *arg);

static int start(struct got *g, uint64_t timeout_ms)
{
	Agent__StartContainerRequest req = AGENT__START_CONTAINER_REQUEST__INIT;

	req.id = (char *)"c1";
	return ttrpc_client_call(c, desc, "StartContainer", &req.base, timeout_ms, done, g);
}

static void done(const struct ttrpc_result *res, void *arg)
{
	struct got *g = arg;

	g->done++;
	g->code = res->code;
	g->status = res->status;
	if (res->code < 0) {
		assert_int_equal(res->err->code, res->code);
		(void)snprintf(g->text, sizeof(g->text), "%s", err_text(res->err));
	} else if (res->resp) {
		assert_ptr_equal(res->resp->descriptor,
				 &agent__start_container_response__descriptor);
		g->value = ((const Agent__StartContainerResponse *)res->resp)->pid;
	}
	(void)snprintf(g->detail_type, sizeof(g->detail_type), "%s", res->detail_type);
	g->detail_len = res->detail_len;
	if (g->free_client)
		drop();
	else if (g->call_again && c) {
		g->call_again = false;
		assert_int_equal(start(g, 0), res->code == -ECONNRESET ? -ECONNRESET : 0);
	}
}

static void data(const ProtobufCMessage *msg, void *arg)
{
	struct got *g = arg;

	g->data++;
	g->value = ((const Agent__Event *)msg)->seq;
	if (g->free_client_on_data)
		ttrpc_client_free(take_ptr(&c));
}

static int stream(struct got *g)
{
	Agent__EventsRequest req = AGENT__EVENTS_REQUEST__INIT;

	req.after_seq = 5;
	return ttrpc_client_stream(c, desc, "Events", &req.base, data, done, g);
}

/* The request as the peer sees it. */
static const Ttrpc__Request *asked(uint32_t id, uint8_t flags)
{
	struct ttrpc_frame f;
	ProtobufCMessage *m;

	assert_true(rawpeer_recv(&p, &f));
	assert_int_equal(f.type, TTRPC_REQUEST);
	assert_int_equal(f.stream_id, id);
	assert_int_equal(f.flags, flags);
	pb_arena_fini(&p.arena);
	assert_int_equal(pb_unpack(&p.arena, &ttrpc__request__descriptor, f.payload, f.len, &m), 0);
	return (const Ttrpc__Request *)m;
}

static void answer(uint32_t id, const char *bytes, size_t n)
{
	rawpeer_send(&p, (uint32_t)n, id, TTRPC_RESPONSE, 0, bytes, n);
	settle(l);
}
#define ANSWER(id, bytes) answer(id, bytes, sizeof(bytes) - 1)
#define DATA(id, flags, bytes)                                                                     \
	(rawpeer_send(&p, sizeof(bytes) - 1, id, TTRPC_DATA, flags, bytes, sizeof(bytes) - 1),     \
	 settle(l))

static void request_and_answer(void **state)
{
	struct got g = { .code = 1 };
	const Ttrpc__Request *r;

	assert_int_equal(ttrpc_client_set_metadata(c, "containerd-namespace-ttrpc", "husk"), 0);
	assert_int_equal(start(&g, 1500), 0);
	assert_int_equal(g.done, 0);
	r = asked(1, 0);
	assert_string_equal(r->service, "husk.agent.v1.Agent");
	assert_string_equal(r->method, "StartContainer");
	assert_int_equal(r->timeout_nano, 1500000000);
	assert_int_equal(r->n_metadata, 1);
	assert_string_equal(r->metadata[0]->key, "containerd-namespace-ttrpc");
	assert_string_equal(r->metadata[0]->value, "husk");
	assert_int_equal(r->payload.len, 4);
	ANSWER(1, "\x12\x02\x08\x2a");
	assert_int_equal(g.done, 1);
	assert_int_equal(g.code, 0);
	assert_int_equal(g.value, 42);
	/* A second answer, one to a stream never opened, one of an unknown type. */
	ANSWER(1, "\x12\x02\x08\x2a");
	ANSWER(99, "");
	ANSWER(2, "");
	rawpeer_send(&p, 0, 1, 77, 0, NULL, 0);
	settle(l);
	assert_int_equal(g.done, 1);
	assert_int_equal(start(&g, 0), 0);
	assert_int_equal(asked(3, 0)->timeout_nano, 0);
	/* An explicit OK, and no payload. */
	ANSWER(3, "\x0a\x00");
	assert_int_equal(g.done, 2);
	assert_int_equal(g.value, 0);
}

static void out_of_order(void **state)
{
	static struct got g[TTRPC_CALLS_MAX + 1];
	char bytes[] = "\x12\x03\x08\x80\x00";

	for (unsigned i = 0; i < TTRPC_CALLS_MAX; i++)
		assert_int_equal(start(&g[i], i % 2 ? 60000 : 0), 0);
	assert_int_equal(start(&g[TTRPC_CALLS_MAX], 0), -ENOBUFS);
	for (unsigned i = TTRPC_CALLS_MAX; i-- > 0;) {
		bytes[3] = (char)(0x80 | (i & 0x7f));
		bytes[4] = (char)(i >> 7);
		answer(2 * i + 1, bytes, 5);
	}
	for (unsigned i = 0; i < TTRPC_CALLS_MAX; i++) {
		assert_int_equal(g[i].done, 1);
		assert_int_equal(g[i].code, 0);
		assert_int_equal(g[i].value, i);
	}
	assert_int_equal(start(&g[0], 0), 0);
}

static void errors_of_the_server(void **state)
{
	struct got g = { 0 };

	assert_int_equal(start(&g, 0), 0);
	ANSWER(1, "\x0a\x17\x08\x05\x12\x02no\x1a\x0f\x0a\x0bhusk.v1.Foo\x12\x00");
	assert_int_equal(g.code, -ENOENT);
	assert_int_equal(g.status, RPC_NOT_FOUND);
	assert_string_equal(g.text, "no");
	assert_string_equal(g.detail_type, "husk.v1.Foo");
	assert_int_equal(start(&g, 0), 0);
	ANSWER(3, "\x0a\x22\x08\x09\x1a\x1e\x0a\x19type.googleapis.com/a.Det\x12\x01x");
	assert_int_equal(g.code, -EBUSY);
	assert_string_equal(g.detail_type, "a.Det");
	assert_int_equal(g.detail_len, 1);
	assert_string_equal(g.text, strerror(EBUSY));
	assert_int_equal(start(&g, 0), 0);
	ANSWER(5, "\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	assert_int_equal(g.code, -EIO);
	assert_string_equal(g.detail_type, "");
	assert_int_equal(g.done, 3);
}

static void malformed_answers(void **state)
{
	struct got g = { 0 };

	assert_int_equal(start(&g, 0), 0);
	ANSWER(1, "\xff\xff");
	assert_int_equal(g.code, -EBADMSG);
	assert_text(g.text, "StartContainer: malformed answer");
	assert_int_equal(start(&g, 0), 0);
	ANSWER(3, "\x12\x02\xff\xff");
	assert_int_equal(g.code, -EBADMSG);
	/* A stream where one answer was expected. */
	assert_int_equal(start(&g, 0), 0);
	DATA(5, 0, "\x08\x01");
	assert_int_equal(g.code, -EBADMSG);
	assert_int_equal(start(&g, 0), 0);
	rawpeer_send(&p, TTRPC_MESSAGE_MAX + 1, 7, TTRPC_RESPONSE, 0, NULL, 0);
	settle(l);
	assert_int_equal(g.code, -ENOBUFS);
	assert_int_equal(g.status, RPC_RESOURCE_EXHAUSTED);
	assert_int_equal(g.done, 4);
	/* The connection itself is sound: once the payload is through, all goes on. */
	for (uint32_t left = TTRPC_MESSAGE_MAX + 1; left > 0;) {
		static char junk[100000];
		ssize_t n = send(p.fd, junk, MIN_OF(left, (uint32_t)sizeof(junk)), MSG_DONTWAIT);

		if (n > 0)
			left -= (uint32_t)n;
		settle(l);
	}
	assert_int_equal(start(&g, 0), 0);
	ANSWER(9, "\x12\x02\x08\x07");
	assert_int_equal(g.code, 0);
	assert_int_equal(g.value, 7);
}

static void bad_calls(void **state)
{
	Shim__ReopenLogRequest other = SHIM__REOPEN_LOG_REQUEST__INIT;
	Agent__CreateSandboxRequest big = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	cleanup_free char *text = malloc(TTRPC_MESSAGE_MAX + 1);
	struct got g = { 0 };
	struct ttrpc_frame f;

	assert_int_equal(ttrpc_client_call(c, desc, "NoSuch", NULL, 0, done, &g), -EINVAL);
	assert_int_equal(ttrpc_client_call(c, desc, "StartContainer", &other.base, 0, done, &g),
			 -EINVAL);
	memset(text, 'x', TTRPC_MESSAGE_MAX);
	text[TTRPC_MESSAGE_MAX] = '\0';
	big.hosts = text;
	assert_int_equal(ttrpc_client_call(c, desc, "CreateSandbox", &big.base, 100, done, &g),
			 -EMSGSIZE);
	for (int i = 0; i < 8; i++)
		assert_int_equal(ttrpc_client_set_metadata(c, "k", "v"), 0);
	assert_int_equal(ttrpc_client_set_metadata(c, "k", "v"), -ENOBUFS);
	settle(l);
	assert_int_equal(g.done, 0);
	assert_false(rawpeer_recv(&p, &f));
	/* A NULL request is an empty one; no id was wasted. */
	assert_int_equal(ttrpc_client_call(c, desc, "StartContainer", NULL, 0, done, &g), 0);
	assert_int_equal(asked(1, 0)->payload.len, 0);
	drop();
}

static void queue_full(void **state)
{
	Agent__CreateSandboxRequest big = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	cleanup_free char *text = malloc(MIB);
	struct got g = { 0 };
	int n = 0, r;

	memset(text, 'x', MIB - 1);
	text[MIB - 1] = '\0';
	big.hosts = text;
	while ((r = ttrpc_client_call(c, desc, "CreateSandbox", &big.base, 0, done, &g)) == 0)
		assert_true(++n < 100);
	assert_int_equal(r, -ENOBUFS);
	assert_true(n >= 15);
	settle(l);
	/* Nothing was lost for the peer that reads late. */
	for (int i = 0; i < n; i++)
		assert_true(asked((uint32_t)i * 2 + 1, 0)->payload.len > MIB);
	assert_int_equal(g.done, 0);
	assert_int_equal(n_closed, 0);
	drop();
}

static void timeouts(void **state)
{
	struct got g = { 0 }, slow = { 0 };
	uint64_t t0 = now_mono_ns();

	assert_int_equal(start(&g, 20), 0);
	assert_int_equal(start(&slow, UINT64_MAX), 0);
	while (!g.done)
		assert_true(loop_once(l, 1000) > 0);
	assert_true(now_mono_ns() - t0 >= 20 * NS_PER_MS);
	assert_int_equal(g.code, -ETIMEDOUT);
	assert_int_equal(g.status, RPC_DEADLINE_EXCEEDED);
	assert_int_equal(slow.done, 0);
	/* Too late. */
	ANSWER(1, "\x12\x02\x08\x2a");
	assert_int_equal(g.done, 1);
	ANSWER(3, "\x12\x02\x08\x2a");
	assert_int_equal(slow.value, 42);
}

static void streams(void **state)
{
	struct got g = { 0 };

	assert_int_equal(stream(&g), 0);
	assert_int_equal(asked(1, TTRPC_REMOTE_CLOSED)->payload.len, 2);
	DATA(1, 0, "\x08\x06");
	DATA(1, 0, "\x08\x07");
	DATA(1, 0, "");
	assert_int_equal(g.data, 3);
	assert_int_equal(g.done, 0);
	DATA(1, TTRPC_REMOTE_CLOSED | TTRPC_NO_DATA, "");
	assert_int_equal(g.done, 1);
	assert_int_equal(g.data, 3);
	assert_int_equal(g.code, 0);
	/* A RESPONSE may follow that. */
	ANSWER(1, "");
	/* Ends of another kind: a last message, a RESPONSE, one with a message, an error. */
	assert_int_equal(stream(&g), 0);
	DATA(3, TTRPC_REMOTE_CLOSED, "\x08\x09");
	assert_int_equal(g.value, 9);
	assert_int_equal(g.done, 2);
	assert_int_equal(stream(&g), 0);
	ANSWER(5, "");
	assert_int_equal(g.done, 3);
	assert_int_equal(g.data, 4);
	assert_int_equal(stream(&g), 0);
	ANSWER(7, "\x12\x02\x08\x0a");
	assert_int_equal(g.done, 4);
	assert_int_equal(g.data, 5);
	assert_int_equal(g.value, 10);
	assert_int_equal(stream(&g), 0);
	DATA(9, 0, "\x08\x0b");
	ANSWER(9, "\x0a\x02\x08\x08");
	assert_int_equal(g.done, 5);
	assert_int_equal(g.code, -ENOBUFS);
	assert_int_equal(stream(&g), 0);
	DATA(11, 0, "\xff");
	assert_int_equal(g.done, 6);
	assert_int_equal(g.code, -EBADMSG);
	DATA(11, 0, "\x08\x01");
	assert_int_equal(g.data, 6);
}

static void peer_closes(void **state)
{
	struct got g[3] = { 0 };

	g[1].call_again = true;
	for (int i = 0; i < 3; i++)
		assert_int_equal(i == 2 ? stream(&g[i]) : start(&g[i], 1000), 0);
	/* What it said before counts. */
	ANSWER(1, "\x12\x02\x08\x2a");
	rawpeer_send(&p, 4, 3, TTRPC_RESPONSE, 0, "\x12\x02\x08\x2b", 4);
	g[1].call_again = false;
	rawpeer_fini(&p);
	settle(l);
	assert_int_equal(g[0].code, 0);
	assert_int_equal(g[1].code, 0);
	assert_int_equal(g[1].value, 43);
	assert_int_equal(g[2].code, -ECONNRESET);
	assert_int_equal(g[2].status, RPC_UNAVAILABLE);
	assert_int_equal(n_closed, 1);
	assert_int_equal(start(&g[0], 0), -ECONNRESET);
	settle(l);
	for (int i = 0; i < 3; i++)
		assert_int_equal(g[i].done, 1);
}

static void peer_half_closes(void **state)
{
	struct got g = { .call_again = true };

	assert_int_equal(start(&g, 0), 0);
	assert_int_equal(shutdown(p.fd, SHUT_WR), 0);
	settle(l);
	/* Called again inside its end: refused at once. */
	assert_int_equal(g.done, 1);
	assert_int_equal(g.code, -ECONNRESET);
	assert_int_equal(n_closed, 1);
}

static void freed_with_open_calls(void **state)
{
	struct got g[100] = { 0 };

	for (int i = 0; i < 100; i++)
		assert_int_equal(start(&g[i], 50), 0);
	/* One of them frees it again, which is nothing. */
	g[50].free_client = true;
	drop();
	for (int i = 0; i < 100; i++) {
		assert_int_equal(g[i].done, 1);
		assert_int_equal(g[i].code, -ECANCELED);
	}
	assert_int_equal(n_closed, 0);
	settle(l);
}

static void freed_inside_callbacks(void **state)
{
	struct got a = { .free_client = true }, b = { 0 };
	struct err e = { 0 };

	/* In done. */
	assert_int_equal(start(&a, 0), 0);
	assert_int_equal(start(&b, 0), 0);
	rawpeer_send(&p, 0, 1, TTRPC_RESPONSE, 0, NULL, 0);
	ANSWER(3, "");
	assert_int_equal(a.code, 0);
	assert_int_equal(b.code, -ECANCELED);
	assert_null(c);
	/* In data; the same frame would end the stream. */
	rawpeer_fini(&p);
	assert_ok(ttrpc_client_new(l, rawpeer_init(&p, l), closed, (void *)"arg", &c, &e), &e);
	a = (struct got){ .free_client_on_data = true };
	assert_int_equal(stream(&a), 0);
	DATA(1, TTRPC_REMOTE_CLOSED, "\x08\x01");
	assert_int_equal(a.data, 1);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, -ECANCELED);
	/* In done, when the connection ends. */
	rawpeer_fini(&p);
	assert_ok(ttrpc_client_new(l, rawpeer_init(&p, l), closed, (void *)"arg", &c, &e), &e);
	a = (struct got){ .free_client = true };
	b = (struct got){ 0 };
	assert_int_equal(start(&b, 0), 0);
	assert_int_equal(start(&a, 0), 0);
	rawpeer_fini(&p);
	settle(l);
	assert_int_equal(a.done + b.done, 2);
	assert_int_equal(n_closed, 0);
	assert_null(c);
	/* In a timeout, and in on_close. */
	assert_ok(ttrpc_client_new(l, rawpeer_init(&p, l), closed, (void *)"arg", &c, &e), &e);
	a = (struct got){ .free_client = true };
	assert_int_equal(start(&a, 1), 0);
	assert_true(loop_once(l, 1000) > 0);
	assert_int_equal(a.code, -ETIMEDOUT);
	assert_null(c);
	rawpeer_fini(&p);
	assert_ok(ttrpc_client_new(l, rawpeer_init(&p, l), closed, (void *)"arg", &c, &e), &e);
	free_on_close = true;
	rawpeer_fini(&p);
	settle(l);
	assert_int_equal(n_closed, 1);
	assert_null(c);
}

/* ---- with our server ---- */

static void reply_pid(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;
	const char *id = ((const Agent__StartContainerRequest *)req)->id;
	uint64_t n = 0;

	assert_int_equal(str_to_u64(id, 0, 1000000, &n), 0);
	resp.pid = (uint32_t)n;
	ttrpc_reply(call, &resp.base);
}

static void check_pid(const struct ttrpc_result *res, void *arg)
{
	static unsigned n;

	assert_int_equal(res->code, 0);
	assert_int_equal(((const Agent__StartContainerResponse *)res->resp)->pid, (uintptr_t)arg);
	if (++n == 1000)
		loop_stop(l, 1);
}

static void a_thousand_calls(void **state)
{
	static const struct ttrpc_method methods[] = { { "StartContainer", reply_pid }, { NULL } };
	static const struct ttrpc_service svc = { &agent__agent__descriptor, methods, NULL };
	Agent__StartContainerRequest req = AGENT__START_CONTAINER_REQUEST__INIT;
	struct ttrpc_client *client;
	struct ttrpc_server *s;
	struct err e = { 0 };
	char id[20];
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_ok(ttrpc_server_new(l, &svc, 1, &s, &e), &e);
	assert_int_equal(ttrpc_server_add(s, sv[0]), 0);
	assert_ok(ttrpc_client_new(l, sv[1], NULL, NULL, &client, &e), &e);
	for (uintptr_t i = 0; i < 1000; i++) {
		(void)snprintf(id, sizeof(id), "%zu", (size_t)i);
		req.id = id;
		assert_int_equal(ttrpc_client_call(client, desc, "StartContainer", &req.base, 10000,
						   check_pid, (void *)i),
				 0);
	}
	assert_int_equal(loop_run(l), 1);
	ttrpc_client_free(client);
	settle(l);
	ttrpc_server_free(s);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(request_and_answer),
		T(out_of_order),
		T(errors_of_the_server),
		T(malformed_answers),
		T(bad_calls),
		T(queue_full),
		T(timeouts),
		T(streams),
		T(peer_closes),
		T(peer_half_closes),
		T(freed_with_open_calls),
		T(freed_inside_callbacks),
		T(a_thousand_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
