/* The server, asked by a peer that keeps no rules. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "test/lib/aborts.h"
#include "test/lib/rawpeer.h"

#define SVC "husk.agent.v1.Agent"

static struct loop *l;
static struct ttrpc_server *s;
static struct rawpeer p;
/* What the handlers did. */
static struct ttrpc_call *kept[2000];
static int n_kept, n_cancelled, n_disconnects;
static bool answer_on_cancel, free_on_cancel;
static size_t answer_size;

/* ListProcesses: an answer at once, of answer_size pids. */
static void list(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__ListProcessesResponse resp = AGENT__LIST_PROCESSES_RESPONSE__INIT;
	cleanup_free uint32_t *pids = calloc(answer_size + 1, sizeof(*pids));

	assert_string_equal(arg, "arg");
	memset(pids, 0x11, answer_size * sizeof(*pids)); /* 5 bytes each */
	resp.pids = pids;
	resp.n_pids = answer_size;
	ttrpc_reply(call, &resp.base);
}

static void cancelled(struct ttrpc_call *call, void *arg)
{
	n_cancelled++;
	assert_string_equal(arg, "why");
	if (answer_on_cancel)
		ttrpc_reply_err(call, -ECANCELED, NULL);
	if (free_on_cancel) {
		free_on_cancel = false;
		ttrpc_server_free(take_ptr(&s));
	}
}

/* StartContainer: kept. */
static void keep(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	kept[n_kept++] = call;
	ttrpc_call_on_cancel(call, cancelled, (void *)"why");
}

/* RemoveContainer: refused. */
static void refuse(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	struct err e = { 0 };

	ttrpc_reply_err(call,
			err_set(&e, -ESRCH, "no container \"%s\"",
				((const Agent__RemoveContainerRequest *)req)->id),
			&e);
}

/* Events: a stream of three, then kept. */
static void events(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__Event ev = AGENT__EVENT__INIT;

	for (ev.seq = 1; ev.seq <= 3; ev.seq++)
		assert_int_equal(ttrpc_send(call, &ev.base), 0);
	kept[n_kept++] = call;
	ttrpc_call_on_cancel(call, cancelled, (void *)"why");
}

/* Shutdown: the server goes while the call is open. */
static void shut(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__ShutdownResponse resp = AGENT__SHUTDOWN_RESPONSE__INIT;

	ttrpc_server_free(take_ptr(&s));
	assert_int_equal(ttrpc_send(call, &resp.base), -EINVAL);
	ttrpc_reply(call, &resp.base);
}

static const struct ttrpc_method methods[] = {
	{ "StartContainer", keep }, { "RemoveContainer", refuse },
	{ "ListProcesses", list },  { "Events", events, .streams = true },
	{ "Shutdown", shut },	    { NULL },
};
static const struct ttrpc_service services[] = {
	{ &agent__agent__descriptor, methods, (void *)"arg" },
};

static void disconnected(void *arg)
{
	n_disconnects++;
}

static int set_up(void **state)
{
	struct err e = { 0 };

	n_kept = n_cancelled = n_disconnects = 0;
	answer_on_cancel = free_on_cancel = false;
	answer_size = 3;
	assert_ok(loop_new(&l, &e), &e);
	assert_ok(ttrpc_server_new(l, services, ARRAY_SIZE(services), &s, &e), &e);
	ttrpc_server_on_disconnect(s, disconnected, NULL);
	assert_int_equal(ttrpc_server_add(s, rawpeer_init(&p, l)), 0);
	return 0;
}

static int tear_down(void **state)
{
	rawpeer_fini(&p);
	settle(l);
	ttrpc_server_free(s);
	s = NULL;
	loop_free(l);
	return 0;
}

static void ask(uint32_t id, const char *method)
{
	Agent__StartContainerRequest req = AGENT__START_CONTAINER_REQUEST__INIT;

	/* Field 1 is the id in all the messages that the tests use, but Events'. */
	req.id = (char *)"c1";
	rawpeer_request(&p, id, 0, SVC, method, 0, str_eq(method, "Events") ? NULL : &req.base);
}

