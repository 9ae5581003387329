#include "test/lib/shim/fake_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/limits.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "proto/vmm.pb-c.h"
#include "test/lib/unit.h"

#define WINDOWS 300
#define STREAMS 64
#define HELD 16

struct fake_vm fake;

struct vm {
	const struct vm_ops *ops;
	void *arg;
	struct vmctl *ctl;
	bool ctl_dead;
	struct vm_info info;
};

static struct loop *loop;
static struct vm *the_vm;
static struct ev_timer end_timer;
static char end_why[200];

/* The monitor. */
static struct ev_io control_io;
static int control = -1;
static struct {
	uint64_t first, sectors;
} windows[WINDOWS];
static struct {
	uint64_t id;
	int fd;
} streams[STREAMS];

/* The agent. */
static struct ttrpc_server *server;
static struct ttrpc_call *events;
static uint64_t seq;
static struct {
	uint64_t first;
	char id[40]; /* of the container that has it attached, "" = free */
} disks[WINDOWS];
static struct {
	struct ttrpc_call *call;
	bool starts; /* its answer is a StartContainerResponse */
} held[HELD];
static unsigned n_held;

/* ---- the agent ---- */

static void note(const char *method, const char *id, const char *exec_id)
{
	size_t n = strlen(fake.asked);

	(void)snprintf(fake.asked + n, sizeof(fake.asked) - n, "%s%s%s%s%s%s%s", n ? " " : "",
		       method, id ? "(" : "", id ? id : "", exec_id ? "," : "",
		       exec_id ? exec_id : "", id ? ")" : "");
}

/* True: the call is answered, or kept. */
static bool special(struct ttrpc_call *call, const char *method, bool starts)
{
	struct err err = { 0 };

	if (str_eq(fake.refuse, method)) {
		(void)err_set(&err, -EINVAL, "refused");
		ttrpc_reply_err(call, -EINVAL, &err);
		return true;
	}
	if (!str_eq(fake.hold, method))
		return false;
	assert_true(n_held < HELD);
	held[n_held].call = call;
	held[n_held++].starts = starts;
	return true;
}

static void answer_start(struct ttrpc_call *call)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;

	resp.pid = 100;
	ttrpc_reply(call, &resp.base);
}

static void answer_empty(struct ttrpc_call *call)
{
	/* All of the agent's other answers may be empty. */
	static const Agent__CreateContainerResponse empty = AGENT__CREATE_CONTAINER_RESPONSE__INIT;

	ttrpc_reply(call, &empty.base);
}

static void agent_on_create_sandbox(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__CreateSandboxRequest *req = (const void *)m;
	Agent__CreateSandboxResponse resp = AGENT__CREATE_SANDBOX_RESPONSE__INIT;

	note("CreateSandbox", NULL, NULL);
	(void)snprintf(fake.hosts, sizeof(fake.hosts), "%s", req->hosts);
	(void)snprintf(fake.resolv_conf, sizeof(fake.resolv_conf), "%s", req->resolv_conf);
	(void)snprintf(fake.hostname, sizeof(fake.hostname), "%s", req->hostname);
	if (special(call, "CreateSandbox", false))
		return;
	resp.kernel_release = (char *)"6.0-fake";
	ttrpc_reply(call, &resp.base);
}

static void attach(const char *id, const Agent__Disk *d)
{
	bool mapped = false;
	size_t slot = WINDOWS;

	for (size_t i = 0; i < WINDOWS; i++) {
		mapped |= windows[i].sectors == d->sectors && windows[i].first == d->first_sector;
		if (!*disks[i].id)
			slot = i;
	}
	if (!mapped)
		fail_msg("a disk was named that is not mapped");
	assert_true(slot < WINDOWS);
	disks[slot].first = d->first_sector;
	(void)snprintf(disks[slot].id, sizeof(disks[slot].id), "%s", id);
}

static bool attached(uint64_t first)
{
	for (size_t i = 0; i < WINDOWS; i++) {
		if (*disks[i].id && disks[i].first == first)
			return true;
	}
	return false;
}

static void take_process(const Agent__Process *p)
{
	fake.in = p->stdio->stdin_stream;
	fake.out = p->stdio->stdout_stream;
	fake.err = p->stdio->stderr_stream;
}

static void agent_on_create_container(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__CreateContainerRequest *req = (const void *)m;

	note("CreateContainer", req->id, NULL);
	for (size_t i = 0; i < req->rootfs->n_lower; i++)
		attach(req->id, req->rootfs->lower[i]);
	if (req->rootfs->upper)
		attach(req->id, req->rootfs->upper);
	take_process(req->process);
	if (!special(call, "CreateContainer", false))
		answer_empty(call);
}

