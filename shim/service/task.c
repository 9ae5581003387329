/* The task service: containerd.task.v2.Task and v3.Task, whose messages are the same on the wire
 * and in memory. Handlers use the types of v2 for both. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "shim/pod/create.h"
#include "shim/service/pending.h"
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
	struct err err = { 0 };
	struct proc *p = container_proc(&s->containers, id, exec_id, &err);

	if (!p)
		ttrpc_reply_err(call, -ENOENT, &err);
	return p;
}

static void refuse(struct ttrpc_call *call, int code, const char *why)
{
	struct err err = { 0 };

	(void)err_set(&err, code, "%s", why);
	ttrpc_reply_err(call, code, &err);
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

static void task_on_state(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__StateRequest *req = (const void *)msg;
	TaskV2__StateResponse resp = TASK_V2__STATE_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct proc *p = find(arg, req->id, req->exec_id, call);
	const struct container *c;

	if (!p)
		return;
	c = container_of_proc(p);
	resp.id = c->id;
	resp.bundle = c->bundle;
	resp.pid = sandbox_pid(p->sandbox);
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

static void task_on_created(const struct container *c, int code, const struct err *err, void *arg)
{
	TaskV2__CreateTaskResponse resp = TASK_V2__CREATE_TASK_RESPONSE__INIT;

	if (code < 0) {
		ttrpc_reply_err(arg, code, err);
		return;
	}
	resp.pid = sandbox_pid(c->all->sandbox);
	ttrpc_reply(arg, &resp.base);
}

static void task_on_create(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	struct shim *s = arg;

	container_create(&s->containers, (const void *)msg, task_on_created, call);
}

static void task_on_started(const struct proc *p, int code, const struct err *err,
			    const Shim__StartError *detail, void *arg)
{
	TaskV2__StartResponse resp = TASK_V2__START_RESPONSE__INIT;

	if (detail) {
		ttrpc_reply_status(arg, rpc_code_of_errno(code), err_text(err),
				   "husk.shim.v1.StartError", &detail->base);
	} else if (code < 0) {
		ttrpc_reply_err(arg, code, err);
	} else {
		resp.pid = sandbox_pid(p->sandbox);
		ttrpc_reply(arg, &resp.base);
	}
}

static void task_on_start(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__StartRequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (p)
		container_start(p, task_on_started, call);
}

static void fill_deleted(TaskV2__DeleteResponse *resp, Wkt__Timestamp *ts, const struct proc *p)
{
	resp->pid = sandbox_pid(p->sandbox);
	resp->exit_status = p->exit_status;
	pb_timestamp_set(ts, p->exited_at);
	if (p->exited)
		resp->exited_at = ts;
}

static void task_on_deleted(const struct container *c, int code, const struct err *err, void *arg)
{
	TaskV2__DeleteResponse resp = TASK_V2__DELETE_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;

	if (code < 0) {
		ttrpc_reply_err(arg, code, err);
		return;
	}
	fill_deleted(&resp, &ts, &c->init);
	ttrpc_reply(arg, &resp.base);
}

static void delete_exec(struct proc *p, struct ttrpc_call *call)
{
	TaskV2__DeleteResponse resp = TASK_V2__DELETE_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct err err = { 0 };
	int r;

	fill_deleted(&resp, &ts, p);
	r = container_delete_exec(p, &err);
	if (r < 0)
		ttrpc_reply_err(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

static void task_on_delete(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__DeleteRequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (!p)
		return;
	if (proc_is_exec(p))
		delete_exec(p, call);
	else
		container_delete(container_of_proc(p), task_on_deleted, call);
}

static void task_on_pids_answer(const struct ttrpc_result *res, void *arg)
{
	enum { PIDS_SHOWN_MAX = 4096 };
	TaskV2__PidsResponse resp = TASK_V2__PIDS_RESPONSE__INIT;
	const Agent__ListProcessesResponse *list = (const void *)res->resp;
	Task__ProcessInfo *infos;
	struct ttrpc_call *call = arg;
	struct err err = { 0 };
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
		ttrpc_reply_err(call, err_nomem(&err), &err);
	}
	free(resp.processes);
	free(infos);
}

/* Process numbers in the guest. */
static void task_on_pids(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
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
	r = agent_list_processes(s->sandbox.agent, req->id, task_on_pids_answer, call);
	if (r < 0)
		ttrpc_reply_err(call, r, NULL);
}