static void answers(void **state)
{
	const Ttrpc__Response *r;

	ask(1, "ListProcesses");
	r = rawpeer_expect(&p, 1, RPC_OK);
	assert_int_equal(r->payload.len, 2 + 3 * 5);
	ask(3, "RemoveContainer");
	r = rawpeer_expect(&p, 3, RPC_NOT_FOUND);
	assert_string_equal(r->status->message, "no container \"c1\"");
	/* Ids may leave gaps. */
	ask(4001, "ListProcesses");
	(void)rawpeer_expect(&p, 4001, RPC_OK);
}

static void out_of_order(void **state)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;
	const Ttrpc__Response *r;
	ProtobufCMessage *m;

	for (uint32_t id = 1; id < 2 * TTRPC_CALLS_MAX; id += 2)
		ask(id, "StartContainer");
	rawpeer_expect_nothing(&p);
	assert_int_equal(n_kept, TTRPC_CALLS_MAX);
	/* One more than allowed is refused, the others are not harmed. */
	ask(5001, "StartContainer");
	(void)rawpeer_expect(&p, 5001, RPC_RESOURCE_EXHAUSTED);
	for (int i = n_kept - 1; i >= 0; i--) {
		resp.pid = (uint32_t)i;
		ttrpc_reply(kept[i], &resp.base);
	}
	for (int i = n_kept - 1; i >= 0; i--) {
		r = rawpeer_expect(&p, (uint32_t)i * 2 + 1, RPC_OK);
		assert_int_equal(pb_unpack(&p.arena, &agent__start_container_response__descriptor,
					   r->payload.data, r->payload.len, &m),
				 0);
		assert_int_equal(((Agent__StartContainerResponse *)m)->pid, i);
	}
	ask(5003, "ListProcesses");
	(void)rawpeer_expect(&p, 5003, RPC_OK);
}

static void bad_stream_ids(void **state)
{
	ask(2, "ListProcesses");
	(void)rawpeer_expect(&p, 2, RPC_INVALID_ARGUMENT);
	ask(0, "ListProcesses");
	(void)rawpeer_expect(&p, 0, RPC_INVALID_ARGUMENT);
	ask(5, "ListProcesses");
	(void)rawpeer_expect(&p, 5, RPC_OK);
	ask(5, "ListProcesses");
	(void)rawpeer_expect(&p, 5, RPC_INVALID_ARGUMENT);
	ask(3, "ListProcesses");
	(void)rawpeer_expect(&p, 3, RPC_INVALID_ARGUMENT);
	ask(UINT32_MAX, "ListProcesses");
	(void)rawpeer_expect(&p, UINT32_MAX, RPC_OK);
}

static void unknown_names(void **state)
{
	const Ttrpc__Response *r;

	rawpeer_request(&p, 1, 0, "no.Such", "ListProcesses", 0, NULL);
	r = rawpeer_expect(&p, 1, RPC_UNIMPLEMENTED);
	assert_text(r->status->message, "service no.Such/ListProcesses");
	ask(3, "NoSuch");
	r = rawpeer_expect(&p, 3, RPC_UNIMPLEMENTED);
	assert_text(r->status->message, "method " SVC "/NoSuch");
	ask(5, "ResizeTty"); /* has no handler */
	(void)rawpeer_expect(&p, 5, RPC_UNIMPLEMENTED);
	ask(7, "");
	(void)rawpeer_expect(&p, 7, RPC_UNIMPLEMENTED);
	rawpeer_send(&p, 0, 9, TTRPC_REQUEST, 0, NULL, 0);
	(void)rawpeer_expect(&p, 9, RPC_UNIMPLEMENTED);
}

/* A method of the .proto file is in the table, or answered UNIMPLEMENTED. */
static void every_method_of_the_descriptor(void **state)
{
	const ProtobufCServiceDescriptor *desc = &agent__agent__descriptor;
	const struct ttrpc_method *m;
	unsigned n_served = 0;
	uint32_t id = 1;

	for (unsigned i = 0; i < desc->n_methods; i++, id += 2) {
		for (m = methods; m->name && !str_eq(m->name, desc->methods[i].name); m++)
			;
		n_served += m->name != NULL;
		if (m->name)
			continue;
		ask(id, desc->methods[i].name);
		(void)rawpeer_expect(&p, id, RPC_UNIMPLEMENTED);
	}
	assert_int_equal(n_served, ARRAY_SIZE(methods) - 1);
}

