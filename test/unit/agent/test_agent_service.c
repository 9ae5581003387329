/*
 * The agent's answers without a guest: an agent whose disk does not exist, behind a real ttrpc
 * connection. What is refused when, requests that wait for a removal, subscribers of events.
 */
#include "test/lib/serves.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/container.h"
#include "agent/creates.h"
#include "agent/service.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"

struct answer {
	bool came;
	enum rpc_code status;
	char text[300];
};

static char dir[] = "/tmp/test_agent_service.XXXXXX";
static struct agent agent;
static struct ttrpc_service service;
static struct ttrpc_server *server;
static struct ttrpc_client *client;
static struct loop *loop;
static struct err err;
static unsigned powered_off;
static char slow_disk[64]; /* whoever opens it waits: for a writer, or to be killed */

static void on_power_off(void *arg)
{
	powered_off++;
}

static int set_up(void **state)
{
	char addr[64];
	struct agent_config cfg = { .run_dir = dir,
				    .cgroup_dir = "/no/such/cgroup",
				    .disk = "/no/such/disk",
				    .power_off = on_power_off };
	int sv[2];

	powered_off = 0;
	snprintf(addr, sizeof(addr), "%s/streams", dir);
	assert_ok(loop_new(&loop, &err), &err);
	assert_ok(unix_listen(addr, 0600, &cfg.stream_listener, &err), &err);
	assert_ok(agent_init(&agent, loop, &cfg, &err), &err);
	agent_service(&agent, &service);
	assert_ok(ttrpc_server_new(loop, &service, 1, &server, &err), &err);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(ttrpc_server_add(server, sv[0]), 0);
	assert_ok(ttrpc_client_new(loop, sv[1], NULL, NULL, &client, &err), &err);
	return 0;
}

static int tear_down(void **state)
{
	agent_fini(&agent);
	ttrpc_client_free(client);
	ttrpc_server_free(server);
	loop_free(loop);
	return 0;
}

static void turn(void)
{
	for (int i = 0; i < 30; i++)
		assert_true(loop_once(loop, 0) >= 0);
}

static void on_answer(const struct ttrpc_result *res, void *arg)
{
	struct answer *a = arg;

	assert_false(a->came); /* exactly one */
	a->came = true;
	a->status = res->status;
	if (res->code < 0)
		snprintf(a->text, sizeof(a->text), "%s", err_text(res->err));
}

static void call(const char *method, const ProtobufCMessage *req, struct answer *a)
{
	*a = (struct answer){ 0 };
	assert_int_equal(
		ttrpc_client_call(client, &agent__agent__descriptor, method, req, 0, on_answer, a),
		0);
	turn();
}

/* The call is answered at once, with this status and text. */
static void expect(const char *method, const ProtobufCMessage *req, enum rpc_code status,
		   const char *text)
{
	struct answer a;

	call(method, req, &a);
	assert_true(a.came);
	assert_int_equal(a.status, status);
	assert_text(a.text, text);
}

static void wait_answer(const struct answer *a)
{
	for (int i = 0; i < 1000 && !a->came; i++)
		assert_true(loop_once(loop, 10) >= 0);
	assert_true(a->came);
}

/* The call is answered when a worker process has done its part. */
static void expect_later(const char *method, const ProtobufCMessage *req, enum rpc_code status,
			 const char *text)
{
	struct answer a;

	call(method, req, &a);
	wait_answer(&a);
	assert_int_equal(a.status, status);
	assert_text(a.text, text);
}

/* A request that is well-formed and names the one disk at `sector`. */
struct create {
	Agent__CreateContainerRequest req;
	Agent__Rootfs root;
	Agent__Disk disk, *list[1];
	Agent__Process process;
	char *args[1];
};

static const ProtobufCMessage *create_of(struct create *c, const char *id, uint64_t sector)
{
	agent__create_container_request__init(&c->req);
	agent__rootfs__init(&c->root);
	agent__disk__init(&c->disk);
	agent__process__init(&c->process);
	c->disk.first_sector = sector;
	c->disk.sectors = 8;
	c->disk.readonly = true;
	c->disk.fstype = (char *)"ext4";
	c->list[0] = &c->disk;
	c->root.lower = c->list;
	c->root.n_lower = 1;
	c->args[0] = (char *)"sh";
	c->process.args = c->args;
	c->process.n_args = 1;
	c->req.id = (char *)id;
	c->req.rootfs = &c->root;
	c->req.process = &c->process;
	return &c->req.base;
}

static void test_methods(void **state)
{
	assert_serves_all(&service, "Events");
}

