#include "agent/container.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/pb.h"
#include "base/util.h"

/* A removal waits this long for what the kernel still holds (lazily dropped mounts, dying tasks).
 */
#define REMOVE_PATIENCE_NS (5 * NS_PER_S)
#define REMOVE_STEP_NS (1 * NS_PER_MS)
/* syslog(2). The kernel remembers the level of the first CONSOLE_OFF, so that two may overlap. */
#define SYSLOG_CONSOLE_OFF 6
#define SYSLOG_CONSOLE_ON 7

/* The arrows of container.h; no other function assigns the state. */
static void set_state(struct container *c, enum container_state to)
{
	static const unsigned from[] = {
		[CONTAINER_CREATING] = 0, /* what a new one is */
		[CONTAINER_CREATED] = 1u << CONTAINER_CREATING,
		[CONTAINER_STARTING] = 1u << CONTAINER_CREATED,
		[CONTAINER_RUNNING] = 1u << CONTAINER_STARTING,
		/* No child, or a removal that did not begin: from CREATED. One that failed: from
		 * REMOVING. */
		[CONTAINER_STOPPED] = 1u << CONTAINER_CREATED | 1u << CONTAINER_STARTING |
				      1u << CONTAINER_RUNNING | 1u << CONTAINER_REMOVING,
		/* From CREATING: the create failed. */
		[CONTAINER_REMOVING] = 1u << CONTAINER_CREATING | 1u << CONTAINER_CREATED |
				       1u << CONTAINER_STOPPED,
	};

	check(from[to] & 1u << c->state);
	c->state = to;
}

int container_find(struct agent *a, const char *id, struct container **ret, struct err *err)
{
	for (size_t i = 0; i < POD_CONTAINERS_MAX; i++) {
		if (a->containers[i] && str_eq(a->containers[i]->id, id)) {
			*ret = a->containers[i];
			return 0;
		}
	}
	return err_set(err, -ENOENT, "no container \"%.*s\"", CONTAINER_ID_MAX, id);
}

void container_free(struct container *c)
{
	if (!c)
		return;
	while (c->processes) {
		struct process *p = c->processes;

		c->processes = p->next;
		process_free(p);
	}
	process_free(c->gone_first);
	if (c->create)
		ttrpc_reply_err(c->create, -ECANCELED, NULL);
	if (c->remove)
		ttrpc_reply_err(c->remove, -ECANCELED, NULL);
	mounter_stop(&c->agent->reaper, &c->mounter);
	reaper_del(&c->agent->reaper, &c->worker.child);
	stdio_drop(&c->agent->stdio, c);
	cgroup_unwatch(&c->agent->cgroups, c->memory_wd);
	fd_close(&c->rootfs.mnt);
	fd_close(&c->cgroup);
	fd_close(&c->go);
	if (c->spec)
		agent__create_container_request__free_unpacked(c->spec, NULL);
	for (size_t i = 0; i < POD_CONTAINERS_MAX; i++)
		if (c->agent->containers[i] == c)
			c->agent->containers[i] = NULL;
	free(c);
}

/* ---- news ---- */

static void publish(struct container *c, const struct event *ev)
{
	/* Out of memory for the ring: this event is lost, the next one tries again. */
	(void)!events_add(&c->agent->events, ev);
}

static void check_oom(struct container *c)
{
	uint64_t n = cgroup_oom_kills(c->cgroup);
	struct event ev = { .oom = true };

	if (n <= c->oom_kills)
		return;
	c->oom_kills = n;
	memcpy(ev.id, c->id, sizeof(ev.id));
	publish(c, &ev);
}

void container_on_memory_event(int wd, void *arg)
{
	struct agent *a = arg;

	for (size_t i = 0; i < POD_CONTAINERS_MAX; i++)
		if (a->containers[i] && a->containers[i]->memory_wd == wd)
			check_oom(a->containers[i]);
}

static void publish_exit(struct container *c, const struct process *p)
{
	struct event ev = {
		.pid = (uint32_t)p->pid,
		.exit_status = p->exit_status,
		.exited_at_ns = p->exited_at_ns,
		.oom_killed = c->oom_kills > p->oom_kills,
	};

	memcpy(ev.id, c->id, sizeof(ev.id));
	memcpy(ev.exec_id, p->exec_id, sizeof(ev.exec_id));
	publish(c, &ev);
}

static int container_limit(struct process *p, struct err *err)
{
	const struct container *c = p->owner;

	return cgroup_limit_cpu(c->cgroup, c->spec, err);
}