/* An Empty answer for a call that was passed on to the agent. */
static void task_on_passed(const struct ttrpc_result *res, void *arg)
{
	if (res->code < 0)
		ttrpc_reply_err(arg, res->code, res->err);
	else
		ttrpc_reply(arg, &empty.base);
}

static void task_on_kill(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
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
		if (req->signal != SIGKILL && req->signal != SIGTERM && req->signal != SIGINT) {
			refuse(call, -EBUSY, "the process was not started");
			return;
		}
		proc_exit(p, 128 + req->signal, false, NULL);
		ttrpc_reply(call, &empty.base);
	} else if (!s->sandbox.agent) {
		refuse(call, -ENOENT, "the VM has ended");
	} else {
		r = agent_signal(s->sandbox.agent, req->id, req->exec_id, req->signal, req->all,
				 task_on_passed, call);
		if (r < 0)
			ttrpc_reply_err(call, r, NULL);
		else if (req->signal == SIGKILL && !proc_is_exec(p))
			container_killed(container_of_proc(p));
	}
}

static void task_on_exec(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__ExecProcessRequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, "", call);
	struct err err = { 0 };
	int r;

	if (!p)
		return;
	r = container_add_exec(container_of_proc(p), req, &err);
	if (r < 0)
		ttrpc_reply_err(call, r, &err);
	else
		ttrpc_reply(call, &empty.base);
}

static void task_on_resize(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
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
			 task_on_passed, call);
	if (r < 0)
		ttrpc_reply_err(call, r, NULL);
}

static void task_on_close_io(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
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

/* The subject is the process, gone when code is not 0. */
static void task_on_stopped(struct ttrpc_call *call, void *subject, int code, const struct err *err)
{
	TaskV2__WaitResponse resp = TASK_V2__WAIT_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	const struct proc *p = subject;

	if (code < 0) {
		ttrpc_reply_err(call, code, err);
		return;
	}
	resp.exit_status = p->exit_status;
	pb_timestamp_set(&ts, p->exited_at);
	resp.exited_at = &ts;
	ttrpc_reply(call, &resp.base);
}

static void task_on_wait(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__WaitRequest *req = (const void *)msg;
	struct proc *p = find(arg, req->id, req->exec_id, call);

	if (!p)
		return;
	if (p->state == PROC_STOPPED)
		task_on_stopped(call, p, 0, NULL);
	else
		pending_add(call, &p->waits, task_on_stopped, p);
}

static void task_on_connect(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const TaskV2__ConnectRequest *req = (const void *)msg;
	TaskV2__ConnectResponse resp = TASK_V2__CONNECT_RESPONSE__INIT;
	struct shim *s = arg;

	resp.shim_pid = (uint32_t)getpid();
	if (container_proc(&s->containers, req->id, "", NULL))
		resp.task_pid = sandbox_pid(&s->sandbox);
	resp.version = (char *)"husk " HUSK_VERSION;
	ttrpc_reply(call, &resp.base);
}

static void task_on_ended(struct ttrpc_call *call, void *subject, int code, const struct err *err)
{
	if (code < 0)
		ttrpc_reply_err(call, code, err);
	else
		ttrpc_reply(call, &empty.base);
}

/* Nothing to do while this process is still needed: by a container, or by the sandbox service,
 * which ends it by ShutdownSandbox. */
static void task_on_shutdown(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	struct shim *s = arg;

	if (s->containers.n || sandbox_in_use(&s->sandbox)) {
		ttrpc_reply(call, &empty.base);
		return;
	}
	pending_add(call, &s->exit_waits, task_on_ended, s);
	shim_exit(s);
}

static void task_on_pause(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "pausing a container is not supported");
}

static void task_on_checkpoint(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "checkpoints are not supported");
}

static void task_on_update(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "resources cannot be changed while a container runs yet");
}

static void task_on_stats(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	refuse(call, -ENOSYS, "statistics are not supported yet");
}

const struct ttrpc_method task_methods[] = {
	{ "State", task_on_state },	  { "Create", task_on_create },
	{ "Start", task_on_start },	  { "Delete", task_on_delete },
	{ "Pids", task_on_pids },	  { "Pause", task_on_pause },
	{ "Resume", task_on_pause },	  { "Checkpoint", task_on_checkpoint },
	{ "Kill", task_on_kill },	  { "Exec", task_on_exec },
	{ "ResizePty", task_on_resize },  { "CloseIO", task_on_close_io },
	{ "Update", task_on_update },	  { "Wait", task_on_wait },
	{ "Stats", task_on_stats },	  { "Connect", task_on_connect },
	{ "Shutdown", task_on_shutdown }, { NULL },
};