static void agent_on_start_container(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__StartContainerRequest *req = (const void *)m;

	note("StartContainer", req->id, NULL);
	if (!special(call, "StartContainer", true))
		answer_start(call);
}

static void agent_on_exec(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__ExecProcessRequest *req = (const void *)m;

	note("ExecProcess", req->id, req->exec_id);
	take_process(req->process);
	if (!special(call, "ExecProcess", true))
		answer_start(call);
}

static void agent_on_signal(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__SignalProcessRequest *req = (const void *)m;

	note(req->all ? "SignalAll" : "SignalProcess", req->id, req->exec_id);
	if (!special(call, "SignalProcess", false))
		answer_empty(call);
}

static void agent_on_remove(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__RemoveContainerRequest *req = (const void *)m;
	Agent__RemoveContainerResponse resp = AGENT__REMOVE_CONTAINER_RESPONSE__INIT;
	uint64_t detached[WINDOWS];

	note("RemoveContainer", req->id, NULL);
	if (special(call, "RemoveContainer", false))
		return;
	for (size_t i = 0; i < WINDOWS && !fake.keep_disks; i++) {
		if (!str_eq(disks[i].id, req->id))
			continue;
		disks[i].id[0] = 0;
		if (!attached(disks[i].first))
			detached[resp.n_detached_disks++] = disks[i].first;
	}
	resp.detached_disks = detached;
	ttrpc_reply(call, &resp.base);
}

static void agent_on_events(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	events = call;
}

static void agent_on_shutdown(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	note("Shutdown", NULL, NULL);
	if (special(call, "Shutdown", false))
		return;
	answer_empty(call);
	if (!fake.no_shutdown)
		fake_end("");
}

static void agent_on_ping(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	fake.pings++;
	if (!special(call, "Ping", false))
		answer_empty(call);
}

static void agent_on_set_clock(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__SetClockRequest *req = (const void *)m;

	fake.clocks++;
	fake.clock_ns = req->realtime_ns;
	if (!special(call, "SetClock", false))
		answer_empty(call);
}

static void agent_on_set_disk_room(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__SetDiskRoomRequest *req = (const void *)m;

	fake.rooms++;
	fake.disk_full = req->full;
	if (!special(call, "SetDiskRoom", false))
		answer_empty(call);
}

static const struct ttrpc_method methods[] = {
	{ "SetDiskRoom", agent_on_set_disk_room },
	{ "Ping", agent_on_ping },
	{ "SetClock", agent_on_set_clock },
	{ "CreateSandbox", agent_on_create_sandbox },
	{ "CreateContainer", agent_on_create_container },
	{ "StartContainer", agent_on_start_container },
	{ "ExecProcess", agent_on_exec },
	{ "SignalProcess", agent_on_signal },
	{ "RemoveContainer", agent_on_remove },
	{ "Events", agent_on_events, true },
	{ "Shutdown", agent_on_shutdown },
	{ NULL },
};

static const struct ttrpc_service service = { &agent__agent__descriptor, methods, NULL };

static struct ttrpc_call *take_held(bool *ret_starts)
{
	struct ttrpc_call *call = held[0].call;

	assert_true(n_held > 0);
	*ret_starts = held[0].starts;
	memmove(&held[0], &held[1], --n_held * sizeof(held[0]));
	return call;
}

void fake_answer(void)
{
	bool starts;
	struct ttrpc_call *call = take_held(&starts);

	if (starts)
		answer_start(call);
	else
		answer_empty(call);
}

void fake_answer_error(int code, const char *msg)
{
	struct err err = { 0 };
	bool starts;

	(void)err_set(&err, code, "%s", msg);
	ttrpc_reply_err(take_held(&starts), code, &err);
}

void fake_answer_failure(const char *stage, int error)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;
	Agent__StartFailure f = AGENT__START_FAILURE__INIT;
	bool starts;
	struct ttrpc_call *call = take_held(&starts);

	assert_true(starts);
	f.stage = (char *)stage;
	f.error = error;
	resp.failure = &f;
	ttrpc_reply(call, &resp.base);
}

unsigned fake_held(void)
{
	return n_held;
}

static void send_event(Agent__Event *ev)
{
	assert_non_null(events);
	ev->seq = ++seq;
	assert_int_equal(ttrpc_send(events, &ev->base), 0);
}