static void container_on_running(struct process *p)
{
	struct container *c = p->owner;

	if (!p->exec_id[0])
		set_state(c, CONTAINER_RUNNING);
}

static void container_on_gone(struct process *p)
{
	struct container *c = p->owner;
	struct process **at = &c->processes;

	while (*at != p) {
		check(*at);
		at = &(*at)->next;
	}
	*at = p->next;
	c->n_processes--;
	check_oom(c);
	if (!p->exec_id[0]) {
		set_state(c, CONTAINER_STOPPED);
		/* In a pid namespace of its own everything else is dead already. */
		if (c->spec->pid_namespace == AGENT__NAMESPACE_MODE__POD)
			(void)!cgroup_kill(c->cgroup);
		if (p->failure.kind == 0) {
			c->gone_first = p;
			p = NULL;
		}
	} else if (p->failure.kind == 0) {
		publish_exit(c, p);
	}
	process_free(p);
	/* The container's own exit comes after those of its execs. */
	if (c->gone_first && c->n_processes == 0) {
		publish_exit(c, c->gone_first);
		process_free(take_ptr(&c->gone_first));
	}
}

/* ---- processes ---- */

static const struct process_ops container_process_ops = {
	.limit = container_limit,
	.running = container_on_running,
	.gone = container_on_gone,
};

/* Starts a process in the container; first: NULL when it is the first itself. */
static int start_process(struct container *c, const char *exec_id, const Agent__Process *spec,
			 const struct process *first, struct ttrpc_call *call, struct err *err)
{
	const struct process_job job = {
		.agent = c->agent,
		.owner = c,
		.ops = &container_process_ops,
		.exec_id = exec_id,
		.container = c->spec,
		.spec = spec,
		.cgroup = c->cgroup,
		.rootfs = first ? -1 : c->rootfs.mnt,
		.first = first,
	};
	struct process *p;
	int r = process_start(&job, call, &p, err);

	if (r < 0)
		return r;
	p->oom_kills = c->oom_kills;
	p->next = c->processes;
	c->processes = p;
	c->n_processes++;
	return 0;
}

int container_start(struct container *c, struct ttrpc_call *call, struct err *err)
{
	int r;

	if (c->create)
		return err_set(err, -EBUSY, "container %s is still being created", c->id);
	if (c->state != CONTAINER_CREATED)
		return err_set(err, -EBUSY, "container %s was started already", c->id);
	r = start_process(c, "", c->spec->process, NULL, call, err);
	/* One attempt: the namespaces and mounts of a second one would not be those of the first.
	 */
	set_state(c, r < 0 ? CONTAINER_STOPPED : CONTAINER_STARTING);
	return r;
}

int container_exec(struct container *c, const Agent__ExecProcessRequest *req,
		   struct ttrpc_call *call, struct err *err)
{
	const struct process *first = NULL;

	if (c->state != CONTAINER_RUNNING)
		return err_set(err, -EBUSY, "container %s is not running", c->id);
	for (const struct process *p = c->processes; p; p = p->next) {
		if (str_eq(p->exec_id, req->exec_id))
			return err_set(err, -EEXIST, "process \"%s\" is there already",
				       req->exec_id);
		if (!p->exec_id[0])
			first = p;
	}
	check(first); /* or it would not be RUNNING */
	if (c->n_processes >= CONTAINER_PROCESSES_MAX)
		return err_set(err, -EINVAL, "a container has at most %u processes of the host",
			       CONTAINER_PROCESSES_MAX);
	return start_process(c, req->exec_id, req->process, first, call, err);
}

int container_process(struct container *c, const char *exec_id, struct process **ret,
		      struct err *err)
{
	if (!container_was_started(c))
		return err_set(err, -EBUSY, "container %s is not started", c->id);
	for (struct process *p = c->processes; p; p = p->next) {
		if (str_eq(p->exec_id, exec_id)) {
			*ret = p;
			return 0;
		}
	}
	if (!*exec_id)
		return err_set(err, -ENOENT, "container %s has ended", c->id);
	return err_set(err, -ENOENT, "no process \"%.*s\" in container %s", CONTAINER_ID_MAX,
		       exec_id, c->id);
}

/* ---- remove ---- */

static int detach_disks(const struct container *c)
{
	const struct disks *disks = &c->agent->disks;
	cleanup_fd int dev = -1;
	int r = disks_open(disks, &dev, NULL);

	if (r < 0)
		return r == -ENOENT ? 0 : r; /* without a device nothing is attached */
	for (size_t i = 0; i < c->rootfs.n_disks; i++) {
		int e = disk_detach(disks, dev, c->rootfs.disks[i]);

		r = e < 0 ? e : r;
	}
	return r;
}

