#include "shim/pod/process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/util.h"
#include "shim/oci/oci.h"

/* Exit codes of processes that could not be started, as shells and container managers have them. */
#define EXIT_NOT_FOUND 127u
#define EXIT_NOT_EXECUTABLE 126u
#define EXIT_START_FAILED 128u

/* A start in flight. The process stays (process.h). */
struct start {
	struct proc *p;
	proc_start_done done;
	void *arg;
};

int proc_init(struct proc *p, const struct proc_setup *s)
{
	*p = (struct proc){ .loop = s->loop,
			    .sandbox = s->sandbox,
			    .ops = s->ops,
			    .owner = s->owner,
			    .container = s->container,
			    .terminal = s->terminal };
	pb_arena_init(&p->arena, OCI_MEMORY_MAX);
	p->exec_id = strdup(s->exec_id);
	for (int i = 0; i < 3; i++)
		p->uri[i] = strdup(s->uri[i]);
	return p->exec_id && p->uri[0] && p->uri[1] && p->uri[2] ? 0 : -ENOMEM;
}

void proc_fini(struct proc *p)
{
	struct start *st = take_ptr(&p->parked);
	struct err err = { 0 };

	if (st) {
		(void)err_set(&err, -ECANCELED, "the process was deleted");
		st->done(p, -ECANCELED, &err, NULL, st->arg);
	}
	free(st);
	ev_timer_del(&p->drain_timer);
	(void)err_set(&err, -ENOENT, "the process was deleted");
	waits_run(&p->waits, -ENOENT, &err);
	stdio_free(take_ptr(&p->io));
	pb_arena_fini(&p->arena);
	free(p->exec_id);
	free(p->command);
	free(p->sandbox_died);
	for (int i = 0; i < 3; i++)
		free(p->uri[i]);
}

/* Every arrow there is. What guest and clients say is compared with the state before. */
static void set_state(struct proc *p, enum proc_state to)
{
	static const unsigned arrows[] = {
		[PROC_CREATING] = 1u << PROC_CREATED,
		[PROC_CREATED] = 1u << PROC_STARTING | 1u << PROC_STOPPED,
		[PROC_STARTING] = 1u << PROC_RUNNING | 1u << PROC_STOPPED,
		[PROC_RUNNING] = 1u << PROC_STOPPED,
		[PROC_STOPPED] = 0,
	};

	check(arrows[p->state] & 1u << to);
	p->state = to;
}

void proc_set_created(struct proc *p)
{
	set_state(p, PROC_CREATED);
}

bool proc_is_exec(const struct proc *p)
{
	return *p->exec_id != 0;
}

const char *proc_id(const struct proc *p)
{
	return proc_is_exec(p) ? p->exec_id : p->container;
}

bool proc_alive(const struct proc *p)
{
	return p->state == PROC_STARTING || p->state == PROC_RUNNING;
}

/* ---- exit ---- */

/* The last arrow. */
static void stop(struct proc *p, bool ran)
{
	ev_timer_del(&p->drain_timer);
	set_state(p, PROC_STOPPED);
	waits_run(&p->waits, 0, NULL);
	p->ops->gone(p, ran);
}

static void proc_on_drain_timer(struct ev_timer *t)
{
	struct proc *p = t->arg;

	/* A start that is due is published first, and starts the time anew. */
	if (p->state != PROC_STARTING)
		stop(p, true);
}

void proc_try_publish(struct proc *p)
{
	if (!p->exited || p->state == PROC_STOPPED || p->state == PROC_STARTING)
		return;
	if (p->io && !stdio_drained(p->io))
		return;
	if (p->ops->held(p))
		return;
	stop(p, true);
}

/* An exit is published now, or when nothing holds it back, or in PROC_DRAIN_NS. */
static void publish_in_time(struct proc *p)
{
	proc_try_publish(p);
	if (p->state != PROC_STOPPED &&
	    ev_timer_add(p->loop, &p->drain_timer, PROC_DRAIN_NS, proc_on_drain_timer, p) < 0 &&
	    p->state != PROC_STARTING)
		stop(p, true);
}