void fake_exit(const char *id, const char *exec_id, uint32_t status, bool oom_killed)
{
	Agent__Event ev = AGENT__EVENT__INIT;
	Agent__ExitEvent e = AGENT__EXIT_EVENT__INIT;

	e.id = (char *)id;
	e.exec_id = (char *)exec_id;
	e.exit_status = status;
	e.oom_killed = oom_killed;
	ev.event_case = AGENT__EVENT__EVENT_EXIT;
	ev.exit = &e;
	send_event(&ev);
}

void fake_oom(const char *id)
{
	Agent__Event ev = AGENT__EVENT__INIT;
	Agent__OomEvent e = AGENT__OOM_EVENT__INIT;

	e.id = (char *)id;
	ev.event_case = AGENT__EVENT__EVENT_OOM;
	ev.oom = &e;
	send_event(&ev);
}

void fake_lose_event(void)
{
	seq++;
}

/* Calls that were not answered end with the server, as those of a guest that died. */
static void agent_stop(void)
{
	bool starts;

	ttrpc_server_free(take_ptr(&server));
	if (events)
		ttrpc_reply(take_ptr(&events), NULL);
	while (n_held)
		ttrpc_reply_err(take_held(&starts), -ECONNRESET, NULL);
}

void fake_hang_up(void)
{
	agent_stop();
}

/* ---- the monitor ---- */

static void map(const Vmm__MapWindow *w)
{
	size_t slot = WINDOWS;

	for (size_t i = 0; i < WINDOWS; i++) {
		if (!windows[i].sectors)
			slot = i;
		else if (w->first_sector < windows[i].first + windows[i].sectors &&
			 windows[i].first < w->first_sector + w->sectors)
			fail_msg("windows overlap");
	}
	windows[slot].first = w->first_sector;
	windows[slot].sectors = w->sectors;
	fake.mapped++;
}

/* 0, or an errno. */
static int unmap(uint64_t first)
{
	if (fake.refuse_unmap)
		return EBUSY;
	for (size_t i = 0; i < WINDOWS; i++) {
		if (windows[i].sectors && windows[i].first == first) {
			windows[i].sectors = 0;
			fake.unmapped++;
			return 0;
		}
	}
	fake.unmap_missed++;
	return ENOENT;
}

static int *stream_of(uint64_t id)
{
	for (size_t i = 0; i < STREAMS; i++) {
		if (streams[i].id == id)
			return &streams[i].fd;
	}
	return NULL;
}

static void connect_stream(int *fd)
{
	uint64_t id = 0;

	assert_int_equal(read(*fd, &id, sizeof(id)), sizeof(id));
	assert_true(id && !stream_of(id));
	for (size_t i = 0; i < STREAMS; i++) {
		if (streams[i].id)
			continue;
		streams[i].id = id;
		streams[i].fd = take_fd(fd);
		return;
	}
	fail_msg("too many streams");
}

int fake_stream(uint64_t id)
{
	int *fd = id ? stream_of(id) : NULL;

	return fd ? *fd : -1;
}

void fake_stream_close(uint64_t id)
{
	int *fd = id ? stream_of(id) : NULL;

	if (fd)
		fd_close(fd);
}

static void handle(const Vmm__Request *req, int *fd)
{
	Vmm__Packet p = VMM__PACKET__INIT;
	uint8_t packed[200];

	p.id = req->id;
	switch (req->request_case) {
	case VMM__REQUEST__REQUEST_MAP_WINDOW:
		if (fake.refuse_map)
			p.error = ENOSPC;
		else
			map(req->map_window);
		break;
	case VMM__REQUEST__REQUEST_UNMAP_WINDOW:
		p.error = unmap(req->unmap_window->first_sector);
		break;
	case VMM__REQUEST__REQUEST_CONNECT_VSOCK:
		assert_int_equal(req->connect_vsock->port, VSOCK_STREAM_PORT);
		connect_stream(fd);
		break;
	case VMM__REQUEST__REQUEST_INFO:
		fake.infos++;
		break;
	default:
		fail_msg("a request that only vm.c makes");
	}
	assert_true(send(control, packed, vmm__packet__pack(&p, packed), MSG_NOSIGNAL) > 0);
}

static void monitor_on_control(struct ev_io *io, uint32_t ev)
{
	uint8_t buf[VMCTL_PACKET_MAX];
	Vmm__Request *req;
	size_t n_fds = 0;
	int fd = -1;
	ssize_t n = fdpass_receive(control, buf, sizeof(buf), &fd, 1, &n_fds, MSG_DONTWAIT);

	if (n <= 0) {
		ev_io_del(&control_io);
		return;
	}
	req = vmm__request__unpack(NULL, (size_t)n, buf);
	assert_non_null(req);
	handle(req, &fd);
	fd_close(&fd);
	vmm__request__free_unpacked(req, NULL);
}