static void new_server(void *table)
{
	const struct ttrpc_service svc = { &agent__agent__descriptor, table, NULL };
	struct ttrpc_server *server;

	(void)!ttrpc_server_new(l, &svc, 1, &server, NULL);
}

static void answer_again(void *call)
{
	ttrpc_reply_err(call, -EIO, NULL);
}

static void send_after_the_answer(void *call)
{
	Agent__Event ev = AGENT__EVENT__INIT;

	(void)!ttrpc_send(call, &ev.base);
}

static void cancel_after_the_answer(void *call)
{
	ttrpc_call_on_cancel(call, cancelled, NULL);
}

/* A call has exactly one answer; nothing is done with it after that. */
static void answered_twice(void **state)
{
	ask(1, "StartContainer");
	settle(l);
	assert_int_equal(n_kept, 1);
	ttrpc_reply(kept[0], NULL);
	(void)rawpeer_expect(&p, 1, RPC_OK);
	assert_aborts(answer_again, kept[0], "call_open(call)");
	assert_aborts(send_after_the_answer, kept[0], "call_open(call)");
	assert_aborts(cancel_after_the_answer, kept[0], "call_open(call)");
}

static void wrong_tables(void **state)
{
	struct ttrpc_method unknown[] = { { "Events", events }, { "NoSuch", keep }, { NULL } };
	struct ttrpc_method twice[] = { { "Events", events }, { "Events", keep }, { NULL } };
	struct ttrpc_method empty[] = { { "Events", NULL }, { NULL } };

	assert_aborts(new_server, unknown, "get_method_by_name");
	assert_aborts(new_server, twice, "find_method(svc, m->name) == m");
	assert_aborts(new_server, empty, "m->handler");
}

static void malformed(void **state)
{
	static uint8_t many[2 * MIB];
	char bytes[] = "\x0a\x13" SVC "\x12\x0dListProcesses\x1a\x02\x0a\x63";

	rawpeer_send(&p, 3, 1, TTRPC_REQUEST, 0, "\xff\xff\xff", 3);
	(void)rawpeer_expect(&p, 1, RPC_INVALID_ARGUMENT);
	/* The inner message is cut. */
	rawpeer_send(&p, sizeof(bytes) - 1, 3, TTRPC_REQUEST, 0, bytes, sizeof(bytes) - 1);
	(void)rawpeer_expect(&p, 3, RPC_INVALID_ARGUMENT);
	/* A million empty metadata entries. */
	for (size_t i = 0; i < sizeof(many); i += 2)
		many[i] = 0x2a;
	rawpeer_send(&p, sizeof(many), 5, TTRPC_REQUEST, 0, many, sizeof(many));
	(void)rawpeer_expect(&p, 5, RPC_RESOURCE_EXHAUSTED);
	/* Types of the future, and answers from a client, are skipped. */
	rawpeer_send(&p, 2, 7, 99, 0, "xx", 2);
	rawpeer_send(&p, 2, 7, TTRPC_RESPONSE, 0, "xx", 2);
	rawpeer_expect_nothing(&p);
	ask(9, "ListProcesses");
	(void)rawpeer_expect(&p, 9, RPC_OK);
}

static void oversize(void **state)
{
	const uint32_t len = TTRPC_MESSAGE_MAX + 1;
	static char junk[64 * 1024];

	rawpeer_send(&p, len, 1, TTRPC_REQUEST, 0, NULL, 0);
	/* Answered before all of it is there. */
	(void)rawpeer_expect(&p, 1, RPC_RESOURCE_EXHAUSTED);
	for (uint32_t left = len; left > 0;) {
		uint32_t n = MIN_OF(left, (uint32_t)sizeof(junk));

		assert_int_equal(send(p.fd, junk, n, 0), n);
		settle(l);
		left -= n;
	}
	/* Its id is used up. */
	ask(1, "ListProcesses");
	(void)rawpeer_expect(&p, 1, RPC_INVALID_ARGUMENT);
	ask(3, "ListProcesses");
	(void)rawpeer_expect(&p, 3, RPC_OK);
}

