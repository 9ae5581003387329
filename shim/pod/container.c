#include "shim/pod/container.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/util.h"
#include "shim/id.h"

void containers_init(struct containers *cs, struct loop *l, struct sandbox *sb,
		     const struct container_ops *ops, void *arg)
{
	*cs = (struct containers){ .loop = l, .sandbox = sb, .ops = ops, .arg = arg };
}

void containers_fini(struct containers *cs)
{
	while (cs->first)
		container_free(cs->first);
}

struct container *container_find(const struct containers *cs, const char *id)
{
	struct container *c = cs->first;

	while (c && !str_eq(c->id, id))
		c = c->next;
	return c;
}

static struct proc *find_exec(const struct container *c, const char *exec_id)
{
	struct proc *p = c->execs;

	while (p && !str_eq(p->exec_id, exec_id))
		p = p->next;
	return p;
}

struct proc *container_proc(const struct containers *cs, const char *id, const char *exec_id,
			    struct err *err)
{
	struct container *c = container_find(cs, id);
	struct proc *p;

	if (!c || c->init.state == PROC_CREATING || c->deleting) {
		(void)err_set(err, -ENOENT, "container %.130s: not found", id);
		return NULL;
	}
	p = str_empty(exec_id) ? &c->init : find_exec(c, exec_id);
	if (!p)
		(void)err_set(err, -ENOENT, "exec %.130s of container %.130s: not found", exec_id,
			      id);
	return p;
}

struct container *container_of_proc(const struct proc *p)
{
	return p->owner;
}

/* ---- processes ---- */

static bool execs_alive(const struct container *c)
{
	for (const struct proc *x = c->execs; x; x = x->next) {
		if (proc_alive(x))
			return true;
	}
	return false;
}

/* The first process's exit is the last one of its container. */
static bool container_proc_held(const struct proc *p)
{
	return !proc_is_exec(p) && execs_alive(p->owner);
}

static void container_on_signalled(const struct ttrpc_result *res, void *arg)
{
}

static void kill_all_of(const struct proc *p)
{
	const struct container *c = p->owner;

	if (p->sandbox->agent)
		(void)!agent_signal(p->sandbox->agent, c->id, p->exec_id, SIGKILL, true,
				    container_on_signalled, NULL);
}

static void container_proc_started(struct proc *p)
{
	const struct container *c = p->owner;

	c->all->ops->started(p, c->all->arg);
	if (p->dropped)
		kill_all_of(p);
}

/* Without pids of its own the container outlives its first process; what is left of it ends. */
static void container_proc_exited(struct proc *p)
{
	const struct container *c = p->owner;

	if (!proc_is_exec(p) && !c->own_pids && proc_alive(p))
		kill_all_of(p);
}

static void free_dropped(struct container *c)
{
	for (struct proc *p = c->execs, *next; p; p = next) {
		next = p->next;
		if (p->dropped && !proc_alive(p))
			(void)!container_delete_exec(p, NULL);
	}
}

static void container_on_dropped_timer(struct ev_timer *t)
{
	free_dropped(t->arg);
}

static void container_proc_gone(struct proc *p, bool ran)
{
	struct container *c = p->owner;

	if (ran)
		c->all->ops->exited(p, c->all->arg);
	/* Not in here. Without memory the next drop, or the container's end, does it. */
	if (p->dropped)
		(void)!ev_timer_add(c->all->loop, &c->dropped_timer, 0, container_on_dropped_timer,
				    c);
	if (proc_is_exec(p))
		proc_try_publish(&c->init); /* it may have waited for this one */
}

static void delete_flushed(struct container *c);

static void container_proc_flushed(struct proc *p)
{
	if (!proc_is_exec(p))
		delete_flushed(p->owner);
}

static void container_proc_output_lost(const struct proc *p, const struct err *err)
{
	const struct container *c = p->owner;

	c->all->ops->output_lost(p, err, c->all->arg);
}

static const struct proc_ops proc_ops = {
	.held = container_proc_held,
	.started = container_proc_started,
	.exited = container_proc_exited,
	.gone = container_proc_gone,
	.flushed = container_proc_flushed,
	.output_lost = container_proc_output_lost,
};

