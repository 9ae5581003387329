#include "shim/pod/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/spawn.h"
#include "base/util.h"
#include "shim/pod/sandbox_config.h"

void sandbox_init(struct sandbox *sb, struct loop *l, const struct sandbox_setup *setup,
		  const struct sandbox_ops *ops, void *arg)
{
	*sb = (struct sandbox){
		.loop = l, .setup = setup, .ops = ops, .arg = arg, .next_stream = 1
	};
	pb_arena_init(&sb->arena, SANDBOX_CONFIG_MAX);
}

/* Whoever is about to end is not asked whether he lives. */
static void stop_watching(struct sandbox *sb)
{
	liveness_stop(&sb->liveness);
	guest_clock_stop(&sb->clock);
	disk_room_stop(&sb->room);
}

void sandbox_fini(struct sandbox *sb)
{
	struct vm *vm = take_ptr(&sb->vm);

	ev_timer_del(&sb->stop_timer);
	ev_timer_del(&sb->lost_timer);
	stop_watching(sb);
	pod_network_stop(&sb->network);
	agent_free(take_ptr(&sb->agent));
	vm_free(vm);
	waits_run(&sb->ready_waits, -ECANCELED, NULL);
	waits_run(&sb->stopped_waits, -ECANCELED, NULL);
	hostgroup_fini(&sb->group);
	free_ptr(&sb->cgroup_parent);
	free_ptr(&sb->netns);
	console_free(take_ptr(&sb->console));
	windows_fini(&sb->windows);
	pb_arena_fini(&sb->arena);
}

/* Every arrow there is; no guest and no client can ask for another one. */
static void set_state(struct sandbox *sb, enum sandbox_state to)
{
	static const unsigned arrows[] = {
		[SB_NONE] = 1u << SB_CREATED | 1u << SB_STOPPED,
		[SB_CREATED] = 1u << SB_STARTING | 1u << SB_STOPPED,
		[SB_STARTING] = 1u << SB_READY | 1u << SB_STOPPING | 1u << SB_STOPPED,
		[SB_READY] = 1u << SB_STOPPING | 1u << SB_STOPPED,
		[SB_STOPPING] = 1u << SB_STOPPED,
		[SB_STOPPED] = 0,
	};

	check(arrows[sb->state] & 1u << to);
	sb->state = to;
}

/* ---- waiting ---- */

void sandbox_when_ready(struct sandbox *sb, wait_fn fn, void *arg)
{
	struct err err = { 0 };

	int r = 0;

	if (sb->state == SB_STARTING) {
		r = waits_add(&sb->ready_waits, fn, arg);
		if (r == 0)
			return;
		r = err_nomem(&err);
	} else if (sb->state != SB_READY) {
		r = err_set(&err, -EBUSY, "the sandbox is %s%s%s",
			    sb->state < SB_STARTING ? "not started" : "stopped",
			    *sb->why ? ": " : "", sb->why);
	}
	fn(arg, r, &err);
}

/* ---- start ---- */

static int prepare(struct sandbox *sb, const Cri__PodSandboxConfig *cfg, const char *hostname,
		   struct err *err)
{
	int r;

	if (sb->state != SB_NONE)
		return err_set(err, -EBUSY, "the sandbox exists already");
	r = sandbox_config_request(&sb->arena, sb->setup->id, cfg, hostname, &sb->req, err);
	if (r < 0)
		return r;
	sandbox_config_size(sb->setup->opts, cfg, &sb->vcpus, &sb->memory_mib);
	sb->oom_fixed = sandbox_config_oom_score(cfg, &sb->oom_score);
	sb->cgroup_parent = strdup(cfg && cfg->linux ? cfg->linux->cgroup_parent : "");
	if (!sb->cgroup_parent)
		return err_nomem(err);
	set_state(sb, SB_CREATED);
	return 0;
}

int sandbox_prepare(struct sandbox *sb, const Cri__PodSandboxConfig *cfg, struct err *err)
{
	int r = prepare(sb, cfg, cfg ? cfg->hostname : "", err);

	if (r == 0)
		sb->by_service = true;
	return r;
}

int sandbox_set_netns(struct sandbox *sb, const char *netns, struct err *err)
{
	check(sb->state == SB_CREATED && !sb->netns);
	sb->netns = strdup(netns);
	return sb->netns ? 0 : err_nomem(err);
}

int sandbox_prepare_implicit(struct sandbox *sb, const char *hostname, struct err *err)
{
	return prepare(sb, NULL, hostname, err);
}