static void answer_too_large(void **state)
{
	answer_size = TTRPC_MESSAGE_MAX / 5;
	ask(1, "ListProcesses");
	(void)rawpeer_expect(&p, 1, RPC_RESOURCE_EXHAUSTED);
	answer_size -= 4;
	ask(3, "ListProcesses");
	(void)rawpeer_expect(&p, 3, RPC_OK);
}

static void streams(void **state)
{
	struct ttrpc_frame f;

	ask(1, "Events");
	for (uint8_t i = 1; i <= 3; i++) {
		assert_true(rawpeer_recv(&p, &f));
		assert_int_equal(f.type, TTRPC_DATA);
		assert_int_equal(f.stream_id, 1);
		assert_int_equal(f.flags, 0);
		assert_int_equal(f.len, 2);
		assert_int_equal(f.payload[1], i);
	}
	rawpeer_expect_nothing(&p);
	/* An error ends it with a RESPONSE. */
	ttrpc_reply_err(kept[0], -EBUSY, NULL);
	(void)rawpeer_expect(&p, 1, RPC_FAILED_PRECONDITION);
	ask(3, "Events");
	for (int i = 0; i < 3; i++)
		assert_true(rawpeer_recv(&p, &f));
	/* Its regular end is DATA without data. */
	ttrpc_reply(kept[1], NULL);
	assert_true(rawpeer_recv(&p, &f));
	assert_int_equal(f.type, TTRPC_DATA);
	assert_int_equal(f.flags, TTRPC_REMOTE_CLOSED | TTRPC_NO_DATA);
	assert_int_equal(f.len, 0);
	rawpeer_expect_nothing(&p);
}

static void streams_from_the_client(void **state)
{
	rawpeer_request(&p, 1, TTRPC_REMOTE_OPEN, SVC, "Events", 0, NULL);
	(void)rawpeer_expect(&p, 1, RPC_UNIMPLEMENTED);
	rawpeer_send(&p, 1, 1, TTRPC_DATA, 0, "x", 1);
	(void)rawpeer_expect(&p, 1, RPC_INVALID_ARGUMENT);
	rawpeer_send(&p, 0, 77, TTRPC_DATA, TTRPC_NO_DATA | TTRPC_REMOTE_CLOSED, NULL, 0);
	(void)rawpeer_expect(&p, 77, RPC_INVALID_ARGUMENT);
	ask(79, "StartContainer");
	/* To say that nothing more comes is no sin. */
	rawpeer_send(&p, 0, 79, TTRPC_DATA, TTRPC_NO_DATA | TTRPC_REMOTE_CLOSED, NULL, 0);
	rawpeer_expect_nothing(&p);
	rawpeer_send(&p, 1, 79, TTRPC_DATA, 0, "x", 1);
	(void)rawpeer_expect(&p, 79, RPC_INVALID_ARGUMENT);
	assert_int_equal(n_cancelled, 1);
	/* The stream had its answer: this one goes nowhere. */
	ttrpc_reply_err(kept[0], -EIO, NULL);
	rawpeer_expect_nothing(&p);
}

static void deadlines(void **state)
{
	uint64_t t0 = now_mono_ns();

	rawpeer_request(&p, 1, 0, SVC, "StartContainer", 20 * (int64_t)NS_PER_MS, NULL);
	rawpeer_request(&p, 3, 0, SVC, "StartContainer", INT64_MAX, NULL);
	rawpeer_request(&p, 5, 0, SVC, "StartContainer", -1, NULL);
	rawpeer_expect_nothing(&p);
	while (n_cancelled == 0)
		assert_true(loop_once(l, 1000) > 0);
	assert_true(now_mono_ns() - t0 >= 20 * NS_PER_MS);
	(void)rawpeer_expect(&p, 1, RPC_DEADLINE_EXCEEDED);
	rawpeer_expect_nothing(&p);
	for (int i = 0; i < 3; i++)
		ttrpc_reply_err(kept[i], -EIO, NULL);
	(void)rawpeer_expect(&p, 3, RPC_UNKNOWN);
	(void)rawpeer_expect(&p, 5, RPC_UNKNOWN);
	rawpeer_expect_nothing(&p);
}