static void test_order(void **state)
{
	Agent__StartContainerRequest start = AGENT__START_CONTAINER_REQUEST__INIT;
	Agent__ListProcessesRequest list = AGENT__LIST_PROCESSES_REQUEST__INIT;
	Agent__CreateSandboxRequest sandbox = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	Agent__ShutdownRequest end = AGENT__SHUTDOWN_REQUEST__INIT;
	struct create c;

	start.id = list.id = (char *)"web";
	/* Nothing before the sandbox. */
	expect("StartContainer", &start.base, RPC_FAILED_PRECONDITION, "no sandbox yet");
	expect("ListProcesses", &list.base, RPC_FAILED_PRECONDITION, "no sandbox yet");
	expect("CreateContainer", create_of(&c, "web", 8), RPC_FAILED_PRECONDITION,
	       "no sandbox yet");
	sandbox.id = (char *)"../pod";
	expect("CreateSandbox", &sandbox.base, RPC_INVALID_ARGUMENT, "id:");
	agent.sandboxed = true;
	sandbox.id = (char *)"pod";
	expect("CreateSandbox", &sandbox.base, RPC_ALREADY_EXISTS, "there already");
	expect("StartContainer", &start.base, RPC_NOT_FOUND, "no container \"web\"");
	/* The disk is not there, so the container is not, either. */
	expect_later("CreateContainer", create_of(&c, "web", 8), RPC_NOT_FOUND,
		     "create container: root file system: /no/such/disk");
	assert_int_equal(agent.disks.slots[0].refs, 0);
	expect("ListProcesses", &list.base, RPC_NOT_FOUND, "no container \"web\"");
	c.req.id = (char *)"";
	expect("CreateContainer", &c.req.base, RPC_INVALID_ARGUMENT, "id:");
	/* Nothing after the end, which comes once. */
	agent.sandboxed = false; /* there are no cgroups to empty */
	expect("Shutdown", &end.base, RPC_OK, "");
	expect("Shutdown", &end.base, RPC_OK, "");
	expect("StartContainer", &start.base, RPC_FAILED_PRECONDITION, "shutting down");
	expect("CreateSandbox", &sandbox.base, RPC_FAILED_PRECONDITION, "shutting down");
	for (int i = 0; i < 1000 && powered_off == 0; i++)
		assert_true(loop_once(loop, 10) >= 0);
	assert_int_equal(powered_off, 1);
}

/* Life and time are no question of the pod's state: before the sandbox, and while it ends. */
static void test_ping_and_clock(void **state)
{
	Agent__PingRequest ping = AGENT__PING_REQUEST__INIT;
	Agent__SetClockRequest clock = AGENT__SET_CLOCK_REQUEST__INIT;
	int64_t before = now_real_ns();

	expect("Ping", &ping.base, RPC_OK, "");
	agent.ending = true;
	expect("Ping", &ping.base, RPC_OK, "");
	clock.realtime_ns = 0;
	expect("SetClock", &clock.base, RPC_INVALID_ARGUMENT, "realtime_ns");
	clock.realtime_ns = INT64_MIN;
	expect("SetClock", &clock.base, RPC_INVALID_ARGUMENT, "realtime_ns");
	assert_true(now_real_ns() - before < 10 * (int64_t)NS_PER_S);
}

/* Requests for a disk that is being detached wait, in their order, and no others. */
static void test_waiting(void **state)
{
	struct disk *d = &agent.disks.slots[0];
	struct answer first, second;
	struct create c;

	agent.sandboxed = true;
	*d = (struct disk){
		.refs = 1, .first_sector = 64, .sectors = 8, .readonly = true, .detaching = true
	};
	call("CreateContainer", create_of(&c, "one", 64), &first);
	call("CreateContainer", create_of(&c, "two", 64), &second);
	assert_false(first.came);
	assert_false(second.came);
	expect_later("CreateContainer", create_of(&c, "three", 8), RPC_NOT_FOUND, "/no/such/disk");
	assert_false(first.came || second.came);
	/* Some other removal is through: they wait on. */
	creates_retry(&agent);
	turn();
	assert_false(first.came || second.came);
	/* It could not be detached: they are told. */
	d->stuck = true;
	creates_retry(&agent);
	turn();
	assert_true(first.came && second.came);
	assert_int_equal(first.status, RPC_FAILED_PRECONDITION);
	assert_text(first.text, "disk 64 is in use");
	assert_null(agent.creates);
}

/* It was detached, so the next one attaches it again: here that fails, but it was tried. */
static void test_waited(void **state)
{
	struct disk *d = &agent.disks.slots[0];
	struct answer a;
	struct create c;

	agent.sandboxed = true;
	*d = (struct disk){
		.refs = 1, .first_sector = 64, .sectors = 8, .readonly = true, .detaching = true
	};
	call("CreateContainer", create_of(&c, "one", 64), &a);
	assert_false(a.came);
	disk_forget(d);
	creates_retry(&agent);
	wait_answer(&a);
	assert_int_equal(a.status, RPC_NOT_FOUND);
	assert_text(a.text, "/no/such/disk");
}

