/* Every allocation of base's buffers, files and ttrpc fails once. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/pb.h"
#include "base/process.h"
#include "base/ttrpc/ttrpc.h"
#include "base/ttrpc/codec.h"
#include "base/util.h"
#include "base/waits.h"
#include "proto/agent.pb-c.h"
#include "test/lib/torture.h"

static int buffers(void *arg)
{
	cleanup_buf struct buf b;
	cleanup_free char *s = NULL;
	uint8_t big[5000] = { 0 };
	int r;

	buf_init(&b, 64 * KIB);
	for (int i = 0; i < 5; i++) {
		r = buf_put(&b, big, sizeof(big));
		if (r < 0) {
			/* Nothing was appended. */
			assert_int_equal(buf_len(&b), (size_t)i * sizeof(big));
			return r;
		}
	}
	r = buf_printf(&b, "%04000d", 1);
	if (r < 0)
		return r;
	s = buf_take_str(&b);
	if (!s)
		return -ENOMEM;
	s = (free(s), buf_take_str(&b));
	return s ? 0 : -ENOMEM;
}

static int files(void *arg)
{
	cleanup_free char *dir = NULL, *path = NULL, *text = NULL;
	struct err e = { 0 };
	int r;

	dir = str_fmt("/tmp/test_torture.%d/a/b", (int)getpid());
	path = dir ? str_fmt("%s/file", dir) : NULL;
	if (!path)
		return -ENOMEM;
	r = mkdir_p(dir, 0700, &e);
	if (r == 0)
		r = write_file_atomic(path, "0123456789", 10, 0600, true, &e);
	if (r == 0)
		r = read_file(path, 100, &text, NULL, &e);
	if (r == 0)
		assert_string_equal(text, "0123456789");
	return r;
}

static int codec(void *arg)
{
	Agent__CreateSandboxRequest req = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	Agent__StartFailure detail = AGENT__START_FAILURE__INIT;
	Ttrpc__Request head = TTRPC__REQUEST__INIT;
	cleanup_pb_arena struct pb_arena a;
	struct ttrpc_decoder d = { 0 };
	cleanup_buf struct buf b;
	struct ttrpc_frame f;
	ProtobufCMessage *m;
	char hosts[3000];
	size_t before;
	int r;

	memset(hosts, 'h', sizeof(hosts));
	hosts[sizeof(hosts) - 1] = '\0';
	req.hosts = hosts;
	detail.message = hosts;
	buf_init(&b, TTRPC_FRAME_MAX);
	pb_arena_init(&a, 1 * MIB);
	for (uint32_t i = 1; i < 9; i += 2) {
		before = buf_len(&b);
		r = ttrpc_put_request(&b, i, 0, &head, &req.base);
		if (r == 0)
			r = ttrpc_put_status(&b, i, RPC_UNKNOWN, "x", "y", &detail.base);
		if (r < 0) {
			assert_true(buf_len(&b) == before || buf_len(&b) > before + 3000);
			return r;
		}
	}
	while (ttrpc_decode(&d, &b, &f)) {
		m = NULL;
		r = pb_unpack(&a,
			      f.type == TTRPC_REQUEST ? &ttrpc__request__descriptor
						      : &ttrpc__response__descriptor,
			      f.payload, f.len, &m);
		if (r < 0) {
			assert_null(m);
			return r;
		}
	}
	return 0;
}

static void on_wait(void *arg, int code, const struct err *err)
{
	*(int *)arg += code;
}

static int small_modules(void *arg)
{
	Agent__CreateSandboxRequest req = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	cleanup_free char *path = NULL, *given = NULL;
	struct waits w = { 0 };
	struct err err = { 0 };
	ProtobufCMessage *copy;
	int r, sum = 0, added = 0;

	req.hosts = (char *)"127.0.0.1 localhost";
	copy = pb_clone(&req.base);
	if (!copy)
		return -ENOMEM;
	protobuf_c_message_free_unpacked(copy, NULL);
	r = program_path(NULL, "husk-vmm", &path, &err);
	if (r == 0)
		r = program_path("/given", "husk-vmm", &given, &err);
	if (r < 0)
		assert_string_equal(err_text(&err), "out of memory");
	for (int i = 0; r == 0 && i < 3; i++) {
		r = waits_add(&w, on_wait, &sum);
		added += r == 0;
	}
	/* Those that were added are called, whatever came after them. */
	waits_run(&w, 1, NULL);
	assert_int_equal(sum, added);
	return r;
}