void container_start(struct proc *p, proc_start_done done, void *arg)
{
	const struct container *c = p->owner;
	struct err err = { 0 };

	if (!proc_is_exec(p) || p->state != PROC_CREATED || c->init.state == PROC_RUNNING) {
		proc_start(p, done, arg);
		return;
	}
	(void)err_set(&err, -EBUSY, "the container does not run");
	done(p, -EBUSY, &err, NULL, arg);
}

static int check_exec(const struct container *c, const char *exec_id, struct err *err)
{
	if (!shim_id_valid(exec_id))
		return err_set(err, -EINVAL, "\"%.60s\" is not an exec id", exec_id);
	if (find_exec(c, exec_id))
		return err_set(err, -EEXIST, "exec %s exists already", exec_id);
	if (c->n_execs == EXECS_MAX)
		return err_set(err, -ENOBUFS, "more than %u processes", EXECS_MAX);
	if (c->init.state == PROC_STOPPED || c->init.exited)
		return err_set(err, -EBUSY, "container %s does not run", c->id);
	return 0;
}

int container_add_exec(struct container *c, const TaskV2__ExecProcessRequest *req, struct err *err)
{
	struct proc_setup setup = {
		.loop = c->all->loop,
		.sandbox = c->all->sandbox,
		.ops = &proc_ops,
		.owner = c,
		.container = c->id,
		.exec_id = req->exec_id,
		.uri = { req->stdin, req->stdout, req->stderr },
		.terminal = req->terminal,
	};
	struct proc *p;
	int r = check_exec(c, req->exec_id, err);

	if (r < 0)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_nomem(err);
	r = proc_init(p, &setup);
	if (r < 0)
		r = err_nomem(err);
	else
		r = proc_take_spec(p, req->spec, err);
	if (r < 0) {
		proc_fini(p);
		free(p);
		return r;
	}
	p->next = c->execs;
	c->execs = p;
	c->n_execs++;
	c->all->ops->exec_added(p, c->all->arg);
	return 0;
}

int container_delete_exec(struct proc *p, struct err *err)
{
	struct container *c = p->owner;
	struct proc **at = &c->execs;

	if (proc_alive(p))
		return err_set(err, -EBUSY, "process %s runs", p->exec_id);
	while (*at && *at != p)
		at = &(*at)->next;
	check(*at == p);
	*at = p->next;
	c->n_execs--;
	proc_fini(p);
	free(p);
	return 0;
}

void container_drop_execs(struct container *c)
{
	for (struct proc *p = c->execs; p; p = p->next) {
		if (p->state == PROC_RUNNING && !p->dropped)
			kill_all_of(p);
		p->dropped = true; /* one that is starting is killed when it has started */
	}
	free_dropped(c);
}

/* ---- birth and end ---- */

struct container *container_new(struct containers *cs, const TaskV2__CreateTaskRequest *req)
{
	struct container *c = calloc(1, sizeof(*c));
	struct proc_setup setup = {
		.loop = cs->loop,
		.sandbox = cs->sandbox,
		.ops = &proc_ops,
		.owner = c,
		.exec_id = "",
		.uri = { req->stdin, req->stdout, req->stderr },
		.terminal = req->terminal,
	};

	if (!c)
		return NULL;
	c->all = cs;
	c->oom_score_adj = INT_MAX;
	c->id = strdup(req->id);
	c->bundle = strdup(req->bundle);
	setup.container = c->id;
	c->next = cs->first;
	cs->first = c;
	cs->n++;
	if (proc_init(&c->init, &setup) < 0 || !c->id || !c->bundle) {
		container_free(c);
		return NULL;
	}
	return c;
}

