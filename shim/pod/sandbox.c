#include "shim/pod/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/util.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "shim/shim.h"

#define RESOLV_CONF_MAX (64 * KIB)

struct ready_waiter {
	struct ready_waiter *next;
	void (*fn)(int code, const struct err *err, void *arg);
	void *arg;
};

static void on_ended(const char *why, void *arg);

void sandbox_init(struct shim *s)
{
	struct sandbox *sb = &s->sandbox;

	pb_arena_init(&sb->arena, SANDBOX_CONFIG_MAX);
	sb->next_stream = 1;
}

static void tell_waiters(struct sandbox *sb, int code, const struct err *err)
{
	struct ready_waiter *w;

	while ((w = sb->waiters)) {
		sb->waiters = w->next;
		w->fn(code, err, w->arg);
		free(w);
	}
}

void sandbox_fini(struct shim *s)
{
	struct sandbox *sb = &s->sandbox;
	struct vm *vm = take_ptr(&sb->vm);

	ev_timer_del(&sb->stop_timer);
	ev_timer_del(&sb->lost_timer);
	agent_free(take_ptr(&sb->agent));
	vm_free(vm);
	tell_waiters(sb, -ECANCELED, NULL);
	pb_arena_fini(&sb->arena);
}

/* ---- configuration ---- */

/* Ownership of malloc'd text moves into the arena. */
static int arena_text(struct sandbox *sb, char *text, char **ret)
{
	cleanup_free char *owned = text;
	size_t n;
	char *p;

	if (!owned)
		return -ENOMEM;
	n = strlen(owned) + 1;
	p = pb_arena_alloc(&sb->arena, n);
	if (!p)
		return -ENOBUFS;
	memcpy(p, owned, n);
	*ret = p;
	return 0;
}

static int join(struct buf *b, const char *word, char *const *list, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = buf_printf(b, "%s%s", i ? " " : word, list[i]);
	return r == 0 && n ? buf_printf(b, "\n") : r;
}

static int resolv_conf(const Cri__DNSConfig *dns, char **ret)
{
	cleanup_buf struct buf b;
	int r = 0;

	buf_init(&b, RESOLV_CONF_MAX);
	if (!dns) {
		/* As CRI servers do: the host's own; without one the pod has an empty file. */
		if (read_file("/etc/resolv.conf", RESOLV_CONF_MAX, ret, NULL, NULL) < 0)
			*ret = strdup("\n");
		return *ret ? 0 : -ENOMEM;
	}
	r = join(&b, "search ", dns->searches, dns->n_searches);
	for (size_t i = 0; i < dns->n_servers && r == 0; i++)
		r = buf_printf(&b, "nameserver %s\n", dns->servers[i]);
	if (r == 0)
		r = join(&b, "options ", dns->options, dns->n_options);
	if (r == 0 && buf_len(&b) == 0)
		r = buf_printf(&b, "\n");
	if (r < 0)
		return r;
	*ret = buf_take_str(&b);
	return *ret ? 0 : -ENOMEM;
}

static char *hosts(const char *hostname)
{
	return str_fmt(
		"127.0.0.1\tlocalhost\n"
		"::1\tlocalhost ip6-localhost ip6-loopback\n"
		"%s%s%s",
		*hostname ? "127.0.1.1\t" : "", hostname, *hostname ? "\n" : "");
}

static int copy_sysctls(struct sandbox *sb, const Cri__LinuxPodSandboxConfig *lx)
{
	Agent__CreateSandboxRequest__SysctlsEntry **list, *e;
	size_t n = lx ? lx->n_sysctls : 0;
	int r = 0;

	if (!n)
		return 0;
	list = pb_arena_alloc(&sb->arena, n * sizeof(*list));
	if (!list)
		return -ENOBUFS;
	for (size_t i = 0; i < n && r == 0; i++) {
		e = pb_arena_alloc(&sb->arena, sizeof(*e));
		if (!e)
			return -ENOBUFS;
		agent__create_sandbox_request__sysctls_entry__init(e);
		r = arena_text(sb, strdup(lx->sysctls[i]->key), &e->key);
		if (r == 0)
			r = arena_text(sb, strdup(lx->sysctls[i]->value), &e->value);
		list[i] = e;
	}
	sb->req->sysctls = list;
	sb->req->n_sysctls = n;
	return r;
}

