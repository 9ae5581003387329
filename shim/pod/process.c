#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "proto/containerd_events.pb-c.h"
#include "shim/id.h"
#include "shim/oci/oci.h"
#include "shim/shim.h"

/* Exit codes of processes that could not be started, as shells and container managers have them. */
#define EXIT_NOT_FOUND 127u
#define EXIT_NOT_EXECUTABLE 126u
#define EXIT_START_FAILED 128u

/* A start in flight. The process stays (container.h). */
struct start {
	struct proc *p;
	struct ttrpc_call *call;
};

int proc_init(struct proc *p, struct container *c, const char *exec_id, const char *in,
	      const char *out, const char *err_uri, bool terminal)
{
	*p = (struct proc){ .c = c, .terminal = terminal };
	pb_arena_init(&p->arena, OCI_MEMORY_MAX);
	p->exec_id = strdup(exec_id);
	p->uri[0] = strdup(in);
	p->uri[1] = strdup(out);
	p->uri[2] = strdup(err_uri);
	return p->exec_id && p->uri[0] && p->uri[1] && p->uri[2] ? 0 : -ENOMEM;
}

void proc_fini(struct proc *p)
{
	struct err e = { 0 };

	if (p->parked)
		ttrpc_reply_err(p->parked->call, -ECANCELED, NULL);
	free(p->parked);
	ev_timer_del(&p->drain_timer);
	(void)err_set(&e, -ENOENT, "the process was deleted");
	calls_reply(&p->waiters, NULL, -ENOENT, &e);
	stdio_free(take_ptr(&p->io));
	pb_arena_fini(&p->arena);
	free(p->exec_id);
	free(p->command);
	free(p->sandbox_died);
	for (int i = 0; i < 3; i++)
		free(p->uri[i]);
}

const char *proc_id(const struct proc *p)
{
	return *p->exec_id ? p->exec_id : p->c->id;
}

bool proc_alive(const struct proc *p)
{
	return p->state == PROC_STARTING || p->state == PROC_RUNNING;
}

/* ---- exit ---- */

static void publish(struct proc *p)
{
	TaskV2__WaitResponse resp = TASK_V2__WAIT_RESPONSE__INIT;
	Events__TaskExit ev = EVENTS__TASK_EXIT__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct shim *s = p->c->shim;

	ev_timer_del(&p->drain_timer);
	p->state = PROC_STOPPED;
	pb_timestamp_set(&ts, p->exited_at);
	ev.container_id = p->c->id;
	ev.id = (char *)proc_id(p);
	ev.pid = sandbox_pid(s);
	ev.exit_status = p->exit_status;
	ev.exited_at = &ts;
	events_publish(s->events, "/tasks/exit", &ev.base);
	resp.exit_status = p->exit_status;
	resp.exited_at = &ts;
	calls_reply(&p->waiters, &resp.base, 0, NULL);
	if (*p->exec_id)
		proc_try_publish(&p->c->init); /* it may have waited for this one */
}

static void on_drain_timer(struct ev_timer *t)
{
	struct proc *p = t->arg;

	if (p->state != PROC_STARTING)
		publish(p);
}

static bool execs_alive(const struct container *c)
{
	for (const struct proc *e = c->execs; e; e = e->next) {
		if (proc_alive(e))
			return true;
	}
	return false;
}

void proc_try_publish(struct proc *p)
{
	if (!p->exited || p->state == PROC_STOPPED || p->state == PROC_STARTING)
		return;
	if (p->io && !stdio_drained(p->io))
		return;
	if (!*p->exec_id && execs_alive(p->c))
		return;
	publish(p);
}

static void on_signalled(const struct ttrpc_result *res, void *arg)
{
}

