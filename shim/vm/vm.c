#include "shim/vm/vm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"
#include "shim/cgroup.h"
#include "shim/pids.h"

#define CONTROL_FD 3 /* of the monitor: --control-fd */

struct vm {
	struct loop *loop;
	const struct vm_ops *ops;
	void *arg;
	struct vmctl *ctl;
	bool ctl_dead;
	struct ev_child child;
	bool child_runs;
	struct ev_timer kill_timer, hangup_timer;
	bool expected; /* the end was asked for */
	int oom_score;
	char why[300];
	struct vm_info info;
};

static void set_why(struct vm *vm, const char *why)
{
	if (!*vm->why)
		(void)snprintf(vm->why, sizeof(vm->why), "%s", why);
}

static void signal_child(struct vm *vm)
{
	if (vm->child_runs)
		(void)pidfd_signal(vm->child.pidfd, SIGKILL);
}

static void vm_on_kill_timer(struct ev_timer *t)
{
	signal_child(t->arg);
}

/* The monitor has to be gone soon: it is told by the end of its control connection, then killed. */
static void expect_exit(struct vm *vm)
{
	if (ev_timer_add(vm->loop, &vm->kill_timer, VM_KILL_NS, vm_on_kill_timer, vm) < 0)
		signal_child(vm);
}

/* The VM has ended; the monitor leaves when its control connection ends. */
static void vm_on_hangup_timer(struct ev_timer *t)
{
	struct vm *vm = t->arg;

	vm->ctl_dead = true;
	vmctl_free(vm->ctl);
	vm->ctl = NULL;
	expect_exit(vm);
}

static void vm_on_child(struct ev_child *c, int status)
{
	struct vm *vm = c->arg;
	char text[80];

	vm->child_runs = false;
	/* Its last words may still be in the socket. */
	if (!vm->ctl_dead)
		vmctl_drain(vm->ctl);
	ev_timer_del(&vm->kill_timer);
	ev_timer_del(&vm->hangup_timer);
	if (WIFSIGNALED(status))
		(void)snprintf(text, sizeof(text), "monitor died: signal %d", WTERMSIG(status));
	else
		(void)snprintf(text, sizeof(text), "monitor died: exit status %d",
			       WEXITSTATUS(status));
	if (!vm->expected)
		set_why(vm, text);
	vm->ops->ended(vm->why, vm->arg);
}

/* ---- control connection ---- */

static const char *end_reason(Vmm__EndReason r)
{
	switch (r) {
	case VMM__END_REASON__POWEROFF:
		return "guest powered off";
	case VMM__END_REASON__REBOOT:
		return "guest kernel died or reset";
	case VMM__END_REASON__KILLED:
		return "VM killed";
	case VMM__END_REASON__MONITOR_ERROR:
		return "monitor failed";
	case VMM__END_REASON__BACKEND_DIED:
		return "backend died";
	default:
		return "VM ended";
	}
}

static void vm_on_event(const Vmm__Packet *p, void *arg)
{
	struct vm *vm = arg;
	char text[300];

	switch (p->body_case) {
	case VMM__PACKET__BODY_AGENT_CONNECTED:
		vm->info.boot_ns = p->agent_connected->boot_ns;
		vm->info.vcpu_start_ns = p->agent_connected->vcpu_start_ns;
		vm->info.agent_ready_ns = p->agent_connected->agent_ready_ns;
		vm->ops->agent_connected(vm->arg);
		break;
	case VMM__PACKET__BODY_DISK_ROOM:
		vm->ops->disk_room(p->disk_room, vm->arg);
		break;
	case VMM__PACKET__BODY_ENDED:
		(void)snprintf(text, sizeof(text), "%s%s%s", end_reason(p->ended->reason),
			       *p->ended->message ? ": " : "", p->ended->message);
		if (!vm->expected)
			set_why(vm, text);
		log_debug("VM ended", "reason", text);
		if (ev_timer_add(vm->loop, &vm->hangup_timer, 0, vm_on_hangup_timer, vm) < 0)
			signal_child(vm);
		break;
	default:
		break;
	}
}

static void vm_on_closed(int code, const struct err *err, void *arg)
{
	struct vm *vm = arg;

	vm->ctl_dead = true;
	/* A monitor that ended by itself says more by its exit status. */
	if (code != -ECONNRESET && !vm->expected)
		set_why(vm, err_text(err));
	if (code == -ECONNRESET)
		expect_exit(vm);
	else
		signal_child(vm);
}

static const struct vmctl_ops ctl_ops = { .event = vm_on_event, .closed = vm_on_closed };

/* The monitor serves a guest: what it says about a process of the host is not believed, or it could
 * have us kill any. Its child it may name. */
static void take_qemu(struct vm *vm, uint32_t pid)
{
	if (!pid || pid > INT32_MAX)
		return;
	if (pids_start_time((pid_t)pid, vm->info.pid, &vm->info.qemu_start) < 0) {
		log_limited(LOG_WARN, "the monitor names a process that is not its own");
		return;
	}
	vm->info.qemu_pid = (pid_t)pid;
	vm_set_oom_score(vm, vm->oom_score); /* it may have changed since QEMU was started */
}

void vm_set_oom_score(struct vm *vm, int score)
{
	struct vm_info *i = &vm->info;
	int r = 0;

	vm->oom_score = score;
	if (vm->child_runs)
		r = pids_set_oom_score(i->pid, getpid(), i->start, score);
	if (r == 0 && i->qemu_pid)
		r = pids_set_oom_score(i->qemu_pid, i->pid, i->qemu_start, score);
	if (r < 0)
		log_debug("oom_score_adj of the VM", "err", strerror(-r));
}