void container_free(struct container *c)
{
	struct container **at = &c->all->first;
	struct err err = { 0 };
	struct proc *x;

	while (*at && *at != c)
		at = &(*at)->next;
	check(*at == c);
	*at = c->next;
	c->all->n--;
	containers_weigh(c->all);
	ev_timer_del(&c->drain_timer);
	ev_timer_del(&c->quiet_timer);
	ev_timer_del(&c->killed_timer);
	ev_timer_del(&c->dropped_timer);
	if (c->delete_done) {
		(void)err_set(&err, -ECANCELED, "the shim ends");
		c->delete_done(NULL, -ECANCELED, &err, c->delete_arg);
	}
	while ((x = c->execs)) {
		c->execs = x->next;
		proc_fini(x);
		free(x);
	}
	proc_fini(&c->init);
	rootfs_free(c->rootfs);
	free(c->id);
	free(c->bundle);
	free(c);
}

void containers_weigh(const struct containers *cs)
{
	int score = INT_MAX;

	for (const struct container *c = cs->first; c; c = c->next)
		score = MIN_OF(score, c->oom_score_adj);
	if (score != INT_MAX)
		sandbox_set_oom_score(cs->sandbox, score);
}

/* ---- what the sandbox says ---- */

void containers_exited(struct containers *cs, const Agent__ExitEvent *ev)
{
	struct container *c = container_find(cs, ev->id);
	struct proc *p = NULL;

	if (c)
		p = str_empty(ev->exec_id) ? &c->init : find_exec(c, ev->exec_id);
	/* What the guest says about processes that were not started is not believed. */
	if (p && proc_alive(p))
		proc_exit(p, MIN_OF(ev->exit_status, 255), ev->oom_killed, NULL);
}

void containers_oom(struct containers *cs, const char *id)
{
	const struct container *c = container_find(cs, id);

	if (c)
		cs->ops->oom(c, cs->arg);
}

void containers_died(struct containers *cs, uint32_t status, const char *why)
{
	for (struct container *c = cs->first; c; c = c->next) {
		if (c->init.state == PROC_CREATING || c->deleting)
			continue; /* their own answers come */
		for (struct proc *x = c->execs; x; x = x->next)
			proc_vm_died(x, status, why);
		proc_vm_died(&c->init, status, why);
	}
}

/* ---- delete ---- */

/* A Delete that the agent has. The container stays while it is `deleting`. */
struct deletion {
	struct container *c;
	container_done done;
	void *arg;
};

void container_put_windows(struct container *c, const uint64_t *detached, size_t n, bool all)
{
	struct rootfs *rf = c->rootfs;

	for (size_t i = 0; rf && i < rf->n; i++) {
		struct rootfs_disk *d = &rf->disks[i];
		bool let_go = all;

		for (size_t k = 0; k < n; k++)
			let_go |= detached[k] == d->first;
		if (d->assigned)
			sandbox_put_window(c->all->sandbox, d->first, let_go);
		d->assigned = false;
	}
}

/* What the guest answered, or that it is gone, or never had it. The host's files are taken from it
 * in any case. */
static void put_removed(struct container *c, const struct ttrpc_result *res)
{
	const Agent__RemoveContainerResponse *resp;

	if (!res || res->code < 0) {
		container_put_windows(c, NULL, 0, true);
		return;
	}
	resp = (const Agent__RemoveContainerResponse *)res->resp;
	container_put_windows(c, resp->detached_disks, resp->n_detached_disks, false);
}

static void delete_finish(struct container *c, container_done done, void *arg,
			  const struct ttrpc_result *res)
{
	put_removed(c, res);
	done(c, 0, NULL, arg);
	c->all->ops->deleted(c, c->all->arg);
	container_free(c);
}

/* It stays, but nothing of it runs: what it wrote is of no use, and its space is the host's. A
 * guest that is still writing back gets errors, and is through the sooner. */
static void revoke_windows(struct container *c)
{
	for (size_t i = 0; i < c->rootfs->n; i++)
		sandbox_revoke_window(c->all->sandbox, c->rootfs->disks[i].first);
}

static void container_on_killed_timer(struct ev_timer *t)
{
	struct container *c = t->arg;
	struct sandbox *sb = c->all->sandbox;

	if (c->init.state == PROC_STOPPED || !sb->room.full)
		return;
	sb->ops->trouble("a killed container waits for room on the host: its writes are dropped",
			 NULL, sb->arg);
	revoke_windows(c);
}