/* Ends the VM by itself: its end will say why. */
static void kill_vm(struct sandbox *sb, const char *why)
{
	if (sb->vm)
		vm_kill(sb->vm, why);
}

static void sandbox_on_agent_exited(const Agent__ExitEvent *ev, void *arg)
{
	struct sandbox *sb = arg;

	sb->ops->exited(ev, sb->arg);
}

static void sandbox_on_agent_oom(const char *id, void *arg)
{
	struct sandbox *sb = arg;

	sb->ops->oom(id, sb->arg);
}

static void sandbox_on_agent_missed(void *arg)
{
	struct sandbox *sb = arg;

	sb->ops->trouble("events of the agent are missing", NULL, sb->arg);
}

static void sandbox_on_lost_timer(struct ev_timer *t)
{
	struct sandbox *sb = t->arg;
	char text[400];

	(void)snprintf(text, sizeof(text), "agent died: %s", sb->lost_why);
	kill_vm(sb, text);
}

static void sandbox_on_agent_lost(const char *why, void *arg)
{
	struct sandbox *sb = arg;

	stop_watching(sb);
	if (sb->state == SB_STOPPING)
		return; /* it powers off; the timer of the stop sees to the rest */
	(void)snprintf(sb->lost_why, sizeof(sb->lost_why), "%s", why);
	/* Mostly it is the VM that ended, and the monitor is about to say why. */
	if (ev_timer_add(sb->loop, &sb->lost_timer, SANDBOX_LOST_NS, sandbox_on_lost_timer, sb) < 0)
		kill_vm(sb, "agent died");
}

static const struct agent_ops agent_ops = {
	.exited = sandbox_on_agent_exited,
	.oom = sandbox_on_agent_oom,
	.missed = sandbox_on_agent_missed,
	.lost = sandbox_on_agent_lost,
};

static void sandbox_on_agent_connected(void *arg)
{
	struct sandbox *sb = arg;

	sb->info = *vm_info(sb->vm);
}

static void sandbox_on_info_changed(void *arg)
{
	struct sandbox *sb = arg;

	sb->info = *vm_info(sb->vm);
	hostgroup_set_backend(&sb->group, sb->info.backend);
	sb->ops->pids_changed(sb->arg);
}

static void sandbox_on_disk_room(const Vmm__DiskRoom *room, void *arg)
{
	struct sandbox *sb = arg;

	if (sb->room.full != !!room->full)
		sb->ops->disk_room(room, sb->arg);
	disk_room_set(&sb->room, room->full);
}

static void sandbox_on_vm_ended(const char *why, void *arg);

static const struct vm_ops vm_ops = {
	.agent_connected = sandbox_on_agent_connected,
	.info_changed = sandbox_on_info_changed,
	.disk_room = sandbox_on_disk_room,
	.ended = sandbox_on_vm_ended,
};

static void unmap_unused(struct sandbox *sb);

static void sandbox_on_beat(void *arg)
{
	struct sandbox *sb = arg;

	guest_clock_set(&sb->clock);
	disk_room_beat(&sb->room);
	unmap_unused(sb);
}

static void sandbox_on_dead(const char *why, void *arg)
{
	struct sandbox *sb = arg;

	stop_watching(sb);
	kill_vm(sb, why);
}

static void start_watching(struct sandbox *sb)
{
	static const struct liveness_ops liveness_ops = { .beat = sandbox_on_beat,
							  .dead = sandbox_on_dead };
	struct err err = { 0 };

	liveness_start(&sb->liveness, sb->loop, sb->setup->liveness, sb->agent, sb->vm,
		       &liveness_ops, sb);
	disk_room_start(&sb->room, sb->agent);
	if (guest_clock_start(&sb->clock, sb->loop, sb->agent, &err) < 0)
		sb->ops->trouble("the guest's clock follows the host's late", &err, sb->arg);
}

static void become_ready(struct sandbox *sb)
{
	if (!sb->guest_set || !sb->network_set)
		return;
	sb->ready_ns = now_mono_ns();
	set_state(sb, SB_READY);
	start_watching(sb);
	sb->ops->ready(sb->arg);
	waits_run(&sb->ready_waits, 0, NULL);
}

static void sandbox_on_created(const struct ttrpc_result *res, void *arg)
{
	const Agent__CreateSandboxResponse *resp;
	struct sandbox *sb = arg;
	char text[400];

	if (sb->state != SB_STARTING)
		return;
	if (res->code < 0) {
		if (res->code == -ECANCELED || res->code == -ECONNRESET)
			return; /* the VM is gone or going; its end says why */
		(void)snprintf(text, sizeof(text), "%s%s",
			       res->code == -ETIMEDOUT ? "the guest did not come up: "
						       : "set-up of the pod in the guest: ",
			       err_text(res->err));
		kill_vm(sb, text);
		return;
	}
	resp = (const Agent__CreateSandboxResponse *)res->resp;
	(void)snprintf(sb->kernel_release, sizeof(sb->kernel_release), "%s", resp->kernel_release);
	sb->guest_set = true;
	become_ready(sb);
}