/* Options give the size, the pod's own resources (when kubelet tells them) override it. */
static void vm_size(struct shim *s, const Cri__LinuxPodSandboxConfig *lx)
{
	const Cri__LinuxContainerResources *res = lx ? lx->resources : NULL;
	const Cri__LinuxContainerResources *over = lx ? lx->overhead : NULL;
	struct sandbox *sb = &s->sandbox;
	uint64_t mib = s->opts->memory_mib, vcpus = s->opts->vcpus;

	if (!mib)
		mib = SANDBOX_MEMORY_DEFAULT_MIB;
	if (!vcpus)
		vcpus = SANDBOX_VCPUS_DEFAULT;
	if (res && res->memory_limit_in_bytes > 0) {
		mib = ((uint64_t)res->memory_limit_in_bytes + MIB - 1) / MIB;
		mib += over && over->memory_limit_in_bytes > 0
			       ? ((uint64_t)over->memory_limit_in_bytes + MIB - 1) / MIB
			       : SANDBOX_OVERHEAD_MIB;
	}
	if (res && res->cpu_quota > 0 && res->cpu_period > 0)
		vcpus = ((uint64_t)res->cpu_quota + (uint64_t)res->cpu_period - 1) /
			(uint64_t)res->cpu_period;
	sb->memory_mib =
		(uint32_t)MIN_OF(MAX_OF(mib, SANDBOX_MEMORY_MIN_MIB), SANDBOX_MEMORY_MAX_MIB);
	sb->vcpus = (uint32_t)MIN_OF(vcpus, SANDBOX_VCPUS_MAX);
}

int sandbox_prepare(struct shim *s, const Cri__PodSandboxConfig *cfg, const char *hostname,
		    struct err *err)
{
	struct sandbox *sb = &s->sandbox;
	char *text = NULL;
	int r;

	if (sb->state != SB_NONE)
		return err_set(err, -EBUSY, "the sandbox exists already");
	if (cfg)
		hostname = cfg->hostname;
	sb->req = pb_arena_alloc(&sb->arena, sizeof(*sb->req));
	if (!sb->req)
		return err_errno(err, -ENOMEM, "sandbox");
	agent__create_sandbox_request__init(sb->req);
	r = arena_text(sb, strdup(s->id), &sb->req->id);
	if (r == 0)
		r = arena_text(sb, strdup(hostname), &sb->req->hostname);
	if (r == 0)
		r = arena_text(sb, hosts(hostname), &sb->req->hosts);
	if (r == 0)
		r = resolv_conf(cfg ? cfg->dns_config : NULL, &text);
	if (r == 0)
		r = arena_text(sb, text, &sb->req->resolv_conf);
	if (r == 0)
		r = copy_sysctls(sb, cfg ? cfg->linux : NULL);
	if (r < 0)
		return err_errno(err, r, "configuration of the sandbox");
	vm_size(s, cfg ? cfg->linux : NULL);
	sb->state = SB_CREATED;
	return 0;
}

/* ---- waiting for READY ---- */

void sandbox_when_ready(struct shim *s, void (*fn)(int code, const struct err *err, void *arg),
			void *arg)
{
	struct sandbox *sb = &s->sandbox;
	struct ready_waiter *w, **p;
	struct err e = { 0 };

	if (sb->state == SB_READY) {
		fn(0, NULL, arg);
		return;
	}
	if (sb->state != SB_STARTING) {
		(void)err_set(&e, -EBUSY, "the sandbox is %s%s%s",
			      sb->state < SB_STARTING ? "not started" : "stopped",
			      *sb->why ? ": " : "", sb->why);
		fn(-EBUSY, &e, arg);
		return;
	}
	w = malloc(sizeof(*w));
	if (!w) {
		fn(-ENOMEM, NULL, arg);
		return;
	}
	*w = (struct ready_waiter){ .fn = fn, .arg = arg };
	for (p = &sb->waiters; *p; p = &(*p)->next)
		;
	*p = w;
}

/* The sandbox is STOPPED: those who wait for that have their answers. */
static void tell_end(struct shim *s)
{
	static const Sandbox__StopSandboxResponse stopped = SANDBOX__STOP_SANDBOX_RESPONSE__INIT;
	Sandbox__WaitSandboxResponse waited = SANDBOX__WAIT_SANDBOX_RESPONSE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;

	pb_timestamp_set(&ts, s->sandbox.exited_at);
	waited.exit_status = sandbox_exit_status(s);
	waited.exited_at = &ts;
	calls_reply(&s->sandbox.wait_calls, &waited.base, 0, NULL);
	calls_reply(&s->sandbox.stop_calls, &stopped.base, 0, NULL);
}