/* ---- a whole conversation ---- */

struct talk {
	struct loop *loop;
	int done, data, closed, last;
};

static void list(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__ListProcessesResponse resp = AGENT__LIST_PROCESSES_RESPONSE__INIT;
	uint32_t pids[2000] = { 0 };

	resp.pids = pids;
	resp.n_pids = ARRAY_SIZE(pids);
	ttrpc_reply(call, &resp.base);
}

static void events(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	Agent__Event ev = AGENT__EVENT__INIT;
	struct err e = { 0 };

	for (ev.seq = 1; ev.seq < 4; ev.seq++) {
		int r = ttrpc_send(call, &ev.base);

		if (r < 0)
			return ttrpc_reply_err(call, err_set(&e, r, "send"), &e);
	}
	ttrpc_reply(call, NULL);
}

static void on_data(const ProtobufCMessage *msg, void *arg)
{
	((struct talk *)arg)->data++;
}

static void on_done(const struct ttrpc_result *res, void *arg)
{
	struct talk *t = arg;

	t->done++;
	/* Out of memory at the other side, or here, or the connection went for it. */
	if (res->code < 0)
		t->last = res->code;
}

static void on_close(void *arg)
{
	((struct talk *)arg)->closed++;
}

static int conversation(void *arg)
{
	Agent__ListProcessesRequest lreq = AGENT__LIST_PROCESSES_REQUEST__INIT;
	Agent__EventsRequest ereq = AGENT__EVENTS_REQUEST__INIT;
	const ProtobufCServiceDescriptor *desc = &agent__agent__descriptor;
	const struct ttrpc_method methods[] = {
		{ "ListProcesses", list },
		{ "Events", events, .streams = true },
		{ NULL },
	};
	const struct ttrpc_service svc = { desc, methods, NULL };
	struct ttrpc_server *s = NULL;
	struct ttrpc_client *c = NULL;
	struct talk t = { 0 };
	int sv[2] = { -1, -1 }, r, calls = 0;
	struct err e = { 0 };

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	r = loop_new(&t.loop, &e);
	if (r == 0)
		r = ttrpc_server_new(t.loop, &svc, 1, &s, &e);
	if (r == 0)
		r = ttrpc_server_add(s, take_fd(&sv[0]));
	if (r == 0)
		r = ttrpc_client_new(t.loop, take_fd(&sv[1]), on_close, &t, &c, &e);
	if (r == 0)
		r = ttrpc_client_set_metadata(c, "k", "v");
	if (r == 0)
		r = ttrpc_client_call(c, desc, "ListProcesses", &lreq.base, 1000, on_done, &t);
	calls += r == 0 && c;
	if (r == 0)
		r = ttrpc_client_stream(c, desc, "Events", &ereq.base, on_data, on_done, &t);
	calls += r == 0 && calls;
	while (t.loop && loop_once(t.loop, 0) > 0)
		;
	/* Whatever failed: each call had its one end. */
	assert_int_equal(t.done, calls);
	if (r == 0 && t.last == 0)
		assert_int_equal(t.data, 3);
	if (r == 0 && !torture_failed())
		r = t.last;
	ttrpc_client_free(c);
	ttrpc_server_free(s);
	loop_free(t.loop);
	fd_close(&sv[0]);
	fd_close(&sv[1]);
	return r;
}

static void torture_buffers(void **state)
{
	assert_true(torture(buffers, NULL, true, 100) > 4);
}

static void torture_files(void **state)
{
	cleanup_free char *dir = str_fmt("/tmp/test_torture.%d", (int)getpid());

	assert_true(torture(files, NULL, true, 100) > 4);
	assert_int_equal(remove_tree(dir, NULL), 0);
}

static void torture_codec(void **state)
{
	assert_true(torture(codec, NULL, true, 200) > 4);
}

static void torture_small_modules(void **state)
{
	assert_true(torture(small_modules, NULL, true, 100) > 6);
}

static void torture_conversation(void **state)
{
	unsigned runs = torture(conversation, NULL, true, 500);

	assert_true(runs > 10);
	print_message("%u allocations failed in turn\n", runs - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(torture_buffers),	cmocka_unit_test(torture_files),
		cmocka_unit_test(torture_codec),	cmocka_unit_test(torture_small_modules),
		cmocka_unit_test(torture_conversation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
