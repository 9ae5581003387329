#include "shim/pod/container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "proto/containerd_events.pb-c.h"
#include "shim/id.h"
#include "shim/oci/oci.h"
#include "shim/shim.h"

#define DELETE_POLL_NS (20 * NS_PER_MS)

struct container *container_find(struct shim *s, const char *id)
{
	struct container *c = s->containers;

	while (c && !str_eq(c->id, id))
		c = c->next;
	return c;
}

struct proc *container_proc(struct shim *s, const char *id, const char *exec_id, struct err *err)
{
	struct container *c = container_find(s, id);
	struct proc *p;

	if (!c || c->init.state == PROC_CREATING || c->deleting) {
		(void)err_set(err, -ENOENT, "container %.130s: not found", id);
		return NULL;
	}
	if (str_empty(exec_id))
		return &c->init;
	for (p = c->execs; p; p = p->next) {
		if (str_eq(p->exec_id, exec_id))
			return p;
	}
	(void)err_set(err, -ENOENT, "exec %.130s of container %.130s: not found", exec_id, id);
	return NULL;
}

static void container_unlink(struct container *c)
{
	struct container **p = &c->shim->containers;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p) {
		*p = c->next;
		c->shim->n_containers--;
	}
}

/* Everything the shim holds of it. The guest must have let go of the disks, unless the VM is gone.
 */
static void container_free(struct container *c)
{
	struct proc *e;

	container_unlink(c);
	ev_timer_del(&c->delete_timer);
	while ((e = c->execs)) {
		c->execs = e->next;
		proc_fini(e);
		free(e);
	}
	proc_fini(&c->init);
	rootfs_free(c->rootfs);
	free(c->id);
	free(c->bundle);
	free(c);
}

void containers_free(struct shim *s)
{
	while (s->containers)
		container_free(s->containers);
}

/* ---- create ---- */

/* A Create in flight: VM, then windows, then the agent. */
struct create {
	struct shim *shim;
	struct container *c;
	struct ttrpc_call *call;
	struct pb_arena arena;
	struct oci_spec spec;
	unsigned maps_open;
	struct err err; /* the first failure of a mapping */
};

static void create_fail(struct create *op, int code, const struct err *err)
{
	struct container *c = op->c;
	struct rootfs *rf = c->rootfs;

	for (size_t i = 0; rf && i < rf->n; i++) {
		if (rf->disks[i].assigned)
			sandbox_put_window(op->shim, rf->disks[i].first, true);
	}
	ttrpc_reply_err(op->call, code, err);
	container_free(c);
	pb_arena_fini(&op->arena);
	free(op);
}

static void create_done(const struct ttrpc_result *res, void *arg)
{
	TaskV2__CreateTaskResponse resp = TASK_V2__CREATE_TASK_RESPONSE__INIT;
	Events__TaskCreate ev = EVENTS__TASK_CREATE__INIT;
	Events__TaskIO io = EVENTS__TASK_IO__INIT;
	struct create *op = arg;
	struct container *c = op->c;
	struct shim *s = op->shim;
	struct err e = { 0 };

	if (res->code < 0) {
		if (!s->sandbox.agent && *s->sandbox.why)
			(void)err_set(&e, -EIO, "%s", s->sandbox.why);
		else
			(void)err_set(&e, res->code, "%s", err_text(res->err));
		create_fail(op, e.code, &e);
		return;
	}
	rootfs_close_files(c->rootfs);
	c->init.state = PROC_CREATED;
	resp.pid = sandbox_pid(s);
	ttrpc_reply(op->call, &resp.base);
	io.stdin = c->init.uri[0];
	io.stdout = c->init.uri[1];
	io.stderr = c->init.uri[2];
	io.terminal = c->init.terminal;
	ev.container_id = c->id;
	ev.bundle = c->bundle;
	ev.io = &io;
	ev.pid = resp.pid;
	events_publish(s->events, "/tasks/create", &ev.base);
	pb_arena_fini(&op->arena);
	free(op);
}

static void create_send(struct create *op)
{
	Agent__CreateContainerRequest *req = op->spec.req;
	struct container *c = op->c;
	struct shim *s = op->shim;
	struct vmctl *ctl = sandbox_ctl(s);
	struct err e = { 0 };
	int r;

	if (!ctl || !s->sandbox.agent)
		r = err_set(&e, -EIO, "the VM has ended: %s", s->sandbox.why);
	else
		r = stdio_connect(c->init.io, ctl, &s->sandbox.next_stream, req->process->stdio,
				  &e);
	if (r == 0)
		r = rootfs_describe(c->rootfs, &op->arena, &req->rootfs, &e);
	if (r == 0) {
		req->id = c->id;
		req->rootfs->readonly = op->spec.rootfs_readonly;
		req->process->terminal = c->init.terminal;
		r = agent_create_container(s->sandbox.agent, req, create_done, op);
	}
	if (r < 0)
		create_fail(op, r, &e);
}