static int remove_step(const struct container *c)
{
	int r = 0, e;

	/* It has none when its create failed before. */
	if (c->cgroup >= 0) {
		(void)!cgroup_kill(c->cgroup);
		r = cgroup_remove(c->agent->cgroups.pod, c->id);
	}
	e = c->rootfs.n_disks > 0 ? detach_disks(c) : 0;
	return e < 0 ? e : r;
}

/* The kernel says so on the console, as for a file system that broke. This one did not. */
static void discard_disks(const struct container *c)
{
	(void)klogctl(SYSLOG_CONSOLE_OFF, NULL, 0);
	for (size_t i = 0; i < c->rootfs.n_disks; i++)
		disk_discard(&c->agent->disks, c->rootfs.disks[i]);
	(void)klogctl(SYSLOG_CONSOLE_ON, NULL, 0);
}

/* The last reference to the root mount is this process's, not the loop's: what goes with it (files
 * that were deleted while open) waits for the disk. */
static void let_go_of_root(struct container *c)
{
	char none;

	while (read(c->go, &none, 1) < 0 && errno == EINTR)
		;
	fd_close(&c->rootfs.mnt);
}

/* In a process of its own: unmounting writes back what the container has left in the page cache,
 * and the kernel gives up some references a moment later than the last process. */
static int container_remove_work(void *arg)
{
	struct timespec pause = { .tv_nsec = REMOVE_STEP_NS };
	uint64_t end = now_mono_ns() + REMOVE_PATIENCE_NS;
	struct container *c = arg;
	int r;

	let_go_of_root(c);
	if (c->discard)
		discard_disks(c);
	while ((r = remove_step(c)) == -EBUSY && now_mono_ns() < end) {
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 64 * (long)REMOVE_STEP_NS)
			pause.tv_nsec *= 2;
	}
	return r;
}

/* The removal is through; also one that undid a create. */
static void removal_end(struct container *c, int result)
{
	struct agent *a = c->agent;
	Agent__RemoveContainerResponse resp = AGENT__REMOVE_CONTAINER_RESPONSE__INIT;
	uint64_t sectors[CONTAINER_LOWERS_MAX + 1];
	struct ttrpc_call *create = take_ptr(&c->create), *call = take_ptr(&c->remove);
	struct err err = { 0 };

	if (create)
		ttrpc_reply_err(create, c->failure.code, &c->failure);
	for (size_t i = 0; i < c->rootfs.n_disks; i++) {
		sectors[i] = c->rootfs.disks[i]->first_sector;
		/* The disks stay marked, so that none is used half detached. */
		if (result < 0)
			c->rootfs.disks[i]->stuck = true;
		else
			disk_forget(c->rootfs.disks[i]);
	}
	resp.n_detached_disks = c->rootfs.n_disks;
	resp.detached_disks = sectors;
	if (result < 0)
		err_errno(&err, result, "remove container %s", c->id);
	/* It can be tried again; but one that was never made is not there. */
	if (result < 0 && !create)
		set_state(c, CONTAINER_STOPPED);
	else
		container_free(c);
	if (call && result < 0)
		ttrpc_reply_err(call, result, &err);
	else if (call)
		ttrpc_reply(call, &resp.base);
	a->on_settled(a);
}

static void container_remove_done(struct worker *w, int result)
{
	removal_end(container_of(w, struct container, worker), result);
}

static int start_worker(struct container *c)
{
	int keep[4], go[2], r;

	if (pipe2(go, O_CLOEXEC) < 0)
		return -errno;
	c->go = go[0];
	keep[0] = c->agent->cgroups.pod;
	keep[1] = c->cgroup;
	keep[2] = c->rootfs.mnt;
	keep[3] = go[0];
	r = worker_start(&c->agent->reaper, &c->worker, container_remove_work, c, keep,
			 ARRAY_SIZE(keep), container_remove_done);
	fd_close(&c->go);
	if (r == 0)
		fd_close(&c->rootfs.mnt);
	fd_close(&go[1]);
	return r;
}

/* On failure nothing is under way, and its disks are marked as if the removal had failed. */
static int start_removal(struct container *c)
{
	size_t n = 0;
	int r;

	/* Disks of others are theirs from now on; ours are not given to anybody any more. */
	for (size_t i = 0; i < c->rootfs.n_disks; i++) {
		struct disk *d = c->rootfs.disks[i];

		if (d->refs > 1) {
			disk_forget(d);
		} else {
			d->attaching = false;
			d->detaching = true;
			d->stuck = false;
			c->rootfs.disks[n++] = d;
		}
	}
	c->rootfs.n_disks = n;
	r = start_worker(c);
	if (r == 0)
		set_state(c, CONTAINER_REMOVING);
	for (size_t i = 0; r < 0 && i < n; i++)
		c->rootfs.disks[i]->stuck = true;
	return r;
}