void container_killed(struct container *c)
{
	/* Counted from the first one: whoever kills every second may not put it off. Without memory
	 * for a timer it waits for the host. */
	if (c->rootfs && !c->killed_timer.loop)
		(void)!ev_timer_add(c->all->loop, &c->killed_timer, KILLED_ROOM_NS,
				    container_on_killed_timer, c);
}

static void container_on_removed(const struct ttrpc_result *res, void *arg)
{
	struct deletion *op = arg;
	struct container *c = op->c;

	if (res->code == 0) {
		delete_finish(c, op->done, op->arg, res);
	} else if (res->code == -ENOENT || !c->all->sandbox->agent) {
		delete_finish(c, op->done, op->arg, NULL);
	} else {
		revoke_windows(c);
		c->deleting = false;
		op->done(c, res->code, res->err, op->arg);
	}
	free(op);
}

static void container_on_abandoned(const struct ttrpc_result *res, void *arg)
{
	struct container *c = arg;

	if (res->code == 0 || !c->all->sandbox->agent)
		put_removed(c, res);
	else /* it may be made yet: its sectors are not used again */
		container_put_windows(c, NULL, 0, false);
	container_free(c);
}

void container_abandon(struct container *c)
{
	struct agent *agent = c->all->sandbox->agent;

	c->deleting = true;
	stdio_free(take_ptr(&c->init.io));
	if (agent && agent_remove_container(agent, c->id, container_on_abandoned, c) == 0)
		return;
	container_put_windows(c, NULL, 0, !agent);
	container_free(c);
}

static void delete_send(struct container *c, container_done done, void *arg)
{
	struct agent *agent = c->all->sandbox->agent;
	struct deletion *op;
	struct err err = { 0 };
	int r;

	/* Cut what a reader did not take. */
	stdio_free(take_ptr(&c->init.io));
	if (!agent) {
		delete_finish(c, done, arg, NULL);
		return;
	}
	op = malloc(sizeof(*op));
	if (op)
		*op = (struct deletion){ .c = c, .done = done, .arg = arg };
	r = op ? agent_remove_container(agent, c->id, container_on_removed, op) : -ENOMEM;
	if (r < 0) {
		free(op);
		c->deleting = false;
		(void)err_errno(&err, r, "delete");
		done(c, r, &err, arg);
	}
}

/* The reader has had its time, or took everything. */
static void delete_go_on(struct container *c)
{
	ev_timer_del(&c->drain_timer);
	ev_timer_del(&c->quiet_timer);
	delete_send(c, take_ptr(&c->delete_done), c->delete_arg);
}

static void container_on_drain_timer(struct ev_timer *t)
{
	delete_go_on(t->arg);
}

static void container_on_quiet_timer(struct ev_timer *t)
{
	struct container *c = t->arg;

	if (!stdio_backlog(c->init.io))
		delete_go_on(c);
}

/* The reader took what was queued. What the guest still has of it follows at once. */
static void delete_flushed(struct container *c)
{
	if (!c->delete_done)
		return;
	if (stdio_drained(c->init.io) ||
	    ev_timer_add(c->all->loop, &c->quiet_timer, DELETE_QUIET_NS, container_on_quiet_timer,
			 c) < 0)
		delete_go_on(c);
}

void container_delete(struct container *c, container_done done, void *arg)
{
	struct err err = { 0 };

	if (proc_alive(&c->init) || execs_alive(c)) {
		(void)err_set(&err, -EBUSY, "container %s runs", c->id);
		done(c, -EBUSY, &err, arg);
		return;
	}
	c->deleting = true;
	if (!c->init.io || !stdio_backlog(c->init.io) ||
	    ev_timer_add(c->all->loop, &c->drain_timer, DELETE_DRAIN_NS, container_on_drain_timer,
			 c) < 0) {
		delete_send(c, done, arg);
		return;
	}
	c->delete_done = done;
	c->delete_arg = arg;
}