static void create_mapped(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	struct create *op = arg;

	if (code < 0 && op->err.code == 0)
		(void)err_set(&op->err, code, "map a disk: %s", err ? err_text(err) : "VM ended");
	if (--op->maps_open)
		return;
	if (op->err.code < 0) {
		struct err e = op->err;

		create_fail(op, e.code, &e);
		return;
	}
	create_send(op);
}

static void create_ready(int code, const struct err *err, void *arg)
{
	struct create *op = arg;
	struct shim *s = op->shim;
	struct rootfs *rf = op->c->rootfs;
	struct vmctl *ctl = sandbox_ctl(s);
	struct err e = { 0 };
	int r = code;

	if (r == 0 && !ctl)
		r = err_set(&e, -EIO, "the VM has ended");
	else if (r < 0 && err)
		e = *err;
	if (r == 0)
		r = rootfs_assign(rf, &s->sandbox.windows, &e);
	for (size_t i = 0; r == 0 && i < rf->n; i++) {
		struct rootfs_disk *d = &rf->disks[i];

		if (!d->is_new)
			continue;
		r = vmctl_map(ctl, d->first, d->sectors, d->readonly, d->fd, create_mapped, op);
		op->maps_open += r == 0;
	}
	/* Layers that another container brought: its mapping may be on the way, this follows it. */
	if (r == 0 && op->maps_open == 0) {
		r = vmctl_info(ctl, create_mapped, op);
		op->maps_open += r == 0;
	}
	if (r == 0)
		return;
	if (op->maps_open)
		op->err = (struct err){ .code = r }; /* the last answer ends it */
	else
		create_fail(op, r, &e);
}

/* A task without a sandbox service: the first one brings the VM. */
static int implicit_sandbox(struct create *op, struct err *err)
{
	struct shim *s = op->shim;
	int r;

	if (s->sandbox.state != SB_NONE)
		return 0;
	r = sandbox_prepare(s, NULL, op->spec.hostname, err);
	return r < 0 ? r : sandbox_start(s, err);
}

static int create_check(struct shim *s, const TaskV2__CreateTaskRequest *req, struct err *err)
{
	if (!shim_id_valid(req->id))
		return err_set(err, -EINVAL, "\"%.60s\" is not a container id", req->id);
	if (container_find(s, req->id))
		return err_set(err, -EEXIST, "container %s exists already", req->id);
	if (s->n_containers == SHIM_CONTAINERS_MAX)
		return err_set(err, -ENOBUFS, "more than %u containers in the pod",
			       SHIM_CONTAINERS_MAX);
	if (!str_empty(req->checkpoint) || !str_empty(req->parent_checkpoint))
		return err_set(err, -ENOSYS, "checkpoints are not supported");
	if (req->bundle[0] != '/')
		return err_set(err, -EINVAL, "bundle %.100s is not an absolute path", req->bundle);
	return 0;
}

static int create_prepare(struct create *op, const TaskV2__CreateTaskRequest *req, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/config.json", req->bundle);
	struct container *c = op->c;
	int r;

	c->shim = op->shim;
	c->id = strdup(req->id);
	c->bundle = strdup(req->bundle);
	r = proc_init(&c->init, c, "", req->stdin, req->stdout, req->stderr, req->terminal);
	if (!path || !c->id || !c->bundle || r < 0)
		return -ENOMEM;
	r = oci_load(&op->arena, path, &op->spec, err);
	if (r < 0)
		return r;
	c->own_pids = op->spec.req->pid_namespace == AGENT__NAMESPACE_MODE__PRIVATE;
	c->init.command = str_fmt("%.200s", op->spec.req->process->args[0]);
	if (!c->init.command)
		return -ENOMEM;
	r = rootfs_open(req->rootfs, req->n_rootfs, &c->rootfs, err);
	if (r == 0)
		r = proc_open_stdio(&c->init, err);
	if (r == 0)
		r = implicit_sandbox(op, err);
	return r;
}

void container_create(struct shim *s, const TaskV2__CreateTaskRequest *req, struct ttrpc_call *call)
{
	struct create *op;
	struct err e = { 0 };
	int r = create_check(s, req, &e);

	op = r == 0 ? calloc(1, sizeof(*op)) : NULL;
	if (op)
		op->c = calloc(1, sizeof(*op->c));
	if (!op || !op->c) {
		free(op);
		ttrpc_reply_err(call, r < 0 ? r : -ENOMEM, &e);
		return;
	}
	op->shim = s;
	op->call = call;
	pb_arena_init(&op->arena, OCI_MEMORY_MAX);
	r = create_prepare(op, req, &e);
	op->c->next = s->containers;
	s->containers = op->c;
	s->n_containers++;
	if (r < 0)
		create_fail(op, r, &e);
	else
		sandbox_when_ready(s, create_ready, op);
}

/* ---- exits ---- */