/* The end of the agent answers what waits. */
static void test_waits_at_the_end(void **state)
{
	struct answer a;
	struct create c;

	agent.sandboxed = true;
	agent.disks.slots[0] = (struct disk){
		.refs = 1, .first_sector = 64, .sectors = 8, .readonly = true, .detaching = true
	};
	call("CreateContainer", create_of(&c, "one", 64), &a);
	assert_false(a.came);
	creates_fini(&agent);
	turn();
	assert_true(a.came);
	assert_int_equal(a.status, RPC_CANCELLED);
}

static Agent__RemoveContainerRequest removal_of(const char *id)
{
	Agent__RemoveContainerRequest rm = AGENT__REMOVE_CONTAINER_REQUEST__INIT;

	rm.id = (char *)id;
	return rm;
}

/* One that waits and is removed, or whose client gave up, is never made. */
static void test_withdrawn(void **state)
{
	Agent__RemoveContainerRequest rm = removal_of("one");
	struct disk *d = &agent.disks.slots[0];
	struct answer one, two;
	struct create c;

	agent.sandboxed = true;
	*d = (struct disk){
		.refs = 1, .first_sector = 64, .sectors = 8, .readonly = true, .attaching = true
	};
	call("CreateContainer", create_of(&c, "one", 64), &one);
	assert_false(one.came);
	expect("RemoveContainer", &rm.base, RPC_OK, "");
	assert_true(one.came);
	assert_int_equal(one.status, RPC_CANCELLED);
	assert_null(agent.creates);
	expect("RemoveContainer", &rm.base, RPC_NOT_FOUND, "no container");
	two = (struct answer){ 0 };
	assert_int_equal(ttrpc_client_call(client, &agent__agent__descriptor, "CreateContainer",
					   create_of(&c, "two", 64), 50, on_answer, &two),
			 0);
	turn();
	assert_non_null(agent.creates);
	wait_answer(&two);
	assert_int_equal(two.status, RPC_DEADLINE_EXCEEDED);
	for (int i = 0; i < 100 && agent.creates; i++)
		assert_true(loop_once(loop, 10) >= 0);
	assert_null(agent.creates);
}

/* What comes for a container that is being made: a removal waits, all else is refused. */
static void test_while_creating(void **state)
{
	Agent__StartContainerRequest start = AGENT__START_CONTAINER_REQUEST__INIT;
	Agent__ListProcessesRequest list = AGENT__LIST_PROCESSES_REQUEST__INIT;
	Agent__SignalProcessRequest sig = AGENT__SIGNAL_PROCESS_REQUEST__INIT;
	Agent__RemoveContainerRequest rm = removal_of("web");
	struct answer create, removal;
	struct container *c;
	struct create req;

	agent.sandboxed = true;
	agent.disks.device = slow_disk;
	start.id = list.id = sig.id = (char *)"web";
	sig.signal = SIGKILL;
	sig.all = true;
	call("CreateContainer", create_of(&req, "web", 8), &create);
	assert_ok(container_find(&agent, "web", &c, &err), &err);
	expect("StartContainer", &start.base, RPC_FAILED_PRECONDITION, "still being created");
	expect("ListProcesses", &list.base, RPC_FAILED_PRECONDITION, "still being created");
	expect("SignalProcess", &sig.base, RPC_FAILED_PRECONDITION, "not started");
	expect("CreateContainer", create_of(&req, "web", 16), RPC_ALREADY_EXISTS, "there already");
	call("RemoveContainer", &rm.base, &removal);
	expect("RemoveContainer", &rm.base, RPC_FAILED_PRECONDITION, "is being removed");
	assert_false(create.came || removal.came);
	/* Its worker is killed: said so, nothing is left, and the removal has its answer. */
	agent.disks.device = "/no/such/disk";
	assert_int_equal(kill(c->mounter.worker.child.pid, SIGKILL), 0);
	wait_answer(&removal);
	assert_true(create.came);
	assert_text(create.text, "create container: the process that mounts the disks was killed");
	assert_int_equal(removal.status, RPC_OK);
	assert_int_equal(container_find(&agent, "web", &c, &err), -ENOENT);
	assert_int_equal(agent.disks.slots[0].refs, 0);
}

