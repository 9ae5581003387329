/*
 * A monitor and an agent that pretend, for tests of the shim's own logic: speaks vmm.proto on
 * descriptor 3 and agent.proto on the channel of Boot. Strict about what it is told (windows must
 * not overlap, streams must be connected), and what a container does is named by its first
 * argument:
 *
 *	run N      writes "out\n" and "err\n", exits with N
 *	sleep      runs until it is signalled
 *	early N    its exit is told before its start is answered
 *	mute       exits, its output never ends (a grandchild holds it)
 *	nosuch, noexec   the start fails with ENOENT, EACCES
 *	die        the monitor exits
 *	end        the guest's kernel panics
 *	hangup     the agent's channel is closed
 *	silent     the start is never answered
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"
#include "proto/vmm.pb-c.h"

#define CONTROL_FD 3
#define TABLE 512

static struct loop *loop;
static struct ev_io control;
static struct ttrpc_server *server;
static struct ttrpc_call *events;
static uint64_t seq;
static int console = -1;

static struct {
	uint64_t first, sectors;
} windows[TABLE];

static struct {
	uint64_t id;
	int fd;
} streams[TABLE];

static struct task {
	bool used, running;
	char id[130], exec_id[130], what[32];
	uint32_t status;
	uint64_t out, err;
} tasks[TABLE];

static noreturn_fn void die(const char *why)
{
	fprintf(stderr, "fake_vmm: %s\n", why);
	exit(77);
}

static void send_packet(Vmm__Packet *p)
{
	uint8_t buf[4096];
	size_t n = vmm__packet__pack(p, buf);

	if (send(CONTROL_FD, buf, n, MSG_NOSIGNAL) < 0)
		exit(0);
}

static void ended(Vmm__EndReason reason, const char *message)
{
	Vmm__Packet p = VMM__PACKET__INIT;
	Vmm__Ended e = VMM__ENDED__INIT;

	for (size_t i = 0; i < TABLE; i++)
		fd_close(&streams[i].fd);
	e.reason = reason;
	e.message = (char *)message;
	p.body_case = VMM__PACKET__BODY_ENDED;
	p.ended = &e;
	send_packet(&p);
}

static void panic(void)
{
	static const char text[] = "[    9.1] Kernel panic - not syncing: fake\r\n";

	if (write(console, text, sizeof(text) - 1) != sizeof(text) - 1)
		die("console");
	ended(VMM__END_REASON__REBOOT, "reset");
}

/* ---- the agent ---- */

static struct task *find_task(const char *id, const char *exec_id)
{
	for (size_t i = 0; i < TABLE; i++) {
		if (tasks[i].used && str_eq(tasks[i].id, id) && str_eq(tasks[i].exec_id, exec_id))
			return &tasks[i];
	}
	return NULL;
}

static struct task *new_task(const char *id, const char *exec_id, const Agent__Process *p)
{
	for (size_t i = 0; i < TABLE; i++) {
		struct task *t = &tasks[i];

		if (t->used)
			continue;
		*t = (struct task){ .used = true,
				    .out = p->stdio->stdout_stream,
				    .err = p->stdio->stderr_stream };
		(void)snprintf(t->id, sizeof(t->id), "%s", id);
		(void)snprintf(t->exec_id, sizeof(t->exec_id), "%s", exec_id);
		(void)snprintf(t->what, sizeof(t->what), "%s", p->args[0]);
		t->status = p->n_args > 1 ? (uint32_t)strtoul(p->args[1], NULL, 10) : 0;
		return t;
	}
	die("too many tasks");
}

static int *stream_fd(uint64_t id)
{
	for (size_t i = 0; i < TABLE; i++) {
		if (id && streams[i].id == id)
			return &streams[i].fd;
	}
	return NULL;
}

static void stream_put(uint64_t id, const char *text)
{
	int *fd = stream_fd(id);

	if (id && (!fd || *fd < 0))
		die("a stream was named that is not connected");
	if (fd)
		(void)!write(*fd, text, strlen(text));
}

static void stream_end(uint64_t id)
{
	int *fd = stream_fd(id);

	if (fd)
		fd_close(fd);
}

static void task_exit(struct task *t, uint32_t status)
{
	Agent__Event ev = AGENT__EVENT__INIT;
	Agent__ExitEvent e = AGENT__EXIT_EVENT__INIT;

	t->running = false;
	if (!str_eq(t->what, "mute")) {
		stream_end(t->out);
		stream_end(t->err);
	}
	e.id = t->id;
	e.exec_id = t->exec_id;
	e.exit_status = status;
	e.oom_killed = status == 137;
	ev.seq = ++seq;
	ev.event_case = AGENT__EVENT__EVENT_EXIT;
	ev.exit = &e;
	if (!events || ttrpc_send(events, &ev.base) < 0)
		die("nobody takes events");
}

/* Requests and streams come on different sockets. */
static void on_control(struct ev_io *io, uint32_t ev);