void proc_exit(struct proc *p, uint32_t status, bool oom_killed, const char *sandbox_died)
{
	struct container *c = p->c;
	struct shim *s = c->shim;

	if (p->exited || p->state == PROC_STOPPED)
		return;
	p->exited = true;
	p->exit_status = status;
	p->oom_killed = oom_killed;
	p->exited_at = now_real_ns();
	if (!str_empty(sandbox_died))
		p->sandbox_died = strdup(sandbox_died);
	/* Without pids of its own the container outlives its first process; what is left of it
	 * ends. */
	if (!*p->exec_id && !c->own_pids && s->sandbox.agent && proc_alive(p))
		(void)!agent_signal(s->sandbox.agent, c->id, "", 9, true, on_signalled, NULL);
	if (p->state == PROC_CREATED)
		stdio_free(take_ptr(&p->io)); /* nothing was written, nothing ends these streams */
	proc_try_publish(p);
	if (p->state != PROC_STOPPED &&
	    ev_timer_add(s->loop, &p->drain_timer, PROC_DRAIN_NS, on_drain_timer, p) < 0)
		on_drain_timer(&p->drain_timer);
}

static void on_drained(void *arg)
{
	proc_try_publish(arg);
}

int proc_open_stdio(struct proc *p, struct err *err)
{
	struct stdio_spec spec = {
		.in = p->uri[0], .out = p->uri[1], .err = p->uri[2], .terminal = p->terminal
	};

	return stdio_open(p->c->shim->loop, &spec, on_drained, p, &p->io, err);
}

/* ---- start ---- */

/* The process never ran: its waiters learn the status, no exit is published. */
static void never_ran(struct proc *p, uint32_t status)
{
	TaskV2__WaitResponse resp = TASK_V2__WAIT_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;

	ev_timer_del(&p->drain_timer);
	if (!p->exited) {
		p->exit_status = status;
		p->exited_at = now_real_ns();
	}
	p->exited = true;
	p->state = PROC_STOPPED;
	stdio_free(take_ptr(&p->io));
	pb_timestamp_set(&ts, p->exited_at);
	resp.exit_status = p->exit_status;
	resp.exited_at = &ts;
	calls_reply(&p->waiters, &resp.base, 0, NULL);
	if (*p->exec_id)
		proc_try_publish(&p->c->init);
}

static uint32_t exit_code_of(const Agent__StartFailure *f)
{
	if (!str_eq(f->stage, "exec"))
		return EXIT_START_FAILED;
	switch (f->error) {
	case ENOENT:
	case ENOTDIR:
		return EXIT_NOT_FOUND;
	case EACCES:
	case EPERM:
	case ENOEXEC:
	case EISDIR:
	case ETXTBSY:
	case ELIBBAD:
		return EXIT_NOT_EXECUTABLE;
	default:
		return EXIT_START_FAILED;
	}
}

static void start_failed(struct start *st, const Agent__StartFailure *f)
{
	Shim__StartError detail = SHIM__START_ERROR__INIT;
	uint32_t exit_code = exit_code_of(f);
	enum rpc_code code = RPC_UNKNOWN;
	char text[800];

	if (exit_code == EXIT_NOT_FOUND)
		code = RPC_NOT_FOUND;
	else if (f->error == EACCES)
		code = RPC_PERMISSION_DENIED;
	/* The guest's words are shown as they are, but never more than fits. */
	(void)snprintf(text, sizeof(text), "start \"%.200s\": %.500s", st->p->command,
		       *f->message ? f->message : strerror(f->error));
	detail.stage = f->stage;
	detail.error = f->error;
	detail.exit_code = exit_code;
	never_ran(st->p, exit_code);
	ttrpc_reply_status(st->call, code, text, "husk.shim.v1.StartError", &detail.base);
}

static void publish_start(struct proc *p)
{
	Events__TaskExecStarted exec = EVENTS__TASK_EXEC_STARTED__INIT;
	Events__TaskStart start = EVENTS__TASK_START__INIT;
	struct shim *s = p->c->shim;

	p->started = true;
	if (*p->exec_id) {
		exec.container_id = p->c->id;
		exec.exec_id = p->exec_id;
		exec.pid = sandbox_pid(s);
		events_publish(s->events, "/tasks/exec-started", &exec.base);
	} else {
		start.container_id = p->c->id;
		start.pid = sandbox_pid(s);
		events_publish(s->events, "/tasks/start", &start.base);
	}
}