/* ---- start ---- */

static void on_agent_exited(const Agent__ExitEvent *ev, void *arg)
{
	containers_exited(arg, ev);
}

static void on_agent_oom(const char *id, void *arg)
{
	containers_oom(arg, id);
}

static void on_lost_timer(struct ev_timer *t)
{
	struct shim *s = t->arg;
	char text[400];

	(void)snprintf(text, sizeof(text), "agent died: %s", s->sandbox.lost_why);
	sandbox_kill(s, text);
}

static void on_agent_lost(const char *why, void *arg)
{
	struct shim *s = arg;
	struct sandbox *sb = &s->sandbox;

	if (sb->state == SB_STOPPING)
		return; /* it powers off; the timer of the stop sees to the rest */
	(void)snprintf(sb->lost_why, sizeof(sb->lost_why), "%s", why);
	/* Mostly it is the VM that ended, and the monitor is about to say why. */
	if (ev_timer_add(s->loop, &sb->lost_timer, SANDBOX_LOST_NS, on_lost_timer, s) < 0)
		on_lost_timer(&sb->lost_timer);
}

static const struct agent_ops agent_ops = {
	.exited = on_agent_exited,
	.oom = on_agent_oom,
	.lost = on_agent_lost,
};

static void on_agent_connected(void *arg)
{
	struct shim *s = arg;

	s->sandbox.info = *vm_info(s->sandbox.vm);
}

static void on_info_changed(void *arg)
{
	struct shim *s = arg;

	s->sandbox.info = *vm_info(s->sandbox.vm);
	shim_record_pids(s);
}

static const struct vm_ops vm_ops = {
	.agent_connected = on_agent_connected,
	.info_changed = on_info_changed,
	.ended = on_ended,
};

static void on_created(const struct ttrpc_result *res, void *arg)
{
	const Agent__CreateSandboxResponse *resp;
	struct shim *s = arg;
	struct sandbox *sb = &s->sandbox;
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
		sandbox_kill(s, text);
		return;
	}
	resp = (const Agent__CreateSandboxResponse *)res->resp;
	(void)snprintf(sb->kernel_release, sizeof(sb->kernel_release), "%s", resp->kernel_release);
	sb->ready_ns = now_mono_ns();
	sb->state = SB_READY;
	log_info("pod is up", "pod", s->id, "backend", sb->info.backend);
	tell_waiters(sb, 0, NULL);
}

int sandbox_start(struct shim *s, struct err *err)
{
	struct sandbox *sb = &s->sandbox;
	const Shim__Options *o = s->opts;
	struct vm_config cfg = {
		.vmm_path = s->vmm_path,
		.kernel = s->kernel,
		.initramfs = s->initramfs,
		.backend = *o->backend ? o->backend : "auto",
		.backend_reason = o->backend_reason,
		.log_level = *o->log_level ? o->log_level : "info",
		.log_format = *o->log_format ? o->log_format : "text",
		.vcpus = sb->vcpus,
		.memory_mib = sb->memory_mib,
	};
	int agent_fd = -1, r;

	if (sb->state != SB_CREATED)
		return err_set(err, -EBUSY, "the sandbox was started already");
	sb->requested_ns = now_mono_ns();
	r = vm_start(s->loop, &cfg, &vm_ops, s, &sb->vm, &agent_fd, err);
	if (r < 0)
		goto fail;
	sb->info = *vm_info(sb->vm);
	sb->created_at = now_real_ns();
	sb->req->realtime_ns = sb->created_at;
	r = agent_new(s->loop, agent_fd, &agent_ops, s, &sb->agent, err);
	/* Sent before the guest runs: the bytes wait for it in the socket. */
	if (r == 0)
		r = agent_create_sandbox(sb->agent, sb->req, on_created, s);
	if (r == 0)
		r = agent_events(sb->agent);
	if (r < 0)
		goto fail;
	sb->state = SB_STARTING;
	shim_record_pids(s);
	return 0;
fail:
	agent_free(take_ptr(&sb->agent));
	vm_free(take_ptr(&sb->vm));
	sb->state = SB_STOPPED;
	sb->exited_at = now_real_ns();
	(void)snprintf(sb->why, sizeof(sb->why), "%s", err ? err->msg : "start failed");
	tell_end(s);
	return err_wrap(err, r, "start the VM");
}