static void sandbox_on_network(int code, const struct err *err, void *arg)
{
	struct sandbox *sb = arg;

	if (sb->state != SB_STARTING)
		return;
	if (code == -ECANCELED || code == -ECONNRESET)
		return; /* as above */
	if (code < 0) {
		kill_vm(sb, err_text(err));
		return;
	}
	sb->network_set = true;
	become_ready(sb);
}

/* A pod without a console can be told less about, but it works. */
static void open_console(struct sandbox *sb, int *ret_fd)
{
	struct err err = { 0 };

	if (console_new(sb->loop, sb->setup->console, &sb->console, ret_fd, &err) < 0)
		sb->ops->trouble("no console", &err, sb->arg);
}

/* A host that does not let us have one runs pods all the same; husk check says so. */
static void make_group(struct sandbox *sb)
{
	struct err err = { 0 };
	int r;

	if (!sb->setup->cgroup_record)
		return;
	r = hostgroup_make(&sb->group, sb->loop, sb->cgroup_parent, sb->setup->id,
			   sb->setup->cgroup_record, sb->memory_mib, &err);
	if (r < 0 && r != -EOPNOTSUPP && r != -EROFS && r != -EACCES && r != -EPERM)
		sb->ops->trouble("no cgroup for the pod", &err, sb->arg);
}

static int start_network(struct sandbox *sb, struct err *err)
{
	sb->network_set = !sb->netns;
	return sb->netns ? pod_network_start(&sb->network, sb->loop, sb->netns, sb->vm, sb->agent,
					     sandbox_on_network, sb, err)
			 : 0;
}

static int start_vm(struct sandbox *sb, struct err *err)
{
	cleanup_fd int console_fd = -1;
	const Shim__Options *o = sb->setup->opts;
	struct vm_config cfg = {
		.pod = sb->setup->id,
		.vmm_path = sb->setup->vmm_path,
		.kernel = sb->setup->kernel,
		.initramfs = sb->setup->initramfs,
		.backend = *o->backend ? o->backend : "auto",
		.backend_reason = o->backend_reason,
		.log_level = *o->log_level ? o->log_level : "info",
		.log_format = *o->log_format ? o->log_format : "text",
		.vcpus = sb->vcpus,
		.memory_mib = sb->memory_mib,
		.oom_score_adj = sb->oom_score,
	};
	int agent_fd = -1, r;

	open_console(sb, &console_fd);
	cfg.console_fd = console_fd;
	make_group(sb);
	cfg.cgroup = sb->group.path;
	r = vm_start(sb->loop, &cfg, &vm_ops, sb, &sb->vm, &agent_fd, err);
	if (r < 0)
		return r;
	sb->info = *vm_info(sb->vm);
	sb->created_at = now_real_ns();
	sb->req->realtime_ns = sb->created_at;
	r = agent_new(sb->loop, agent_fd, &agent_ops, sb, &sb->agent, err);
	if (r < 0)
		return r;
	/* Sent before the guest runs: the bytes wait for it in the socket. */
	r = agent_create_sandbox(sb->agent, sb->req, sandbox_on_created, sb);
	if (r == 0)
		r = agent_events(sb->agent);
	if (r == 0)
		return start_network(sb, err);
	/* The boot has failed already: the monitor's answer, on its way, has the reason. Without
	 * it the end of the channel is what is told (sandbox_on_agent_lost). */
	if (r == -ECONNRESET)
		return 0;
	return r < 0 ? err_errno(err, r, "agent") : 0;
}

int sandbox_start(struct sandbox *sb, struct err *err)
{
	struct err why = { 0 };
	int r;

	if (sb->state != SB_CREATED)
		return err_set(err, -EBUSY, "the sandbox was started already");
	sb->requested_ns = now_mono_ns();
	r = start_vm(sb, &why);
	if (r == 0) {
		set_state(sb, SB_STARTING);
		sb->ops->pids_changed(sb->arg);
		return 0;
	}
	pod_network_stop(&sb->network);
	agent_free(take_ptr(&sb->agent));
	vm_free(take_ptr(&sb->vm));
	hostgroup_end(&sb->group);
	set_state(sb, SB_STOPPED);
	sb->exited_at = now_real_ns();
	(void)snprintf(sb->why, sizeof(sb->why), "%s", err_text(&why));
	waits_run(&sb->stopped_waits, 0, NULL);
	return err_set(err, r, "start the VM: %s", err_text(&why));
}