static void on_resized(const struct ttrpc_result *res, void *arg)
{
}

/* Answers a start that did not come to an answer of the agent. */
static void start_lost(struct start *st, uint32_t status, int code, const char *why)
{
	struct proc *p = st->p;
	struct err e = { 0 };

	if (status == STATUS_VM_DIED && !p->sandbox_died)
		p->sandbox_died = strdup(why);
	never_ran(p, status);
	(void)err_set(&e, code, "start \"%.200s\": %.250s", p->command, why);
	ttrpc_reply_err(st->call, code, &e);
	free(st);
}

void proc_vm_died(struct proc *p, uint32_t status, const char *why)
{
	struct start *st = take_ptr(&p->parked);

	if (st)
		start_lost(st, status, -EIO, *why ? why : "the sandbox was stopped");
	else
		proc_exit(p, status, false, why);
}

static void on_started(const struct ttrpc_result *res, void *arg)
{
	TaskV2__StartResponse ok = TASK_V2__START_RESPONSE__INIT;
	const Agent__StartContainerResponse *resp =
		(const Agent__StartContainerResponse *)res->resp;
	struct start *st = arg;
	struct proc *p = st->p;
	struct shim *s = p->c->shim;

	if (res->code == -ECONNRESET || res->code == -ECANCELED || res->code == -ETIMEDOUT) {
		p->parked = st; /* the VM's end is near, and says why */
		return;
	}
	if (res->code < 0) {
		start_lost(st, EXIT_START_FAILED, res->code, err_text(res->err));
		return;
	}
	if (resp->failure) {
		start_failed(st, resp->failure);
	} else {
		p->state = PROC_RUNNING;
		ok.pid = sandbox_pid(s);
		ttrpc_reply(st->call, &ok.base);
		publish_start(p);
		stdio_start_input(p->io);
		if (p->terminal && p->width && s->sandbox.agent)
			(void)!agent_resize(s->sandbox.agent, p->c->id, p->exec_id, p->width,
					    p->height, on_resized, NULL);
		proc_try_publish(p);
	}
	free(st);
}

static int send_exec(struct proc *p, struct start *st, struct err *err)
{
	Agent__ExecProcessRequest req = AGENT__EXEC_PROCESS_REQUEST__INIT;
	struct shim *s = p->c->shim;
	struct vmctl *ctl = sandbox_ctl(s);
	int r = proc_open_stdio(p, err);

	if (r < 0)
		return r;
	if (p->input_closed)
		stdio_close_input(p->io);
	if (!ctl)
		return err_set(err, -EIO, "the VM is gone");
	r = stdio_connect(p->io, ctl, &s->sandbox.next_stream, p->spec->stdio, err);
	if (r < 0)
		return r;
	if (p->width) {
		p->spec->width = p->width;
		p->spec->height = p->height;
		p->width = 0;
	}
	req.id = p->c->id;
	req.exec_id = p->exec_id;
	req.process = p->spec;
	r = agent_exec(s->sandbox.agent, &req, on_started, st);
	if (r < 0)
		return err_errno(err, r, "exec");
	pb_arena_fini(&p->arena);
	p->spec = NULL;
	return 0;
}

void proc_start(struct proc *p, struct ttrpc_call *call)
{
	struct shim *s = p->c->shim;
	struct start *st;
	struct err e = { 0 };
	int r;

	if (p->state != PROC_CREATED)
		r = err_set(&e, -EBUSY, "the process was started already");
	else if (!s->sandbox.agent)
		r = err_set(&e, -EBUSY, "the VM has ended%s%s", *s->sandbox.why ? ": " : "",
			    s->sandbox.why);
	else if (*p->exec_id && p->c->init.state != PROC_RUNNING)
		r = err_set(&e, -EBUSY, "the container does not run");
	else
		r = 0;
	st = r == 0 ? malloc(sizeof(*st)) : NULL;
	if (!st) {
		ttrpc_reply_err(call, r < 0 ? r : -ENOMEM, &e);
		return;
	}
	*st = (struct start){ .p = p, .call = call };
	p->state = PROC_STARTING;
	if (*p->exec_id)
		r = send_exec(p, st, &e);
	else
		r = agent_start_container(s->sandbox.agent, p->c->id, on_started, st);
	if (r < 0) {
		never_ran(p, EXIT_START_FAILED);
		ttrpc_reply_err(call, r, &e);
		free(st);
	}
}