static void peer_goes_away(void **state)
{
	Agent__Event ev = AGENT__EVENT__INIT;

	ask(1, "StartContainer");
	ask(3, "Events");
	ask(5, "StartContainer");
	settle(l);
	assert_int_equal(n_kept, 3);
	rawpeer_fini(&p);
	settle(l);
	assert_int_equal(n_cancelled, 3);
	assert_int_equal(n_disconnects, 1);
	assert_int_equal(ttrpc_send(kept[1], &ev.base), -EPIPE);
	for (int i = 0; i < 3; i++)
		ttrpc_reply(kept[i], NULL);
}

static void peer_goes_away_cancel_answers(void **state)
{
	answer_on_cancel = true;
	for (uint32_t i = 0; i < 50; i++)
		ask(i * 2 + 1, "StartContainer");
	settle(l);
	rawpeer_fini(&p);
	settle(l);
	assert_int_equal(n_cancelled, 50);
	assert_int_equal(n_disconnects, 1);
}

static void server_freed_inside_cancel(void **state)
{
	free_on_cancel = true;
	ask(1, "StartContainer");
	ask(3, "StartContainer");
	ask(5, "StartContainer");
	settle(l);
	rawpeer_fini(&p);
	settle(l);
	assert_null(s);
	assert_int_equal(n_cancelled, 1);
	assert_int_equal(n_disconnects, 0);
	for (int i = 0; i < 3; i++)
		ttrpc_reply(kept[i], NULL);
}

static void server_freed_inside_a_handler(void **state)
{
	struct ttrpc_frame f;

	ask(1, "StartContainer");
	ask(3, "Shutdown");
	ask(5, "ListProcesses");
	settle(l);
	assert_null(s);
	assert_false(rawpeer_recv(&p, &f));
	assert_true(p.eof);
	ttrpc_reply(kept[0], NULL);
	assert_int_equal(n_cancelled, 0);
}

/* The peer has nothing more to ask, but wants its answers. */
static void half_closed(void **state)
{
	struct ttrpc_frame f;

	ask(1, "StartContainer");
	ask(3, "ListProcesses");
	assert_int_equal(shutdown(p.fd, SHUT_WR), 0);
	(void)rawpeer_expect(&p, 3, RPC_OK);
	rawpeer_expect_nothing(&p);
	assert_int_equal(n_cancelled, 0);
	assert_int_equal(n_disconnects, 0);
	ttrpc_reply_err(kept[0], -EIO, NULL);
	(void)rawpeer_expect(&p, 1, RPC_UNKNOWN);
	/* Nothing is owed: closed. */
	assert_false(rawpeer_recv(&p, &f));
	assert_true(p.eof);
	assert_int_equal(n_disconnects, 1);
}

static void half_closed_without_calls(void **state)
{
	assert_int_equal(shutdown(p.fd, SHUT_WR), 0);
	settle(l);
	assert_int_equal(n_disconnects, 1);
}

/* Requests without reading answers: the server stops to read, then goes on, and loses nothing. */
static void slow_peer(void **state)
{
	struct ttrpc_frame f;
	uint32_t asked = 0, got = 0;

	answer_size = 2000; /* 10 kB */
	assert_int_equal(fd_set_nonblock(p.fd, true), 0);
	for (;;) {
		Agent__ListProcessesRequest req = AGENT__LIST_PROCESSES_REQUEST__INIT;
		Ttrpc__Request head = TTRPC__REQUEST__INIT;
		cleanup_buf struct buf b;
		ssize_t n;

		head.service = (char *)SVC;
		head.method = (char *)"ListProcesses";
		buf_init(&b, 1000);
		assert_int_equal(ttrpc_put_request(&b, asked * 2 + 1, 0, &head, &req.base), 0);
		n = send(p.fd, buf_data(&b), buf_len(&b), MSG_NOSIGNAL);
		if (n < 0) {
			assert_int_equal(errno, EAGAIN);
			break;
		}
		assert_int_equal(n, buf_len(&b));
		asked++;
		settle(l);
		assert_true(asked < 100000);
	}
	/* About 4 MiB of answers and what the two sockets hold. */
	assert_true(asked > 400);
	assert_int_equal(n_disconnects, 0);
	while (got < asked && rawpeer_recv(&p, &f)) {
		assert_int_equal(f.stream_id, got * 2 + 1);
		assert_true(f.len > 10000);
		got++;
	}
	assert_int_equal(got, asked);
	ask(asked * 2 + 1, "ListProcesses");
	(void)rawpeer_expect(&p, asked * 2 + 1, RPC_OK);
}