void proc_exit(struct proc *p, uint32_t status, bool oom_killed, const char *sandbox_died)
{
	if (p->exited || p->state == PROC_STOPPED)
		return;
	p->exited = true;
	p->exit_status = status;
	p->oom_killed = oom_killed;
	p->exited_at = now_real_ns();
	if (!str_empty(sandbox_died))
		p->sandbox_died = strdup(sandbox_died);
	p->ops->exited(p);
	if (p->state == PROC_CREATED)
		stdio_free(take_ptr(&p->io)); /* nothing was written, nothing ends these streams */
	publish_in_time(p);
}

/* ---- streams ---- */

static void proc_on_drained(void *arg)
{
	struct proc *p = arg;

	if (p->state == PROC_STOPPED)
		p->ops->flushed(p);
	else
		proc_try_publish(p);
}

static void proc_on_flushed(void *arg)
{
	struct proc *p = arg;

	p->ops->flushed(p);
}

static void proc_on_output_lost(const struct err *err, void *arg)
{
	const struct proc *p = arg;

	p->ops->output_lost(p, err);
}

int proc_open_stdio(struct proc *p, struct err *err)
{
	static const struct stdio_ops ops = { .drained = proc_on_drained,
					      .flushed = proc_on_flushed,
					      .lost = proc_on_output_lost };
	struct stdio_spec spec = {
		.in = p->uri[0], .out = p->uri[1], .err = p->uri[2], .terminal = p->terminal
	};

	return stdio_open(p->loop, &spec, &ops, p, &p->io, err);
}

/* ---- start ---- */