/* ---- end ---- */

/* Why the VM ended, in the monitor's words and in the guest's. */
static void set_why(struct sandbox *sb, const char *why)
{
	char cause[250] = "";

	if (sb->console) {
		console_drain(sb->console);
		console_cause(sb->console, cause, sizeof(cause));
	}
	(void)snprintf(sb->why, sizeof(sb->why), "%s%s%s", *why ? why : "VM ended",
		       *cause ? ": guest: " : "", cause);
}

/* The monitor has been reaped: nothing of the VM exists any more. */
static void sandbox_on_vm_ended(const char *why, void *arg)
{
	struct sandbox *sb = arg;
	bool asked = sb->state == SB_STOPPING;
	struct err err = { 0 };

	ev_timer_del(&sb->stop_timer);
	ev_timer_del(&sb->lost_timer);
	sb->exited_at = now_real_ns();
	if (!asked)
		set_why(sb, why);
	set_state(sb, SB_STOPPED);
	stop_watching(sb);
	/* Calls in flight get their errors before the owner is told. */
	pod_network_stop(&sb->network);
	agent_free(take_ptr(&sb->agent));
	vm_free(take_ptr(&sb->vm));
	hostgroup_end(&sb->group);
	sb->ops->pids_changed(sb->arg);
	sb->ops->died(asked ? STATUS_KILLED : STATUS_VM_DIED, sb->why, sb->arg);
	(void)err_set(&err, -EIO, "start the VM: %s", *sb->why ? sb->why : "stopped");
	waits_run(&sb->ready_waits, -EIO, &err);
	waits_run(&sb->stopped_waits, 0, NULL);
	sb->ops->ended(sb->arg);
}

static void sandbox_on_stop_timer(struct ev_timer *t)
{
	kill_vm(t->arg, "");
}

static void sandbox_on_shutdown(const struct ttrpc_result *res, void *arg)
{
	if (res->code < 0 && res->code != -ECANCELED)
		kill_vm(arg, "");
}

/* There is no VM to wait for. */
static void stopped_without_vm(struct sandbox *sb)
{
	if (sb->state == SB_STOPPED)
		return;
	set_state(sb, SB_STOPPED);
	sb->exited_at = now_real_ns();
	waits_run(&sb->stopped_waits, 0, NULL);
}

void sandbox_stop(struct sandbox *sb)
{
	bool was_ready = sb->state == SB_READY;

	if (!sb->vm) {
		stopped_without_vm(sb);
		return;
	}
	if (sb->state == SB_STOPPING)
		return;
	set_state(sb, SB_STOPPING);
	stop_watching(sb);
	vm_expect_end(sb->vm);
	if (!was_ready || agent_shutdown(sb->agent, sandbox_on_shutdown, sb) < 0 ||
	    ev_timer_add(sb->loop, &sb->stop_timer, SANDBOX_STOP_NS, sandbox_on_stop_timer, sb) < 0)
		kill_vm(sb, "");
}

bool sandbox_end(struct sandbox *sb)
{
	if (!sb->vm) {
		stopped_without_vm(sb);
		return true;
	}
	if (sb->state != SB_STOPPING)
		set_state(sb, SB_STOPPING);
	stop_watching(sb);
	kill_vm(sb, "");
	return false;
}

/* ---- small questions ---- */

void sandbox_set_oom_score(struct sandbox *sb, int score)
{
	/* Never more protected than the shim, which is to be the last one. */
	score = MAX_OF(score, OOM_SCORE_SHIM + 1);
	if (sb->oom_fixed || score == sb->oom_score)
		return;
	sb->oom_score = score;
	if (sb->vm)
		vm_set_oom_score(sb->vm, score);
}

struct vmctl *sandbox_ctl(const struct sandbox *sb)
{
	return sb->vm ? vm_ctl(sb->vm) : NULL;
}

uint32_t sandbox_pid(const struct sandbox *sb)
{
	return (uint32_t)sb->info.pid;
}

uint32_t sandbox_exit_status(const struct sandbox *sb)
{
	return *sb->why ? STATUS_VM_DIED : 0;
}

bool sandbox_in_use(const struct sandbox *sb)
{
	return sb->by_service && sb->state != SB_STOPPED;
}

/* ---- streams ---- */

static void sandbox_on_connected(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	/* The monitor has closed its end then: the stream sees the end of file. */
	if (code < 0 && code != -ECANCELED)
		log_debug("a stream was not connected", "err", err_text(err));
}