/* ---- end ---- */

/* The monitor has been reaped: nothing of the VM exists any more. */
static void on_ended(const char *why, void *arg)
{
	struct shim *s = arg;
	struct sandbox *sb = &s->sandbox;
	bool asked = sb->state == SB_STOPPING;
	struct err e = { 0 };

	ev_timer_del(&sb->stop_timer);
	ev_timer_del(&sb->lost_timer);
	sb->exited_at = now_real_ns();
	if (!asked)
		(void)snprintf(sb->why, sizeof(sb->why), "%s", *why ? why : "VM ended");
	sb->state = SB_STOPPED;
	if (!asked)
		log_error("the VM ended", "pod", s->id, "why", sb->why);
	/* Calls in flight get their errors before the containers are told. */
	agent_free(take_ptr(&sb->agent));
	vm_free(take_ptr(&sb->vm));
	shim_record_pids(s);
	containers_died(s, asked ? STATUS_KILLED : STATUS_VM_DIED, sb->why);
	(void)err_set(&e, -EIO, "start the VM: %s", *sb->why ? sb->why : "stopped");
	tell_waiters(sb, -EIO, &e);
	tell_end(s);
	shim_sandbox_ended(s);
}

static void on_stop_timer(struct ev_timer *t)
{
	struct shim *s = t->arg;

	if (s->sandbox.vm)
		vm_kill(s->sandbox.vm, "");
}

static void on_shutdown(const struct ttrpc_result *res, void *arg)
{
	struct shim *s = arg;

	if (res->code < 0 && res->code != -ECANCELED && s->sandbox.vm)
		vm_kill(s->sandbox.vm, "");
}

void sandbox_stop(struct shim *s, struct ttrpc_call *call)
{
	struct sandbox *sb = &s->sandbox;
	bool was_ready = sb->state == SB_READY;

	calls_add(&sb->stop_calls, call);
	if (!sb->vm) {
		sb->state = SB_STOPPED;
		if (!sb->exited_at)
			sb->exited_at = now_real_ns();
		tell_end(s);
		return;
	}
	if (sb->state == SB_STOPPING)
		return;
	sb->state = SB_STOPPING;
	vm_expect_end(sb->vm);
	if (!was_ready || agent_shutdown(sb->agent, on_shutdown, s) < 0 ||
	    ev_timer_add(s->loop, &sb->stop_timer, SANDBOX_STOP_NS, on_stop_timer, s) < 0)
		vm_kill(sb->vm, "");
}

void sandbox_kill(struct shim *s, const char *why)
{
	if (s->sandbox.vm)
		vm_kill(s->sandbox.vm, why);
}

/* ---- small questions ---- */

struct vmctl *sandbox_ctl(struct shim *s)
{
	return s->sandbox.vm ? vm_ctl(s->sandbox.vm) : NULL;
}

uint32_t sandbox_pid(const struct shim *s)
{
	return (uint32_t)s->sandbox.info.pid;
}

uint32_t sandbox_exit_status(const struct shim *s)
{
	return *s->sandbox.why ? STATUS_VM_DIED : 0;
}

struct unmap {
	struct shim *shim;
	uint64_t first;
};

static void on_unmapped(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	struct unmap *u = arg;

	if (code == 0)
		windows_free(&u->shim->sandbox.windows, u->first);
	else if (code != -ECANCELED && code != -ECONNRESET)
		log_warn("a disk stays mapped", "err", err_text(err));
	free(u);
}

void sandbox_put_window(struct shim *s, uint64_t first, bool unmap)
{
	struct vmctl *ctl = sandbox_ctl(s);
	struct unmap *u;

	if (!windows_put(&s->sandbox.windows, first) || !unmap || !ctl)
		return;
	u = malloc(sizeof(*u));
	if (!u)
		return; /* the window is lost for this VM's life, the disk is not */
	*u = (struct unmap){ .shim = s, .first = first };
	if (vmctl_unmap(ctl, first, on_unmapped, u) < 0)
		free(u);
}