void fake_disk_room(bool full)
{
	Vmm__DiskRoom room = VMM__DISK_ROOM__INIT;

	room.full = full;
	the_vm->ops->disk_room(&room, the_vm->arg);
}

void fake_monitor_deaf(bool deaf)
{
	assert_int_equal(ev_io_set(&control_io, deaf ? 0 : EPOLLIN), 0);
}

/* ---- vm.h ---- */

static void vm_on_event(const Vmm__Packet *p, void *arg)
{
}

static void vm_on_closed(int code, const struct err *err, void *arg)
{
	struct vm *vm = arg;

	vm->ctl_dead = true;
}

int vm_start(struct loop *l, const struct vm_config *cfg, const struct vm_ops *ops, void *arg,
	     struct vm **ret, int *ret_agent_fd, struct err *err)
{
	static const struct vmctl_ops ctl_ops = { .event = vm_on_event, .closed = vm_on_closed };
	int sv[2], agent[2];
	struct vm *vm;

	assert_null(the_vm);
	fake.config = *cfg;
	fake.oom_score = cfg->oom_score_adj;
	fake.console = cfg->console_fd < 0 ? -1 : fcntl(cfg->console_fd, F_DUPFD_CLOEXEC, 3);
	if (fake.start_error)
		return err_set(err, fake.start_error, "no monitor today");
	vm = calloc(1, sizeof(*vm));
	assert_non_null(vm);
	vm->ops = ops;
	vm->arg = arg;
	vm->info.pid = 4242;
	(void)snprintf(vm->info.backend, sizeof(vm->info.backend), "fake");
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, agent), 0);
	assert_int_equal(vmctl_new(l, sv[0], &ctl_ops, vm, &vm->ctl, err), 0);
	control = sv[1];
	assert_int_equal(ev_io_add(l, &control_io, control, EPOLLIN, monitor_on_control, NULL), 0);
	assert_int_equal(ttrpc_server_new(l, &service, 1, &server, err), 0);
	if (fake.no_channel)
		fd_close(&agent[1]);
	else
		assert_int_equal(ttrpc_server_add(server, agent[1]), 0);
	*ret_agent_fd = agent[0];
	the_vm = vm;
	*ret = vm;
	return 0;
}

struct vmctl *vm_ctl(const struct vm *vm)
{
	return vm->ctl_dead ? NULL : vm->ctl;
}

const struct vm_info *vm_info(const struct vm *vm)
{
	return &vm->info;
}

/* The guest and the monitor are gone; the shim learns it. */
static void vm_on_end_timer(struct ev_timer *t)
{
	struct vm *vm = the_vm;

	agent_stop();
	vm->ops->ended(end_why, vm->arg);
}

void fake_end(const char *why)
{
	if (!*end_why)
		(void)snprintf(end_why, sizeof(end_why), "%s", why);
	assert_int_equal(ev_timer_add(loop, &end_timer, 0, vm_on_end_timer, NULL), 0);
}

void vm_kill(struct vm *vm, const char *why)
{
	assert_ptr_equal(vm, the_vm);
	(void)snprintf(fake.killed, sizeof(fake.killed), "%s", why);
	fake_end(why);
}

void vm_set_oom_score(struct vm *vm, int score)
{
	fake.oom_score = score;
}

void vm_expect_end(struct vm *vm)
{
	fake.end_expected = true;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	assert_ptr_equal(vm, the_vm);
	ev_timer_del(&end_timer);
	ev_io_del(&control_io);
	agent_stop();
	vmctl_free(vm->ctl);
	fd_close(&control);
	memset(windows, 0, sizeof(windows));
	memset(disks, 0, sizeof(disks));
	for (size_t i = 0; i < STREAMS; i++) {
		fd_close(&streams[i].fd);
		streams[i].id = 0;
	}
	free(vm);
	the_vm = NULL;
	end_why[0] = 0;
}

void fake_vm_init(struct loop *l)
{
	loop = l;
	seq = 0;
	fake = (struct fake_vm){ .killed = "-", .console = -1 };
	for (size_t i = 0; i < STREAMS; i++)
		streams[i].fd = -1;
}

void fake_vm_fini(void)
{
	fd_close(&fake.console);
	assert_null(the_vm);
}
