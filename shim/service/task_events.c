/* What happens to containers, as containerd's task events. */
#include "base/log.h"
#include "proto/containerd_events.pb-c.h"
#include "shim/service/service.h"
#include "shim/shim.h"

static void task_events_on_created(const struct container *c, void *arg)
{
	Events__TaskCreate ev = EVENTS__TASK_CREATE__INIT;
	Events__TaskIO io = EVENTS__TASK_IO__INIT;
	const struct shim *s = arg;

	io.stdin = c->init.uri[0];
	io.stdout = c->init.uri[1];
	io.stderr = c->init.uri[2];
	io.terminal = c->init.terminal;
	ev.container_id = c->id;
	ev.bundle = c->bundle;
	ev.io = &io;
	ev.pid = sandbox_pid(&s->sandbox);
	events_publish(s->events, "/tasks/create", &ev.base);
}

static void task_events_on_exec_added(const struct proc *p, void *arg)
{
	Events__TaskExecAdded ev = EVENTS__TASK_EXEC_ADDED__INIT;
	const struct shim *s = arg;

	ev.container_id = (char *)p->container;
	ev.exec_id = p->exec_id;
	events_publish(s->events, "/tasks/exec-added", &ev.base);
}

static void task_events_on_started(const struct proc *p, void *arg)
{
	Events__TaskExecStarted exec = EVENTS__TASK_EXEC_STARTED__INIT;
	Events__TaskStart start = EVENTS__TASK_START__INIT;
	const struct shim *s = arg;

	if (proc_is_exec(p)) {
		exec.container_id = (char *)p->container;
		exec.exec_id = p->exec_id;
		exec.pid = sandbox_pid(&s->sandbox);
		events_publish(s->events, "/tasks/exec-started", &exec.base);
	} else {
		start.container_id = (char *)p->container;
		start.pid = sandbox_pid(&s->sandbox);
		events_publish(s->events, "/tasks/start", &start.base);
	}
}

static void task_events_on_exited(const struct proc *p, void *arg)
{
	Events__TaskExit ev = EVENTS__TASK_EXIT__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	const struct shim *s = arg;

	pb_timestamp_set(&ts, p->exited_at);
	ev.container_id = (char *)p->container;
	ev.id = (char *)proc_id(p);
	ev.pid = sandbox_pid(&s->sandbox);
	ev.exit_status = p->exit_status;
	ev.exited_at = &ts;
	events_publish(s->events, "/tasks/exit", &ev.base);
}

static void task_events_on_oom(const struct container *c, void *arg)
{
	Events__TaskOOM ev = EVENTS__TASK_OOM__INIT;
	const struct shim *s = arg;

	ev.container_id = c->id;
	events_publish(s->events, "/tasks/oom", &ev.base);
}

static void task_events_on_deleted(const struct container *c, void *arg)
{
	Events__TaskDelete ev = EVENTS__TASK_DELETE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	const struct shim *s = arg;

	pb_timestamp_set(&ts, c->init.exited_at);
	ev.container_id = c->id;
	ev.pid = sandbox_pid(&s->sandbox);
	ev.exit_status = c->init.exit_status;
	if (c->init.exited)
		ev.exited_at = &ts;
	events_publish(s->events, "/tasks/delete", &ev.base);
}

static void task_events_on_output_lost(const struct proc *p, const struct err *err, void *arg)
{
	log_limited(LOG_WARN, "output is lost", "container", p->container, "exec", p->exec_id,
		    "err", err_text(err));
}

const struct container_ops task_events = {
	.created = task_events_on_created,
	.exec_added = task_events_on_exec_added,
	.started = task_events_on_started,
	.exited = task_events_on_exited,
	.oom = task_events_on_oom,
	.deleted = task_events_on_deleted,
	.output_lost = task_events_on_output_lost,
};