/* It never ran: its waiters learn the status, no exit is published. */
static void never_ran(struct proc *p, uint32_t status)
{
	if (!p->exited) {
		p->exit_status = status;
		p->exited_at = now_real_ns();
	}
	p->exited = true;
	stdio_free(take_ptr(&p->io));
	stop(p, false);
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

/* Answers a start, once, and forgets it. */
static void start_end(struct start *st, int code, const struct err *err,
		      const Shim__StartError *detail)
{
	st->done(st->p, code, err, detail, st->arg);
	free(st);
}

static void start_failed(struct start *st, const Agent__StartFailure *f)
{
	Shim__StartError detail = SHIM__START_ERROR__INIT;
	uint32_t exit_code = exit_code_of(f);
	struct err err = { 0 };
	int code = -EIO;

	if (exit_code == EXIT_NOT_FOUND)
		code = -ENOENT;
	else if (f->error == EACCES)
		code = -EACCES;
	/* The guest's words are shown as they are, but never more than fits. */
	(void)err_set(&err, code, "start \"%.200s\": %s", st->p->command,
		      *f->message ? f->message : strerror(f->error));
	detail.stage = f->stage;
	detail.error = f->error;
	detail.exit_code = exit_code;
	never_ran(st->p, exit_code);
	start_end(st, code, &err, &detail);
}

static void proc_on_resized(const struct ttrpc_result *res, void *arg)
{
}

/* Ends a start that did not come to an answer of the agent. */
static void start_lost(struct start *st, uint32_t status, int code, const char *why)
{
	struct proc *p = st->p;
	struct err err = { 0 };

	if (status == STATUS_VM_DIED && !p->sandbox_died)
		p->sandbox_died = strdup(why);
	never_ran(p, status);
	(void)err_set(&err, code, "start \"%.200s\": %.250s", p->command, why);
	start_end(st, code, &err, NULL);
}

void proc_vm_died(struct proc *p, uint32_t status, const char *why)
{
	struct start *st = take_ptr(&p->parked);

	if (st)
		start_lost(st, status, -EIO, *why ? why : "the sandbox was stopped");
	else
		proc_exit(p, status, false, why);
}

static void started(struct start *st)
{
	struct proc *p = st->p;
	struct agent *agent = p->sandbox->agent;

	set_state(p, PROC_RUNNING);
	start_end(st, 0, NULL, NULL);
	p->started = true;
	p->ops->started(p);
	stdio_start_input(p->io);
	if (p->terminal && p->width && agent)
		(void)!agent_resize(agent, p->container, p->exec_id, p->width, p->height,
				    proc_on_resized, NULL);
	if (p->exited)
		publish_in_time(p);
}

static void proc_on_killed(const struct ttrpc_result *res, void *arg)
{
}

static void kill_late(const struct proc *p)
{
	struct agent *agent = p->sandbox->agent;

	if (agent)
		(void)!agent_signal(agent, p->container, p->exec_id, SIGKILL, !proc_is_exec(p),
				    proc_on_killed, NULL);
}

static void proc_on_started(const struct ttrpc_result *res, void *arg)
{
	const Agent__StartContainerResponse *resp =
		(const Agent__StartContainerResponse *)res->resp;
	struct start *st = arg;

	if (res->code == -ETIMEDOUT)
		kill_late(st->p); /* if it starts after all, nobody knows it any more */
	if (res->code == -ECONNRESET || res->code == -ECANCELED)
		st->p->parked = st; /* the VM's end is near, and says why */
	else if (res->code < 0)
		start_lost(st, EXIT_START_FAILED, res->code, err_text(res->err));
	else if (resp->failure)
		start_failed(st, resp->failure);
	else
		started(st);
}

static int send_exec(struct proc *p, struct start *st, struct err *err)
{
	Agent__ExecProcessRequest req = AGENT__EXEC_PROCESS_REQUEST__INIT;
	int r = proc_open_stdio(p, err);

	if (r < 0)
		return r;
	if (p->input_closed)
		stdio_close_input(p->io);
	r = stdio_connect(p->io, sandbox_open_stream, p->sandbox, p->spec->stdio, err);
	if (r < 0)
		return r;
	if (p->width) {
		p->spec->width = p->width;
		p->spec->height = p->height;
		p->width = 0;
	}
	req.id = (char *)p->container;
	req.exec_id = p->exec_id;
	req.process = p->spec;
	r = agent_exec(p->sandbox->agent, &req, proc_on_started, st);
	if (r < 0)
		return err_errno(err, r, "exec");
	pb_arena_fini(&p->arena);
	p->spec = NULL;
	return 0;
}

static int send_start(struct proc *p, struct start *st, struct err *err)
{
	int r;

	if (proc_is_exec(p))
		return send_exec(p, st, err);
	r = agent_start_container(p->sandbox->agent, p->container, proc_on_started, st);
	return r < 0 ? err_errno(err, r, "start") : 0;
}

void proc_start(struct proc *p, proc_start_done done, void *arg)
{
	const char *why = p->sandbox->why;
	struct start *st = NULL;
	struct err err = { 0 };
	int r = 0;

	if (p->state != PROC_CREATED)
		r = err_set(&err, -EBUSY, "the process was started already");
	else if (!p->sandbox->agent)
		r = err_set(&err, -EBUSY, "the VM has ended%s%s", *why ? ": " : "", why);
	if (r == 0) {
		st = malloc(sizeof(*st));
		if (!st)
			r = err_nomem(&err);
	}
	if (r < 0) {
		done(p, r, &err, NULL, arg);
		return;
	}
	*st = (struct start){ .p = p, .done = done, .arg = arg };
	set_state(p, PROC_STARTING);
	r = send_start(p, st, &err);
	if (r < 0) {
		never_ran(p, EXIT_START_FAILED);
		start_end(st, r, &err, NULL);
	}
}

/* ---- execs ---- */

int proc_take_spec(struct proc *p, const Wkt__Any *spec, struct err *err)
{
	const char *type = pb_any_type(spec);
	int r;

	if (!str_eq(type, "types.containerd.io/opencontainers/runtime-spec/1/Process"))
		return err_set(err, -EINVAL, "exec: a spec of type \"%.100s\"", type);
	r = oci_parse_process(&p->arena, (const char *)spec->value.data, spec->value.len, &p->spec,
			      err);
	if (r < 0)
		return err_wrap(err, r, "exec");
	/* The task's word counts, as for containerd's own runtime. */
	p->spec->terminal = p->terminal;
	p->command = str_fmt("%.200s", p->spec->args[0]);
	if (!p->command)
		return err_nomem(err);
	set_state(p, PROC_CREATED);
	return 0;
}