/* The end waits for no disk that is being mounted. */
static void test_end_while_creating(void **state)
{
	Agent__ShutdownRequest end = AGENT__SHUTDOWN_REQUEST__INIT;
	struct answer create;
	struct container *c;
	struct create req;

	agent.sandboxed = true;
	agent.disks.device = slow_disk;
	call("CreateContainer", create_of(&req, "web", 8), &create);
	assert_ok(container_find(&agent, "web", &c, &err), &err);
	agent.sandboxed = false; /* there are no cgroups to empty */
	agent.disks.device = "/no/such/disk";
	expect("Shutdown", &end.base, RPC_OK, "");
	for (int i = 0; i < 1000 && powered_off == 0; i++)
		assert_true(loop_once(loop, 10) >= 0);
	assert_int_equal(powered_off, 1);
	assert_false(create.came);
	assert_int_equal(kill(c->mounter.worker.child.pid, SIGKILL), 0);
	wait_answer(&create);
	assert_text(create.text, "was killed");
	assert_int_equal(container_find(&agent, "web", &c, &err), -ENOENT);
}

/* A bounded number mounts at one time; the others come in their turn. */
static void test_many_creates(void **state)
{
	static struct answer answers[AGENT_CREATES_MAX + 3];
	cleanup_fd int writer = -1;
	unsigned busy = 0;
	struct create c;
	char id[16];

	agent.sandboxed = true;
	agent.disks.device = slow_disk;
	for (unsigned i = 0; i < ARRAY_SIZE(answers); i++) {
		snprintf(id, sizeof(id), "c%u", i);
		call("CreateContainer", create_of(&c, id, 8 + 8 * i), &answers[i]);
		assert_false(answers[i].came);
	}
	for (unsigned i = 0; i < POD_CONTAINERS_MAX; i++)
		busy += agent.containers[i] != NULL;
	assert_int_equal(busy, AGENT_CREATES_MAX);
	agent.disks.device = "/no/such/disk";
	writer = open(slow_disk, O_WRONLY | O_CLOEXEC);
	assert_true(writer >= 0);
	for (unsigned i = 0; i < ARRAY_SIZE(answers); i++) {
		wait_answer(&answers[i]);
		assert_text(answers[i].text, i < busy ? "attach" : "/no/such/disk");
	}
	assert_null(agent.creates);
}

static unsigned n_events;
static uint64_t last_seq;

static void on_event(const ProtobufCMessage *msg, void *arg)
{
	const Agent__Event *ev = (const void *)msg;

	n_events++;
	assert_int_equal(ev->seq, last_seq + 1);
	last_seq = ev->seq;
}

static void subscribe(uint64_t after, struct answer *a)
{
	Agent__EventsRequest req = AGENT__EVENTS_REQUEST__INIT;

	*a = (struct answer){ 0 };
	req.after_seq = after;
	assert_int_equal(ttrpc_client_stream(client, &agent__agent__descriptor, "Events", &req.base,
					     on_event, on_answer, a),
			 0);
	turn();
}

static void test_subscribers(void **state)
{
	struct event ev = { .id = "web", .exec_id = "" };
	struct answer streams[AGENT_SUBSCRIBERS_MAX], more;

	n_events = 0;
	last_seq = 0;
	for (int i = 0; i < 3; i++)
		assert_int_equal(events_add(&agent.events, &ev), 0);
	subscribe(4, &more);
	assert_true(more.came);
	assert_int_equal(more.status, RPC_INVALID_ARGUMENT);
	/* What was, from after_seq on; then what comes. */
	last_seq = 1;
	subscribe(1, &streams[0]);
	assert_int_equal(n_events, 2);
	ev.oom = true;
	assert_int_equal(events_add(&agent.events, &ev), 0);
	turn();
	assert_int_equal(n_events, 3);
	assert_int_equal(last_seq, 4);
	for (unsigned i = 1; i < AGENT_SUBSCRIBERS_MAX; i++)
		subscribe(4, &streams[i]);
	assert_int_equal(n_events, 3);
	subscribe(4, &more);
	assert_true(more.came);
	assert_int_equal(more.status, RPC_RESOURCE_EXHAUSTED);
	/* The end of the agent is the end of the streams, and no error. */
	events_fini(&agent.events);
	turn();
	for (unsigned i = 0; i < AGENT_SUBSCRIBERS_MAX; i++) {
		assert_true(streams[i].came);
		assert_int_equal(streams[i].status, RPC_OK);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_methods, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_order, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_ping_and_clock, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waiting, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waited, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waits_at_the_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_withdrawn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_while_creating, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_end_while_creating, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many_creates, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_subscribers, set_up, tear_down),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		return 1;
	snprintf(slow_disk, sizeof(slow_disk), "%s/slow", dir);
	if (mkfifo(slow_disk, 0600) < 0)
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	(void)!remove_tree(dir, NULL);
	return failed;
}