/* ---- execs ---- */

static int exec_spec(struct proc *p, const Wkt__Any *spec, struct err *err)
{
	const char *type = spec ? spec->type_url : "";
	int r;

	if (str_starts(type, "type.googleapis.com/"))
		type += strlen("type.googleapis.com/");
	if (!str_eq(type, "types.containerd.io/opencontainers/runtime-spec/1/Process"))
		return err_set(err, -EINVAL, "exec: a spec of type \"%.100s\"", type);
	r = oci_parse_process(&p->arena, (const char *)spec->value.data, spec->value.len, &p->spec,
			      err);
	if (r < 0)
		return err_wrap(err, r, "exec");
	/* The task's word counts, as for containerd's own runtime. */
	p->spec->terminal = p->terminal;
	p->command = str_fmt("%.200s", p->spec->args[0]);
	return p->command ? 0 : -ENOMEM;
}

void proc_exec(struct container *c, const TaskV2__ExecProcessRequest *req, struct ttrpc_call *call)
{
	static const Wkt__Empty empty = WKT__EMPTY__INIT;
	Events__TaskExecAdded ev = EVENTS__TASK_EXEC_ADDED__INIT;
	struct err e = { 0 };
	struct proc *p;
	int r = 0;

	if (!shim_id_valid(req->exec_id))
		r = err_set(&e, -EINVAL, "\"%.60s\" is not an exec id", req->exec_id);
	for (p = c->execs; p && r == 0; p = p->next) {
		if (str_eq(p->exec_id, req->exec_id))
			r = err_set(&e, -EEXIST, "exec %s exists already", req->exec_id);
	}
	if (r == 0 && c->n_execs == SHIM_EXECS_MAX)
		r = err_set(&e, -ENOBUFS, "more than %u processes", SHIM_EXECS_MAX);
	if (r == 0 && (c->init.state == PROC_STOPPED || c->init.exited))
		r = err_set(&e, -EBUSY, "container %s does not run", c->id);
	p = r == 0 ? calloc(1, sizeof(*p)) : NULL;
	if (!p) {
		ttrpc_reply_err(call, r < 0 ? r : -ENOMEM, &e);
		return;
	}
	r = proc_init(p, c, req->exec_id, req->stdin, req->stdout, req->stderr, req->terminal);
	if (r == 0)
		r = exec_spec(p, req->spec, &e);
	if (r < 0) {
		proc_fini(p);
		free(p);
		ttrpc_reply_err(call, r, &e);
		return;
	}
	p->state = PROC_CREATED;
	p->next = c->execs;
	c->execs = p;
	c->n_execs++;
	ttrpc_reply(call, &empty.base);
	ev.container_id = c->id;
	ev.exec_id = p->exec_id;
	events_publish(c->shim->events, "/tasks/exec-added", &ev.base);
}

void proc_delete_exec(struct proc *p, struct ttrpc_call *call)
{
	TaskV2__DeleteResponse resp = TASK_V2__DELETE_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct container *c = p->c;
	struct err e = { 0 };

	if (proc_alive(p)) {
		(void)err_set(&e, -EBUSY, "process %s runs", p->exec_id);
		ttrpc_reply_err(call, -EBUSY, &e);
		return;
	}
	pb_timestamp_set(&ts, p->exited_at);
	resp.pid = sandbox_pid(c->shim);
	resp.exit_status = p->exit_status;
	if (p->exited)
		resp.exited_at = &ts;
	ttrpc_reply(call, &resp.base);
	for (struct proc **q = &c->execs; *q; q = &(*q)->next) {
		if (*q == p) {
			*q = p->next;
			c->n_execs--;
			break;
		}
	}
	proc_fini(p);
	free(p);
}