void containers_exited(struct shim *s, const Agent__ExitEvent *ev)
{
	struct container *c = container_find(s, ev->id);
	struct proc *p = c ? &c->init : NULL;

	if (p && !str_empty(ev->exec_id)) {
		for (p = c->execs; p && !str_eq(p->exec_id, ev->exec_id);)
			p = p->next;
	}
	/* What the guest says about processes that were not started is not believed. */
	if (p && proc_alive(p))
		proc_exit(p, MIN_OF(ev->exit_status, 255), ev->oom_killed, NULL);
}

void containers_oom(struct shim *s, const char *id)
{
	Events__TaskOOM ev = EVENTS__TASK_OOM__INIT;
	struct container *c = container_find(s, id);

	if (!c)
		return;
	ev.container_id = c->id;
	events_publish(s->events, "/tasks/oom", &ev.base);
}

void containers_died(struct shim *s, uint32_t status, const char *why)
{
	for (struct container *c = s->containers; c; c = c->next) {
		if (c->init.state == PROC_CREATING || c->deleting)
			continue; /* their own answers come */
		for (struct proc *e = c->execs; e; e = e->next)
			proc_vm_died(e, status, why);
		proc_vm_died(&c->init, status, why);
	}
}

/* ---- delete ---- */

/* A Delete in flight. The container stays while it is `deleting`. */
struct delete
{
	struct container *c;
	struct ttrpc_call *call;
};

static bool detached(const Agent__RemoveContainerResponse *resp, uint64_t first)
{
	for (size_t i = 0; i < resp->n_detached_disks; i++) {
		if (resp->detached_disks[i] == first)
			return true;
	}
	return false;
}

/* resp NULL: the guest is gone, or never had it. */
static void delete_finish(struct container *c, struct ttrpc_call *call,
			  const Agent__RemoveContainerResponse *resp)
{
	TaskV2__DeleteResponse ok = TASK_V2__DELETE_RESPONSE__INIT;
	Events__TaskDelete ev = EVENTS__TASK_DELETE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	struct shim *s = c->shim;
	bool unmap;

	for (size_t i = 0; i < c->rootfs->n; i++) {
		unmap = !resp || detached(resp, c->rootfs->disks[i].first);
		sandbox_put_window(s, c->rootfs->disks[i].first, unmap);
	}
	pb_timestamp_set(&ts, c->init.exited_at);
	ok.pid = sandbox_pid(s);
	ok.exit_status = c->init.exit_status;
	if (c->init.exited)
		ok.exited_at = &ts;
	ttrpc_reply(call, &ok.base);
	ev.container_id = c->id;
	ev.pid = ok.pid;
	ev.exit_status = ok.exit_status;
	ev.exited_at = ok.exited_at;
	events_publish(s->events, "/tasks/delete", &ev.base);
	container_free(c);
}

static void delete_done(const struct ttrpc_result *res, void *arg)
{
	struct delete *op = arg;
	struct container *c = op->c;

	if (res->code == 0) {
		delete_finish(c, op->call, (const Agent__RemoveContainerResponse *)res->resp);
	} else if (res->code == -ENOENT || !c->shim->sandbox.agent) {
		delete_finish(c, op->call, NULL);
	} else {
		c->deleting = false;
		ttrpc_reply_err(op->call, res->code, res->err);
	}
	free(op);
}

static void delete_send(struct container *c, struct ttrpc_call *call)
{
	struct agent *agent = c->shim->sandbox.agent;
	struct delete *op;
	int r;

	/* Cut what a reader did not take. */
	stdio_free(take_ptr(&c->init.io));
	if (!agent) {
		delete_finish(c, call, NULL);
		return;
	}
	op = malloc(sizeof(*op));
	if (op)
		*op = (struct delete){ .c = c, .call = call };
	r = op ? agent_remove_container(agent, c->id, delete_done, op) : -ENOMEM;
	if (r < 0) {
		free(op);
		c->deleting = false;
		ttrpc_reply_err(call, r, NULL);
	}
}

static void on_delete_timer(struct ev_timer *t)
{
	struct container *c = t->arg;

	if (c->init.io && stdio_backlog(c->init.io) && now_mono_ns() < c->delete_until_ns &&
	    ev_timer_add(c->shim->loop, t, DELETE_POLL_NS, on_delete_timer, c) == 0)
		return;
	delete_send(c, take_ptr(&c->delete_call));
}

void container_delete(struct container *c, struct ttrpc_call *call)
{
	struct err e = { 0 };
	bool alive = proc_alive(&c->init);

	for (const struct proc *x = c->execs; x; x = x->next)
		alive |= proc_alive(x);
	if (alive) {
		(void)err_set(&e, -EBUSY, "container %s runs", c->id);
		ttrpc_reply_err(call, -EBUSY, &e);
		return;
	}
	c->deleting = true;
	if (!c->init.io || !stdio_backlog(c->init.io)) {
		delete_send(c, call);
		return;
	}
	c->delete_call = call;
	c->delete_until_ns = now_mono_ns() + DELETE_DRAIN_NS;
	c->delete_timer.arg = c;
	on_delete_timer(&c->delete_timer);
}