int container_remove(struct container *c, bool discard, struct ttrpc_call *call, struct err *err)
{
	int r;

	if (c->remove)
		return err_set(err, -EBUSY, "container %s is being removed", c->id);
	if (c->create) { /* when that has its answer */
		c->discard = discard;
		c->remove = call;
		return 0;
	}
	if (c->state != CONTAINER_CREATED && c->state != CONTAINER_STOPPED)
		return err_set(err, -EBUSY, "container %s is running", c->id);
	if (c->n_processes > 0)
		return err_set(err, -EBUSY, "container %s has running processes", c->id);
	stdio_drop(&c->agent->stdio, c);
	c->discard = discard;
	r = start_removal(c);
	if (r < 0) {
		if (c->state == CONTAINER_CREATED)
			set_state(c, CONTAINER_STOPPED);
		return err_errno(err, r, "remove container %s", c->id);
	}
	c->remove = call;
	return 0;
}

/* ---- create ---- */

/* What it has by now is taken back before the answer. */
static void create_failed(struct container *c, int r, const struct err *err)
{
	c->failure = *err;
	(void)err_wrap(&c->failure, r, "create container");
	c->failure.code = r;
	r = start_removal(c);
	if (r < 0)
		removal_end(c, r);
}

static void container_on_mounted(struct mounter *m, int r, int mnt, const struct err *failure)
{
	struct container *c = container_of(m, struct container, mounter);
	Agent__CreateContainerResponse resp = AGENT__CREATE_CONTAINER_RESPONSE__INIT;
	struct agent *a = c->agent;
	struct ttrpc_call *remove;
	struct err err = *failure;

	if (r == 0) {
		rootfs_mounted(&a->disks, &c->rootfs, mnt);
		r = cgroup_create(&a->cgroups, c->spec, &c->cgroup, &c->memory_wd, &err);
	}
	if (r < 0) {
		create_failed(c, r, &err);
		return;
	}
	set_state(c, CONTAINER_CREATED);
	remove = take_ptr(&c->remove);
	ttrpc_reply(take_ptr(&c->create), &resp.base);
	if (remove) {
		r = container_remove(c, c->discard, remove, &err);
		if (r < 0)
			ttrpc_reply_err(remove, r, &err);
	}
	a->on_settled(a);
}

static int begin_create(struct container *c, const Agent__CreateContainerRequest *req,
			struct err *err)
{
	struct agent *a = c->agent;
	int r;

	c->spec = (void *)pb_clone(&req->base); /* for its processes, after the request is gone */
	if (!c->spec)
		return err_nomem(err);
	r = rootfs_reserve(&a->disks, c->spec->rootfs, &c->rootfs, err);
	if (r < 0)
		return r;
	r = mounter_start(&a->reaper, &c->mounter, &a->disks, c->spec->rootfs, &c->rootfs,
			  container_on_mounted, err);
	if (r < 0)
		rootfs_unreserve(&c->rootfs);
	return r;
}

int container_create(struct agent *a, const Agent__CreateContainerRequest *req,
		     struct ttrpc_call *call, struct err *err)
{
	struct container **slot = NULL, *c;
	unsigned creating = 0;
	int r;

	if (container_find(a, req->id, &c, NULL) == 0)
		return err_set(err, -EEXIST, "container \"%s\" is there already", req->id);
	for (size_t i = 0; i < POD_CONTAINERS_MAX; i++) {
		if (!a->containers[i])
			slot = &a->containers[i];
		else
			creating += a->containers[i]->state == CONTAINER_CREATING;
	}
	if (!slot)
		return err_set(err, -EINVAL, "a pod has at most %u containers", POD_CONTAINERS_MAX);
	if (creating >= AGENT_CREATES_MAX || disks_moving(&a->disks, req->rootfs))
		return -EAGAIN;
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_nomem(err);
	c->agent = a;
	memcpy(c->id, req->id, strlen(req->id) + 1); /* bounded by validate.c */
	c->rootfs.mnt = c->cgroup = c->memory_wd = c->go = -1;
	r = begin_create(c, req, err);
	if (r < 0) {
		container_free(c);
		return err_wrap(err, r, "create container");
	}
	c->create = call;
	*slot = c;
	return 0;
}
