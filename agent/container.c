#include "agent/container.h"

#include <errno.h>
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
		[CONTAINER_CREATED] = 0, /* what a new one is */
		[CONTAINER_STARTING] = 1u << CONTAINER_CREATED,
		[CONTAINER_RUNNING] = 1u << CONTAINER_STARTING,
		/* No child: from CREATED. A removal that failed: from REMOVING. */
		[CONTAINER_STOPPED] = 1u << CONTAINER_CREATED | 1u << CONTAINER_STARTING |
				      1u << CONTAINER_RUNNING | 1u << CONTAINER_REMOVING,
		[CONTAINER_REMOVING] = 1u << CONTAINER_CREATED | 1u << CONTAINER_STOPPED,
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

/* ---- create ---- */

/* After a failed create: nothing has run on these disks, so this does not take long. */
static void detach_now(struct container *c)
{
	fd_close(&c->rootfs.mnt);
	while (c->rootfs.n_disks > 0) {
		struct disk *d = c->rootfs.disks[--c->rootfs.n_disks];

		if (d->refs == 1 && disk_detach(&c->agent->disks, d) < 0)
			d->detaching = d->stuck = true; /* lost, but never handed out half */
		else
			disk_forget(d);
	}
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
	if (c->remove)
		ttrpc_reply_err(c->remove, -ECANCELED, NULL);
	reaper_del(&c->agent->reaper, &c->worker.child);
	stdio_drop(&c->agent->stdio, c);
	cgroup_unwatch(&c->agent->cgroups, c->memory_wd);
	fd_close(&c->rootfs.mnt);
	fd_close(&c->cgroup);
	if (c->spec)
		agent__create_container_request__free_unpacked(c->spec, NULL);
	for (size_t i = 0; i < POD_CONTAINERS_MAX; i++)
		if (c->agent->containers[i] == c)
			c->agent->containers[i] = NULL;
	free(c);
}

static int set_up(struct container *c, const Agent__CreateContainerRequest *req, struct err *err)
{
	int r;

	c->spec = (void *)pb_clone(&req->base); /* for its processes, after the request is gone */
	if (!c->spec)
		return err_nomem(err);
	r = rootfs_mount(&c->agent->disks, req->rootfs, &c->rootfs, err);
	if (r == 0)
		r = cgroup_create(&c->agent->cgroups, req, &c->cgroup, &c->memory_wd, err);
	if (r < 0)
		detach_now(c);
	return r;
}

int container_create(struct agent *a, const Agent__CreateContainerRequest *req, struct err *err)
{
	struct container **slot = NULL, *c;
	int r;

	if (container_find(a, req->id, &c, NULL) == 0)
		return err_set(err, -EEXIST, "container \"%s\" is there already", req->id);
	for (size_t i = 0; i < POD_CONTAINERS_MAX; i++)
		if (!a->containers[i])
			slot = &a->containers[i];
	if (!slot)
		return err_set(err, -EINVAL, "a pod has at most %u containers", POD_CONTAINERS_MAX);
	if (disks_leaving(&a->disks, req->rootfs))
		return -EAGAIN;
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_nomem(err);
	c->agent = a;
	memcpy(c->id, req->id, strlen(req->id) + 1); /* bounded by validate.c */
	c->rootfs.mnt = c->cgroup = c->memory_wd = -1;
	r = set_up(c, req, err);
	if (r < 0) {
		container_free(c);
		return err_wrap(err, r, "create container");
	}
	*slot = c;
	return 0;
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
	if (c->state == CONTAINER_CREATED)
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

static int remove_step(struct container *c)
{
	struct agent *a = c->agent;
	int r;

	(void)!cgroup_kill(c->cgroup);
	r = cgroup_remove(a->cgroups.pod, c->id);
	for (size_t i = 0; i < c->rootfs.n_disks; i++) {
		int e = disk_detach(&a->disks, c->rootfs.disks[i]);

		r = e < 0 ? e : r;
	}
	return r;
}

/* The kernel says so on the console, as for a file system that broke. This one did not. */
static void discard_disks(const struct container *c)
{
	(void)klogctl(SYSLOG_CONSOLE_OFF, NULL, 0);
	for (size_t i = 0; i < c->rootfs.n_disks; i++)
		disk_discard(&c->agent->disks, c->rootfs.disks[i]);
	(void)klogctl(SYSLOG_CONSOLE_ON, NULL, 0);
}

/* In a process of its own: unmounting writes back what the container has left in the page cache,
 * and the kernel gives up some references a moment later than the last process. */
static int container_remove_work(void *arg)
{
	struct timespec pause = { .tv_nsec = REMOVE_STEP_NS };
	uint64_t end = now_mono_ns() + REMOVE_PATIENCE_NS;
	struct container *c = arg;
	int r;

	if (c->discard)
		discard_disks(c);
	while ((r = remove_step(c)) == -EBUSY && now_mono_ns() < end) {
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 64 * (long)REMOVE_STEP_NS)
			pause.tv_nsec *= 2;
	}
	return r;
}