static void start(struct task *t, struct ttrpc_call *call)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;
	Agent__StartFailure f = AGENT__START_FAILURE__INIT;

	on_control(&control, 0);
	if (str_eq(t->what, "die"))
		exit(9);
	if (str_eq(t->what, "silent"))
		return;
	if (str_eq(t->what, "nosuch") || str_eq(t->what, "noexec")) {
		f.stage = (char *)"exec";
		f.error = str_eq(t->what, "nosuch") ? ENOENT : EACCES;
		resp.failure = &f;
		stream_end(t->out);
		stream_end(t->err);
		ttrpc_reply(call, &resp.base);
		t->used = *t->exec_id == 0;
		return;
	}
	t->running = true;
	resp.pid = 100;
	if (str_eq(t->what, "early"))
		task_exit(t, t->status);
	ttrpc_reply(call, &resp.base);
	stream_put(t->out, "out\n");
	stream_put(t->err, "err\n");
	if (str_eq(t->what, "run") || str_eq(t->what, "mute"))
		task_exit(t, t->status);
	else if (str_eq(t->what, "end"))
		panic();
	else if (str_eq(t->what, "hangup"))
		ttrpc_server_free(take_ptr(&server));
}

static void on_create_sandbox(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__CreateSandboxRequest *req = (const void *)m;
	Agent__CreateSandboxResponse resp = AGENT__CREATE_SANDBOX_RESPONSE__INIT;
	struct err e = { 0 };

	if (str_eq(req->hostname, "bad")) {
		ttrpc_reply_err(call, err_set(&e, -EINVAL, "bad host name"), &e);
		return;
	}
	resp.kernel_release = (char *)"0.0-fake";
	ttrpc_reply(call, &resp.base);
}

static void check_disk(const Agent__Disk *d)
{
	on_control(&control, 0);
	for (size_t i = 0; i < TABLE; i++) {
		if (windows[i].sectors == d->sectors && windows[i].first == d->first_sector)
			return;
	}
	die("a disk was named that is not mapped");
}

static void on_create(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	static const Agent__CreateContainerResponse ok = AGENT__CREATE_CONTAINER_RESPONSE__INIT;
	const Agent__CreateContainerRequest *req = (const void *)m;
	struct err e = { 0 };

	for (size_t i = 0; i < req->rootfs->n_lower; i++)
		check_disk(req->rootfs->lower[i]);
	if (req->rootfs->upper)
		check_disk(req->rootfs->upper);
	if (str_eq(req->process->args[0], "badfs")) {
		ttrpc_reply_err(call, err_set(&e, -EINVAL, "no file system"), &e);
		return;
	}
	(void)new_task(req->id, "", req->process);
	ttrpc_reply(call, &ok.base);
}

static void on_start(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__StartContainerRequest *req = (const void *)m;

	start(find_task(req->id, ""), call);
}

static void on_exec(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__ExecProcessRequest *req = (const void *)m;

	start(new_task(req->id, req->exec_id, req->process), call);
}

static void on_signal(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	static const Agent__SignalProcessResponse ok = AGENT__SIGNAL_PROCESS_RESPONSE__INIT;
	const Agent__SignalProcessRequest *req = (const void *)m;
	struct task *t = find_task(req->id, req->exec_id);

	if (!t || !t->running) {
		ttrpc_reply_err(call, -ENOENT, NULL);
		return;
	}
	ttrpc_reply(call, &ok.base);
	for (size_t i = 0; i < TABLE; i++) {
		bool all = !*req->exec_id; /* its own pid namespace */

		if (tasks[i].used && tasks[i].running && str_eq(tasks[i].id, req->id) &&
		    (all || &tasks[i] == t))
			task_exit(&tasks[i], 128 + req->signal);
	}
}

static void on_remove(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	const Agent__RemoveContainerRequest *req = (const void *)m;
	Agent__RemoveContainerResponse resp = AGENT__REMOVE_CONTAINER_RESPONSE__INIT;
	uint64_t disks[TABLE];
	struct task *t = find_task(req->id, "");

	if (!t || t->running) {
		ttrpc_reply_err(call, t ? -EBUSY : -ENOENT, NULL);
		return;
	}
	for (size_t i = 0; i < TABLE; i++) {
		if (str_eq(tasks[i].id, req->id))
			tasks[i].used = false;
		if (windows[i].sectors)
			disks[resp.n_detached_disks++] = windows[i].first;
	}
	resp.detached_disks = disks;
	ttrpc_reply(call, &resp.base);
}

static void on_list(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	Agent__ListProcessesResponse resp = AGENT__LIST_PROCESSES_RESPONSE__INIT;
	uint32_t pids[] = { 100, 101 };

	resp.n_pids = 2;
	resp.pids = pids;
	ttrpc_reply(call, &resp.base);
}

static void on_events(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	events = call;
}