static void slow_peer_hangs_up(void **state)
{
	answer_size = 200000; /* 1 MB */
	for (uint32_t i = 0; i < 20; i++)
		ask(i * 2 + 1, "ListProcesses");
	ask(41, "StartContainer");
	settle(l);
	rawpeer_fini(&p);
	settle(l);
	assert_int_equal(n_disconnects, 1);
}

/* A stream to a peer that does not read: refused at the limit, the connection lives. */
static void slow_reader_of_a_stream(void **state)
{
	Agent__Event ev = AGENT__EVENT__INIT;
	Agent__ExitEvent ex = AGENT__EXIT_EVENT__INIT;
	static char id[100000];
	struct ttrpc_frame f;
	int sent = 0, got = 0, r;

	memset(id, 'i', sizeof(id) - 1);
	ex.id = id;
	ev.event_case = AGENT__EVENT__EVENT_EXIT;
	ev.exit = &ex;
	ask(1, "Events");
	settle(l);
	while ((r = ttrpc_send(kept[0], &ev.base)) == 0)
		assert_true(++sent < 1000);
	assert_int_equal(r, -ENOBUFS);
	assert_true((size_t)sent * sizeof(id) > TTRPC_STREAM_QUEUE_MAX);
	ttrpc_reply_err(kept[0], r, NULL);
	while (rawpeer_recv(&p, &f) && f.type == TTRPC_DATA)
		got++;
	assert_int_equal(got, sent + 3);
	assert_int_equal(f.type, TTRPC_RESPONSE);
	assert_int_equal(n_disconnects, 0);
	ask(3, "ListProcesses");
	(void)rawpeer_expect(&p, 3, RPC_OK);
}

/* Answers of open calls beyond the queue: the connection ends instead of the memory. */
static void queue_overflow(void **state)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;
	Agent__StartFailure f = AGENT__START_FAILURE__INIT;
	char *text = malloc(3 * MIB);

	memset(text, 't', 3 * MIB);
	text[3 * MIB - 1] = '\0';
	f.message = text;
	resp.failure = &f;
	for (uint32_t i = 0; i < 10; i++)
		ask(i * 2 + 1, "StartContainer");
	settle(l);
	assert_int_equal(n_kept, 10);
	for (int i = 0; i < 9; i++)
		ttrpc_reply(kept[i], &resp.base);
	/* Not from inside ttrpc_reply. */
	assert_int_equal(n_disconnects, 0);
	settle(l);
	assert_int_equal(n_disconnects, 1);
	assert_int_equal(n_cancelled, 1);
	ttrpc_reply(kept[9], &resp.base);
	free(text);
}

