/* The task service: containerd.task.v2.Task and v3.Task, whose messages are the same on the wire
 * and in memory. Handlers use the types of v2 for both. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "shim/shim.h"

#define SAME(type)                                                                                 \
	_Static_assert(sizeof(TaskV2__##type) == sizeof(TaskV3__##type),                           \
		       "task v2 and v3 differ in " #type)
SAME(StateRequest);
SAME(CreateTaskRequest);
SAME(StartRequest);
SAME(DeleteRequest);
SAME(PidsRequest);
SAME(KillRequest);
SAME(ExecProcessRequest);
SAME(ResizePtyRequest);
SAME(CloseIORequest);
SAME(WaitRequest);
SAME(ConnectRequest);
SAME(ShutdownRequest);

static const Wkt__Empty empty = WKT__EMPTY__INIT;

/* NULL: the call has been answered. */
static struct proc *find(struct shim *s, const char *id, const char *exec_id,
			 struct ttrpc_call *call)
{
	struct err e = { 0 };
	struct proc *p = container_proc(s, id, exec_id, &e);

	if (!p)
		ttrpc_reply_err(call, -ENOENT, &e);
	return p;
}

static void refuse(struct ttrpc_call *call, int code, const char *why)
{
	struct err e = { 0 };

	(void)err_set(&e, code, "%s", why);
	ttrpc_reply_err(call, code, &e);
}

static Task__Status status_of(const struct proc *p)
{
	switch (p->state) {
	case PROC_CREATED:
	case PROC_STARTING:
		return TASK__STATUS__CREATED;
	case PROC_RUNNING:
		return TASK__STATUS__RUNNING;
	case PROC_STOPPED:
		return TASK__STATUS__STOPPED;
	default:
		return TASK__STATUS__UNKNOWN;
	}
}

static void on_state(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__StateRequest *req = (const void *)msg;
	TaskV2__StateResponse resp = TASK_V2__STATE_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (!p)
		return;
	resp.id = p->c->id;
	resp.bundle = p->c->bundle;
	resp.pid = sandbox_pid(arg);
	resp.status = status_of(p);
	resp.stdin = p->uri[0];
	resp.stdout = p->uri[1];
	resp.stderr = p->uri[2];
	resp.terminal = p->terminal;
	resp.exec_id = p->exec_id;
	if (p->state == PROC_STOPPED) {
		resp.exit_status = p->exit_status;
		pb_timestamp_set(&ts, p->exited_at);
		resp.exited_at = &ts;
	}
	ttrpc_reply(call, &resp.base);
}

static void on_create(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	container_create(arg, (const void *)msg, call);
}

static void on_start(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__StartRequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (p)
		proc_start(p, call);
}

static void on_delete(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__DeleteRequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (!p)
		return;
	if (*p->exec_id)
		proc_delete_exec(p, call);
	else
		container_delete(p->c, call);
}

static void on_pids_answer(const struct ttrpc_result *res, void *arg)
{
	enum { PIDS_SHOWN_MAX = 4096 };
	TaskV2__PidsResponse resp = TASK_V2__PIDS_RESPONSE__INIT;
	const Agent__ListProcessesResponse *list = (const void *)res->resp;
	Task__ProcessInfo *infos;
	struct ttrpc_call *call = arg;
	size_t n;

	if (res->code < 0) {
		ttrpc_reply_err(call, res->code, res->err);
		return;
	}
	n = MIN_OF(list->n_pids, (size_t)PIDS_SHOWN_MAX);
	infos = calloc(n + 1, sizeof(*infos));
	resp.processes = calloc(n + 1, sizeof(*resp.processes));
	if (infos && resp.processes) {
		for (size_t i = 0; i < n; i++) {
			task__process_info__init(&infos[i]);
			infos[i].pid = list->pids[i];
			resp.processes[i] = &infos[i];
		}
		resp.n_processes = n;
		ttrpc_reply(call, &resp.base);
	} else {
		ttrpc_reply_err(call, -ENOMEM, NULL);
	}
	free(resp.processes);
	free(infos);
}

/* Process numbers in the guest. */
static void on_pids(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__PidsRequest *req = (const void *)msg;
	TaskV2__PidsResponse none = TASK_V2__PIDS_RESPONSE__INIT;
	struct shim *s = arg;
	struct proc *p = find(s, req->id, "", call);
	int r;

	if (!p)
		return;
	if (!s->sandbox.agent || p->state != PROC_RUNNING) {
		ttrpc_reply(call, &none.base);
		return;
	}
	r = agent_list_processes(s->sandbox.agent, req->id, on_pids_answer, call);
	if (r < 0)
		ttrpc_reply_err(call, r, NULL);
}