int sandbox_open_stream(void *arg, uint64_t *ret_id, int *ret_fd, struct err *err)
{
	struct sandbox *sb = arg;
	struct vmctl *ctl = sandbox_ctl(sb);
	uint64_t id = sb->next_stream;
	uint8_t preamble[8];
	int sv[2], r = 0;

	if (!ctl)
		return err_set(err, -EIO, "the VM has ended%s%s", *sb->why ? ": " : "", sb->why);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0)
		return err_errno(err, -errno, "stream");
	for (int i = 0; i < 8; i++)
		preamble[i] = (uint8_t)(id >> (8 * i));
	if (send(sv[0], preamble, sizeof(preamble), MSG_NOSIGNAL) != sizeof(preamble))
		r = -EIO;
	if (r == 0)
		r = vmctl_connect(ctl, VSOCK_STREAM_PORT, sv[1], sandbox_on_connected, NULL);
	fd_close(&sv[1]);
	if (r < 0) {
		fd_close(&sv[0]);
		return err_errno(err, r, "stream");
	}
	sb->next_stream++;
	*ret_id = id;
	*ret_fd = sv[0];
	return 0;
}

/* ---- windows ---- */

/* A map or an unmap on its way. */
struct window_request {
	struct sandbox *sb;
	uint64_t first;
	vmctl_done done; /* of a map */
	void *arg;
};

static struct window_request *request_new(struct sandbox *sb, uint64_t first, vmctl_done done,
					  void *arg)
{
	struct window_request *q = malloc(sizeof(*q));

	if (q)
		*q = (struct window_request){ .sb = sb, .first = first, .done = done, .arg = arg };
	return q;
}

static void sandbox_on_mapped(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	struct window_request *q = arg;
	struct window *w = windows_find(&q->sb->windows, q->first);

	/* A late answer may still be that it is mapped. */
	if (w && code < 0 && code != -ETIMEDOUT)
		w->mapped = false;
	if (q->done)
		q->done(code, err, p, q->arg);
	free(q);
}

int sandbox_map_window(struct sandbox *sb, uint64_t first, int fd, vmctl_done done, void *arg)
{
	struct window *w = windows_find(&sb->windows, first);
	struct vmctl *ctl = sandbox_ctl(sb);
	struct window_request *q = request_new(sb, first, done, arg);
	int r;

	if (!q)
		return -ENOMEM;
	r = w && ctl ? vmctl_map(ctl, first, w->sectors, w->readonly, fd, sandbox_on_mapped, q)
		     : -EIO;
	if (r < 0)
		free(q);
	else
		w->mapped = true;
	return r;
}

static void sandbox_on_unmapped(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	struct window_request *q = arg;
	struct window *w = windows_find(&q->sb->windows, q->first);

	if (w)
		w->unmapping = false;
	/* -ENOENT: it was never mapped, because that failed. */
	if (w && (code == 0 || code == -ENOENT)) {
		w->mapped = false;
		windows_free(&q->sb->windows, q->first);
	} else if (code != -ECANCELED && code != -ECONNRESET) {
		q->sb->ops->trouble("a disk stays mapped", err, q->sb->arg);
	}
	free(q);
}

/* Where there is no memory for it the next one that goes takes it along. */
static void unmap(struct sandbox *sb, struct window *w)
{
	struct vmctl *ctl = sandbox_ctl(sb);
	struct window_request *q;

	if (!w->mapped || w->unmapping || !ctl)
		return;
	q = request_new(sb, w->first, NULL, NULL);
	w->unmapping = q && vmctl_unmap(ctl, w->first, sandbox_on_unmapped, q) == 0;
	if (!w->unmapping)
		free(q);
}

/* Those that nobody needs, also such as were left before. */
static void unmap_unused(struct sandbox *sb)
{
	for (size_t i = 0; i < sb->windows.n; i++) {
		struct window *w = &sb->windows.slots[i];

		if (!w->users && (!w->held || !w->readonly))
			unmap(sb, w);
	}
}

void sandbox_put_window(struct sandbox *sb, uint64_t first, bool let_go)
{
	struct window *w = windows_find(&sb->windows, first);

	if (!w || !windows_put(&sb->windows, first))
		return;
	w->held = !let_go;
	unmap_unused(sb);
	windows_free(&sb->windows, first);
}

void sandbox_revoke_window(struct sandbox *sb, uint64_t first)
{
	struct window *w = windows_find(&sb->windows, first);

	if (w && !w->readonly)
		unmap(sb, w);
}
