#include "shim/pod/create.h"

#include <errno.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/util.h"
#include "shim/id.h"
#include "shim/oci/oci.h"

/* A Create in flight. */
struct create {
	struct container *c;
	container_done done;
	void *arg;
	struct pb_arena arena;
	struct oci_spec spec;
	unsigned maps_open;
	bool asked;	/* the agent has it */
	struct err err; /* the first failure of a mapping */
};

static void create_fail(struct create *op, int code, const struct err *err)
{
	struct container *c = op->c;

	/* An agent that was late may come to an end of it, nobody knows which. */
	if (code == -ETIMEDOUT && op->asked && c->all->sandbox->agent) {
		container_abandon(c);
	} else {
		container_put_windows(c, NULL, 0, true);
		container_free(c);
	}
	op->done(NULL, code, err, op->arg);
	pb_arena_fini(&op->arena);
	free(op);
}

static void create_on_answer(const struct ttrpc_result *res, void *arg)
{
	struct create *op = arg;
	struct container *c = op->c;
	const struct sandbox *sb = c->all->sandbox;
	struct err err = { 0 };
	int r = res->code;

	if (r < 0 && !sb->agent && *sb->why)
		r = err_set(&err, -EIO, "%s", sb->why);
	else if (r < 0)
		(void)err_set(&err, r, "%s", err_text(res->err));
	if (r < 0) {
		create_fail(op, r, &err);
		return;
	}
	rootfs_close_files(c->rootfs);
	proc_set_created(&c->init);
	op->done(c, 0, NULL, op->arg);
	c->all->ops->created(c, c->all->arg);
	pb_arena_fini(&op->arena);
	free(op);
}

static void create_send(struct create *op)
{
	Agent__CreateContainerRequest *req = op->spec.req;
	struct container *c = op->c;
	struct sandbox *sb = c->all->sandbox;
	struct err err = { 0 };
	int r = 0;

	if (!sb->agent)
		r = err_set(&err, -EIO, "the VM has ended: %s", sb->why);
	if (r == 0)
		r = stdio_connect(c->init.io, sandbox_open_stream, sb, req->process->stdio, &err);
	if (r == 0)
		r = rootfs_describe(c->rootfs, &op->arena, &req->rootfs, &err);
	if (r == 0) {
		req->id = c->id;
		req->rootfs->readonly = op->spec.rootfs_readonly;
		req->process->terminal = c->init.terminal;
		r = agent_create_container(sb->agent, req, create_on_answer, op);
		op->asked = r == 0;
		if (r < 0)
			(void)err_errno(&err, r, "create");
	}
	if (r < 0)
		create_fail(op, r, &err);
}

static void create_on_mapped(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	struct create *op = arg;
	struct err first;

	if (code < 0 && op->err.code == 0)
		(void)err_set(&op->err, code, "map a disk: %s", err ? err_text(err) : "VM ended");
	if (--op->maps_open)
		return;
	first = op->err;
	if (first.code < 0)
		create_fail(op, first.code, &first);
	else
		create_send(op);
}

/* Sends the mappings of disks that are new in this VM. */
static int map_disks(struct create *op, struct vmctl *ctl)
{
	const struct rootfs *rf = op->c->rootfs;
	int r = 0;

	for (size_t i = 0; r == 0 && i < rf->n; i++) {
		const struct rootfs_disk *d = &rf->disks[i];

		if (!d->to_map)
			continue;
		r = sandbox_map_window(op->c->all->sandbox, d->first, d->fd, create_on_mapped, op);
		op->maps_open += r == 0;
	}
	/* Layers that another container brought: its mapping may be on the way, this follows it. */
	if (r == 0 && op->maps_open == 0) {
		r = vmctl_info(ctl, create_on_mapped, op);
		op->maps_open += r == 0;
	}
	return r;
}

static void create_on_ready(void *arg, int code, const struct err *sandbox_err)
{
	struct create *op = arg;
	struct sandbox *sb = op->c->all->sandbox;
	struct vmctl *ctl = sandbox_ctl(sb);
	struct err err = *sandbox_err;
	int r = code;

	if (r == 0 && !ctl)
		r = err_set(&err, -EIO, "the VM has ended");
	if (r == 0)
		r = rootfs_assign(op->c->rootfs, &sb->windows, &err);
	if (r == 0) {
		r = map_disks(op, ctl);
		if (r < 0)
			(void)err_errno(&err, r, "map a disk");
	}
	if (r == 0)
		return;
	if (op->maps_open)
		op->err = err; /* the last answer ends it */
	else
		create_fail(op, r, &err);
}

static int create_check(const struct containers *cs, const TaskV2__CreateTaskRequest *req,
			struct err *err)
{
	if (!shim_id_valid(req->id))
		return err_set(err, -EINVAL, "\"%.60s\" is not a container id", req->id);
	if (container_find(cs, req->id))
		return err_set(err, -EEXIST, "container %s exists already", req->id);
	if (cs->n == POD_CONTAINERS_MAX)
		return err_set(err, -ENOBUFS, "more than %u containers in the pod",
			       POD_CONTAINERS_MAX);
	if (!str_empty(req->checkpoint) || !str_empty(req->parent_checkpoint))
		return err_set(err, -ENOSYS, "checkpoints are not supported");
	if (req->bundle[0] != '/')
		return err_set(err, -EINVAL, "bundle %.100s is not an absolute path", req->bundle);
	return 0;
}

/* A task without a sandbox service: the first one brings the VM. */
static int implicit_sandbox(struct create *op, struct err *err)
{
	struct sandbox *sb = op->c->all->sandbox;
	int r;

	if (sb->state != SB_NONE)
		return 0;
	r = sandbox_prepare_implicit(sb, op->spec.hostname, err);
	return r < 0 ? r : sandbox_start(sb, err);
}

static int create_prepare(struct create *op, const TaskV2__CreateTaskRequest *req, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/config.json", req->bundle);
	struct container *c = op->c;
	int r;

	if (!path)
		return err_nomem(err);
	r = oci_load(&op->arena, path, &op->spec, err);
	if (r < 0)
		return r;
	c->oom_score_adj = op->spec.req->process->oom_score_adj;
	containers_weigh(c->all);
	c->own_pids = op->spec.req->pid_namespace == AGENT__NAMESPACE_MODE__PRIVATE;
	c->init.command = str_fmt("%.200s", op->spec.req->process->args[0]);
	if (!c->init.command)
		return err_nomem(err);
	r = rootfs_open(req->rootfs, req->n_rootfs, &c->rootfs, err);
	if (r == 0)
		r = proc_open_stdio(&c->init, err);
	if (r == 0)
		r = implicit_sandbox(op, err);
	return r;
}

void container_create(struct containers *cs, const TaskV2__CreateTaskRequest *req,
		      container_done done, void *arg)
{
	struct create *op = NULL;
	struct container *c = NULL;
	struct err err = { 0 };
	int r = create_check(cs, req, &err);

	if (r == 0) {
		op = calloc(1, sizeof(*op));
		c = op ? container_new(cs, req) : NULL;
		if (!c)
			r = err_nomem(&err);
	}
	if (r < 0) {
		free(op);
		done(NULL, r, &err, arg);
		return;
	}
	*op = (struct create){ .c = c, .done = done, .arg = arg };
	pb_arena_init(&op->arena, OCI_MEMORY_MAX);
	r = create_prepare(op, req, &err);
	if (r < 0)
		create_fail(op, r, &err);
	else
		sandbox_when_ready(cs->sandbox, create_on_ready, op);
}