static void container_remove_done(struct worker *w, int result)
{
	struct container *c = container_of(w, struct container, worker);
	struct agent *a = c->agent;
	Agent__RemoveContainerResponse resp = AGENT__REMOVE_CONTAINER_RESPONSE__INIT;
	uint64_t sectors[CONTAINER_LOWERS_MAX + 1];
	struct ttrpc_call *call = take_ptr(&c->remove);
	struct err err = { 0 };

	if (result < 0) {
		/* It can be tried again: the disks stay marked, so that none is used half
		 * detached. */
		set_state(c, CONTAINER_STOPPED);
		for (size_t i = 0; i < c->rootfs.n_disks; i++)
			c->rootfs.disks[i]->stuck = true;
		err_errno(&err, result, "remove container %s", c->id);
		ttrpc_reply_err(call, result, &err);
		a->on_removed(a);
		return;
	}
	for (size_t i = 0; i < c->rootfs.n_disks; i++) {
		sectors[i] = c->rootfs.disks[i]->first_sector;
		disk_forget(c->rootfs.disks[i]);
	}
	resp.n_detached_disks = c->rootfs.n_disks;
	resp.detached_disks = sectors;
	container_free(c);
	ttrpc_reply(call, &resp.base);
	a->on_removed(a);
}

int container_remove(struct container *c, bool discard, struct ttrpc_call *call, struct err *err)
{
	size_t n = 0;
	int keep[3], r;

	if (c->state != CONTAINER_CREATED && c->state != CONTAINER_STOPPED)
		return err_set(err, -EBUSY, "container %s is running", c->id);
	if (c->n_processes > 0)
		return err_set(err, -EBUSY, "container %s has running processes", c->id);
	stdio_drop(&c->agent->stdio, c);
	fd_close(&c->rootfs.mnt);
	/* Disks of others are theirs from now on; ours are not given to anybody any more. */
	for (size_t i = 0; i < c->rootfs.n_disks; i++) {
		struct disk *d = c->rootfs.disks[i];

		if (d->refs > 1) {
			disk_forget(d);
		} else {
			d->detaching = true;
			d->stuck = false;
			c->rootfs.disks[n++] = d;
		}
	}
	c->rootfs.n_disks = n;
	c->discard = discard;
	keep[0] = c->agent->cgroups.pod;
	keep[1] = c->agent->disks.fd;
	keep[2] = c->cgroup;
	r = worker_start(&c->agent->reaper, &c->worker, container_remove_work, c, keep,
			 ARRAY_SIZE(keep), container_remove_done);
	if (r < 0)
		return err_errno(err, r, "remove container %s", c->id);
	set_state(c, CONTAINER_REMOVING);
	c->remove = call;
	return 0;
}