static void vm_on_info(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	struct vm *vm = arg;

	if (code < 0 || p->body_case != VMM__PACKET__BODY_INFO)
		return;
	(void)snprintf(vm->info.backend, sizeof(vm->info.backend), "%s", p->info->backend);
	(void)snprintf(vm->info.backend_reason, sizeof(vm->info.backend_reason), "%s",
		       p->info->backend_reason);
	take_qemu(vm, p->info->qemu_pid);
	vm->ops->info_changed(vm->arg);
}

static void vm_on_boot(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	struct vm *vm = arg;

	if (code == 0 || code == -ECANCELED)
		return;
	if (code != -ECONNRESET)
		set_why(vm, err_text(err));
	vm_kill(vm, "boot failed");
}

/* ---- start and end ---- */

static int spawn_monitor(struct vm *vm, const struct vm_config *cfg, int control_fd,
			 struct err *err)
{
	const char *argv[] = {
		"husk-vmm",
		"--control-fd",
		"3",
		"--backend",
		cfg->backend,
		"--kernel",
		cfg->kernel,
		"--initramfs",
		cfg->initramfs,
		"--pod",
		cfg->pod,
		"--log-level",
		cfg->log_level,
		"--log-format",
		cfg->log_format,
		*cfg->backend_reason ? "--backend-reason" : NULL,
		cfg->backend_reason,
		NULL,
	};
	struct spawn s = spawn_of(cfg->vmm_path, (char *const *)argv, cfg->oom_score_adj);
	int pidfd = -1, r;
	pid_t pid = 0;

	s.fds[2] = STDERR_FILENO;
	s.fds[CONTROL_FD] = control_fd;
	s.n_fds = CONTROL_FD + 1;
	s.die_with_parent = true;
	r = spawn_run(&s, &pid, &pidfd, err);
	if (r < 0)
		return r;
	r = ev_child_add(vm->loop, &vm->child, pid, pidfd, vm_on_child, vm);
	if (r < 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		return err_errno(err, r, "watch the monitor");
	}
	vm->child_runs = true;
	vm->info.pid = pid;
	vm->oom_score = cfg->oom_score_adj;
	if (pids_start_time(pid, getpid(), &vm->info.start) < 0)
		vm->info.start = 0; /* it has died already */
	return 0;
}

static int boot(struct vm *vm, const struct vm_config *cfg, int agent_fd, struct err *err)
{
	Vmm__Boot b = VMM__BOOT__INIT;
	int r;

	b.vcpus = cfg->vcpus;
	b.memory_mib = cfg->memory_mib;
	r = vmctl_boot(vm->ctl, &b, agent_fd, cfg->console_fd, vm_on_boot, vm);
	if (r == 0)
		r = vmctl_info(vm->ctl, vm_on_info, vm);
	return r < 0 ? err_errno(err, r, "boot") : 0;
}

static void join_cgroup(const struct vm *vm, const struct vm_config *cfg)
{
	struct err why = { 0 };

	if (cfg->cgroup && cgroup_add(cfg->cgroup, vm->info.pid, &why) < 0)
		log_warn("the pod is in no cgroup of its own", "err", err_text(&why));
}

/* QEMU is to be born in the pod's cgroup, so the monitor joins before it boots. Without QEMU it
 * does so while the guest boots: the kernel takes 15 ms for it. */
static int join_and_boot(struct vm *vm, const struct vm_config *cfg, int agent_fd, struct err *err)
{
	bool first = !str_eq(cfg->backend, "kvm");
	int r;

	if (first)
		join_cgroup(vm, cfg);
	r = boot(vm, cfg, agent_fd, err);
	if (r == 0 && !first)
		join_cgroup(vm, cfg);
	return r;
}

int vm_start(struct loop *l, const struct vm_config *cfg, const struct vm_ops *ops, void *arg,
	     struct vm **ret, int *ret_agent_fd, struct err *err)
{
	int control[2] = { -1, -1 }, agent[2] = { -1, -1 };
	struct vm *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm)
		return err_nomem(err);
	*vm = (struct vm){ .loop = l, .ops = ops, .arg = arg };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, agent) < 0) {
		r = err_errno(err, -errno, "sockets of the VM");
		goto fail;
	}
	r = spawn_monitor(vm, cfg, control[1], err);
	if (r < 0)
		goto fail;
	r = vmctl_new(l, take_fd(&control[0]), &ctl_ops, vm, &vm->ctl, err);
	if (r == 0)
		r = join_and_boot(vm, cfg, agent[1], err);
	if (r < 0)
		goto fail;
	*ret_agent_fd = take_fd(&agent[0]);
	*ret = vm;
	vm = NULL;
	r = 0;
fail:
	for (int i = 0; i < 2; i++) {
		fd_close(&control[i]);
		fd_close(&agent[i]);
	}
	vm_free(vm);
	return r;
}

struct vmctl *vm_ctl(const struct vm *vm)
{
	return vm->ctl_dead ? NULL : vm->ctl;
}

const struct vm_info *vm_info(const struct vm *vm)
{
	return &vm->info;
}

void vm_kill(struct vm *vm, const char *why)
{
	vm->expected = true;
	set_why(vm, why);
	if (vm->ctl_dead || vmctl_kill(vm->ctl, NULL, NULL) < 0)
		signal_child(vm);
	else
		expect_exit(vm);
}

void vm_expect_end(struct vm *vm)
{
	vm->expected = true;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	ev_timer_del(&vm->kill_timer);
	ev_timer_del(&vm->hangup_timer);
	vmctl_free(vm->ctl);
	if (vm->child_runs) {
		signal_child(vm);
		ev_child_del(&vm->child);
		(void)waitpid(vm->info.pid, NULL, 0);
	}
	free(vm);
}