static void on_shutdown(struct ttrpc_call *call, const ProtobufCMessage *m, void *arg)
{
	static const Agent__ShutdownResponse ok = AGENT__SHUTDOWN_RESPONSE__INIT;

	ttrpc_reply(call, &ok.base);
	ended(VMM__END_REASON__POWEROFF, "");
}

static const struct ttrpc_method methods[] = {
	{ "CreateSandbox", on_create_sandbox },
	{ "CreateContainer", on_create },
	{ "StartContainer", on_start },
	{ "ExecProcess", on_exec },
	{ "SignalProcess", on_signal },
	{ "RemoveContainer", on_remove },
	{ "ListProcesses", on_list },
	{ "Events", on_events, .streams = true },
	{ "Shutdown", on_shutdown },
	{ NULL },
};

/* ---- the monitor ---- */

static void boot(int fd)
{
	static const struct ttrpc_service service = { &agent__agent__descriptor, methods, NULL };
	Vmm__Packet p = VMM__PACKET__INIT;
	Vmm__AgentConnected c = VMM__AGENT_CONNECTED__INIT;
	struct err e;

	if (ttrpc_server_new(loop, &service, 1, &server, &e) < 0 ||
	    ttrpc_server_add(server, fd) < 0)
		die("agent");
	c.agent_ready_ns = now_mono_ns();
	p.body_case = VMM__PACKET__BODY_AGENT_CONNECTED;
	p.agent_connected = &c;
	send_packet(&p);
}

static void map(const Vmm__MapWindow *w)
{
	size_t slot = TABLE;

	for (size_t i = 0; i < TABLE; i++) {
		if (!windows[i].sectors)
			slot = i;
		else if (w->first_sector < windows[i].first + windows[i].sectors &&
			 windows[i].first < w->first_sector + w->sectors)
			die("windows overlap");
	}
	windows[slot].first = w->first_sector;
	windows[slot].sectors = w->sectors;
}

static void unmap(uint64_t first)
{
	for (size_t i = 0; i < TABLE; i++) {
		if (windows[i].sectors && windows[i].first == first) {
			windows[i].sectors = 0;
			return;
		}
	}
	die("unmap of what is not mapped");
}

static void connect_stream(int fd)
{
	uint64_t id = 0;

	if (read(fd, &id, 8) != 8 || !id || stream_fd(id))
		die("stream without a good id");
	for (size_t i = 0; i < TABLE; i++) {
		if (streams[i].fd < 0) {
			streams[i].id = id;
			streams[i].fd = fd;
			return;
		}
	}
	die("too many streams");
}

static void handle(Vmm__Request *req, int fd)
{
	Vmm__Packet p = VMM__PACKET__INIT;
	Vmm__InfoReply info = VMM__INFO_REPLY__INIT;

	p.id = req->id;
	if (req->request_case == VMM__REQUEST__REQUEST_INFO) {
		info.backend = (char *)"fake";
		info.qemu_pid = (uint32_t)getppid(); /* a lie: it is the shim */
		p.body_case = VMM__PACKET__BODY_INFO;
		p.info = &info;
	}
	send_packet(&p);
	switch (req->request_case) {
	case VMM__REQUEST__REQUEST_BOOT:
		boot(fd);
		break;
	case VMM__REQUEST__REQUEST_MAP_WINDOW:
		map(req->map_window);
		fd_close(&fd);
		break;
	case VMM__REQUEST__REQUEST_UNMAP_WINDOW:
		unmap(req->unmap_window->first_sector);
		break;
	case VMM__REQUEST__REQUEST_CONNECT_VSOCK:
		connect_stream(fd);
		break;
	case VMM__REQUEST__REQUEST_KILL:
		ended(VMM__END_REASON__KILLED, "");
		break;
	default:
		break;
	}
}

static void on_control(struct ev_io *io, uint32_t ev)
{
	for (;;) {
		uint8_t buf[VMCTL_PACKET_MAX];
		size_t n_fds = 0;
		int fds[2] = { -1, -1 };
		ssize_t n =
			fdpass_receive(CONTROL_FD, buf, sizeof(buf), fds, 2, &n_fds, MSG_DONTWAIT);
		Vmm__Request *req;

		if (n == -EAGAIN)
			return;
		if (n < 0)
			die("receive");
		if (n == 0)
			exit(0);
		req = vmm__request__unpack(NULL, (size_t)n, buf);
		if (!req)
			die("malformed request");
		if (req->request_case == VMM__REQUEST__REQUEST_BOOT)
			console = fds[1];
		else if (n_fds > 1)
			die("too many descriptors");
		handle(req, fds[0]);
		vmm__request__free_unpacked(req, NULL);
	}
}

int main(void)
{
	struct err e = { 0 };

	(void)signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < TABLE; i++)
		streams[i].fd = -1;
	if (loop_new(&loop, &e) < 0 ||
	    ev_io_add(loop, &control, CONTROL_FD, EPOLLIN, on_control, NULL) < 0)
		die("loop");
	return loop_run(loop);
}