static void many_connections(void **state)
{
	int fds[TTRPC_CONNS_MAX], sv[2];

	/* One is there since the set-up. */
	for (unsigned i = 1; i < TTRPC_CONNS_MAX; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		assert_int_equal(ttrpc_server_add(s, sv[0]), 0);
		fds[i] = sv[1];
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(ttrpc_server_add(s, sv[0]), -ENOBUFS);
	assert_int_equal(recv(sv[1], (char[1]){ 0 }, 1, 0), 0);
	(void)close(sv[1]);
	for (unsigned i = 1; i < TTRPC_CONNS_MAX; i++)
		(void)close(fds[i]);
	settle(l);
	settle(l);
	assert_int_equal(n_disconnects, TTRPC_CONNS_MAX - 1);
}

static void listening(void **state)
{
	char dir[] = "/tmp/test_ttrpc.XXXXXX";
	cleanup_free char *path = NULL;
	struct rlimit lim, low;
	struct err e = { 0 };
	int fd = -1, c[TTRPC_CONNS_MAX + 10], n = 0;

	assert_non_null(mkdtemp(dir));
	path = str_fmt("%s/s", dir);
	assert_ok(unix_listen(path, 0600, &fd, &e), &e);
	assert_int_equal(ttrpc_server_listen(s, fd, true), 0);
	rawpeer_fini(&p);
	settle(l);
	for (; n < (int)ARRAY_SIZE(c); n++)
		assert_ok(unix_connect(path, &c[n], &e), &e);
	/* All within the limit are served; the rest waits in the backlog, without a busy loop. */
	settle(l);
	p.fd = c[0];
	p.eof = false;
	ask(1, "ListProcesses");
	(void)rawpeer_expect(&p, 1, RPC_OK);
	p.fd = c[n - 1];
	ask(1, "ListProcesses");
	rawpeer_expect_nothing(&p);
	for (int i = 1; i < 20; i++)
		(void)close(c[i]);
	(void)rawpeer_expect(&p, 1, RPC_OK);
	for (int i = 20; i < n - 1; i++)
		(void)close(c[i]);
	settle(l);
	/* Out of descriptors: looked at again later. */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
	assert_ok(unix_connect(path, &c[1], &e), &e);
	low = lim;
	low.rlim_cur = (rlim_t)c[1] + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	settle(l);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &lim), 0);
	p.fd = c[1];
	ask(1, "ListProcesses");
	assert_true(loop_once(l, 1000) > 0);
	(void)rawpeer_expect(&p, 1, RPC_OK);
	(void)close(c[0]);
	(void)close(c[n - 1]);
	assert_int_equal(remove_tree(dir, NULL), 0);
}

/* Orphans of clients that come and go are bounded, too. */
static void orphans_are_bounded(void **state)
{
	static struct ttrpc_call *all[TTRPC_SERVER_CALLS_MAX];
	size_t n = 0;

	while (n < TTRPC_SERVER_CALLS_MAX) {
		n_kept = 0;
		for (uint32_t i = 0; i < TTRPC_CALLS_MAX; i++)
			ask(i * 2 + 1, "StartContainer");
		settle(l);
		assert_int_equal(n_kept, TTRPC_CALLS_MAX);
		memcpy(all + n, kept, (size_t)n_kept * sizeof(*kept));
		n += (size_t)n_kept;
		rawpeer_fini(&p);
		settle(l);
		assert_int_equal(ttrpc_server_add(s, rawpeer_init(&p, l)), 0);
	}
	assert_int_equal(n_cancelled, TTRPC_SERVER_CALLS_MAX);
	ask(1, "StartContainer");
	(void)rawpeer_expect(&p, 1, RPC_RESOURCE_EXHAUSTED);
	ttrpc_reply(all[0], NULL);
	ask(3, "ListProcesses");
	(void)rawpeer_expect(&p, 3, RPC_OK);
	/* The server may go before them. */
	ttrpc_server_free(take_ptr(&s));
	while (n-- > 1)
		ttrpc_reply(all[n], NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(answers),
		T(out_of_order),
		T(bad_stream_ids),
		T(unknown_names),
		T(every_method_of_the_descriptor),
		T(wrong_tables),
		T(answered_twice),
		T(malformed),
		T(oversize),
		T(answer_too_large),
		T(streams),
		T(streams_from_the_client),
		T(deadlines),
		T(peer_goes_away),
		T(peer_goes_away_cancel_answers),
		T(server_freed_inside_cancel),
		T(server_freed_inside_a_handler),
		T(half_closed),
		T(half_closed_without_calls),
		T(slow_peer),
		T(slow_peer_hangs_up),
		T(slow_reader_of_a_stream),
		T(queue_overflow),
		T(many_connections),
		T(listening),
		T(orphans_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