/* An Empty answer for a call that was passed on to the agent. */
static void on_passed(const struct ttrpc_result *res, void *arg)
{
	if (res->code < 0)
		ttrpc_reply_err(arg, res->code, res->err);
	else
		ttrpc_reply(arg, &empty.base);
}

static void on_kill(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__KillRequest *req = (const void *)msg;
	struct shim *s = arg;
	struct proc *p = find(s, req->id, req->exec_id, call);
	int r;

	if (!p)
		return;
	if (req->signal > 64) {
		refuse(call, -EINVAL, "no such signal");
	} else if (p->state == PROC_STOPPED) {
		refuse(call, -ENOENT, "the process has exited already");
	} else if (p->state == PROC_CREATED) {
		/* Nothing runs yet; signals that end a process by default end this one. */
		if (req->signal != 9 && req->signal != 15 && req->signal != 2) {
			refuse(call, -EBUSY, "the process was not started");
			return;
		}
		proc_exit(p, 128 + req->signal, false, NULL);
		ttrpc_reply(call, &empty.base);
	} else if (!s->sandbox.agent) {
		refuse(call, -ENOENT, "the VM has ended");
	} else {
		r = agent_signal(s->sandbox.agent, req->id, req->exec_id, req->signal, req->all,
				 on_passed, call);
		if (r < 0)
			ttrpc_reply_err(call, r, NULL);
	}
}

static void on_exec(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__ExecProcessRequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, "", call);

	if (p)
		proc_exec(p->c, req, call);
}

static void on_resize(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__ResizePtyRequest *req = (const void *)msg;
	struct shim *s = arg;
	struct proc *p = find(s, req->id, req->exec_id, call);
	int r;

	if (!p)
		return;
	if (!p->terminal) {
		refuse(call, -EBUSY, "the process has no terminal");
		return;
	}
	if (req->width == 0 || req->height == 0 || req->width > UINT16_MAX ||
	    req->height > UINT16_MAX) {
		refuse(call, -EINVAL, "no size of a terminal");
		return;
	}
	if (p->state != PROC_RUNNING || p->exited || !s->sandbox.agent) {
		p->width = req->width; /* for the start; of no use after the exit */
		p->height = req->height;
		ttrpc_reply(call, &empty.base);
		return;
	}
	r = agent_resize(s->sandbox.agent, req->id, req->exec_id, req->width, req->height,
			 on_passed, call);
	if (r < 0)
		ttrpc_reply_err(call, r, NULL);
}

static void on_close_io(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__CloseIORequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (!p)
		return;
	if (req->stdin) {
		p->input_closed = true;
		if (p->io)
			stdio_close_input(p->io);
	}
	ttrpc_reply(call, &empty.base);
}

static void on_wait(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__WaitRequest *req = (const void *)msg;
	TaskV2__WaitResponse resp = TASK_V2__WAIT_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (!p)
		return;
	if (p->state != PROC_STOPPED) {
		calls_add(&p->waiters, call);
		return;
	}
	resp.exit_status = p->exit_status;
	pb_timestamp_set(&ts, p->exited_at);
	resp.exited_at = &ts;
	ttrpc_reply(call, &resp.base);
}

static void on_connect(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__ConnectRequest *req = (const void *)msg;
	TaskV2__ConnectResponse resp = TASK_V2__CONNECT_RESPONSE__INIT;
	struct shim *s = arg;

	resp.shim_pid = (uint32_t)getpid();
	if (container_proc(s, req->id, "", NULL))
		resp.task_pid = sandbox_pid(s);
	resp.version = (char *)"husk " HUSK_VERSION;
	ttrpc_reply(call, &resp.base);
}

/* Nothing to do while somebody still needs this process: a container, or the sandbox service, which
 * ends it by ShutdownSandbox. */
static void on_shutdown(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	struct shim *s = arg;

	if (s->containers || (s->sandbox.by_service && s->sandbox.state != SB_STOPPED))
		ttrpc_reply(call, &empty.base);
	else
		shim_exit(s, call);
}

static void on_pause(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "pausing a container is not supported");
}

static void on_checkpoint(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "checkpoints are not supported");
}

static void on_update(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "resources cannot be changed while a container runs yet");
}

static void on_stats(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "statistics are not supported yet");
}

const struct ttrpc_method task_methods[] = {
	{ "State", on_state },	     { "Create", on_create },
	{ "Start", on_start },	     { "Delete", on_delete },
	{ "Pids", on_pids },	     { "Pause", on_pause },
	{ "Resume", on_pause },	     { "Checkpoint", on_checkpoint },
	{ "Kill", on_kill },	     { "Exec", on_exec },
	{ "ResizePty", on_resize },  { "CloseIO", on_close_io },
	{ "Update", on_update },     { "Wait", on_wait },
	{ "Stats", on_stats },	     { "Connect", on_connect },
	{ "Shutdown", on_shutdown }, { NULL },
};
