/*
 * The pod's VM as a process: starts husk-vmm, boots, watches, kills, reaps. What runs inside is the
 * agent's business (agent_client.h). States: BOOTING -> RUNNING (the guest's channel is open) ->
 * ENDED (the monitor has been reaped, its files are free). Loop thread.
 */
#ifndef HUSK_SHIM_VM_VM_H
#define HUSK_SHIM_VM_VM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/loop.h"
#include "shim/vm/vmctl_client.h"

struct vm_config {
	const char *pod; /* its id, for the monitor's log */
	const char *vmm_path, *kernel, *initramfs;
	const char *backend;	    /* "auto", "kvm", "qemu" */
	const char *backend_reason; /* "" = the user asked for it */
	const char *log_level, *log_format;
	uint32_t vcpus, memory_mib;
	int oom_score_adj;
	const char *cgroup; /* for monitor and QEMU (cgroup.h); NULL = none */
	int console_fd;	    /* borrowed: where the guest's console goes; -1 = nowhere */
};

/* What SandboxInfo tells; CLOCK_MONOTONIC, ns, 0 = not yet. */
struct vm_info {
	char backend[16];
	char backend_reason[256];
	pid_t pid, qemu_pid;
	uint64_t start, qemu_start; /* of these processes (pids.h) */
	uint64_t boot_ns, vcpu_start_ns, agent_ready_ns;
};

struct vm;

struct vm_ops {
	void (*agent_connected)(void *arg); /* the guest serves: streams may be opened */
	void (*info_changed)(void *arg);    /* pids are known */
	void (*disk_room)(const Vmm__DiskRoom *room, void *arg); /* low, or there again */
	/* Once: the VM is gone and the monitor reaped. `why` is for people, "" after vm_kill. The
	 * VM may be freed. */
	void (*ended)(const char *why, void *arg);
};

/* Starts the monitor and sends Boot. *ret_agent_fd: the shim's end of the agent's channel, for the
 * caller. When it fails nothing is left. `cfg` is not kept. */
int vm_start(struct loop *l, const struct vm_config *cfg, const struct vm_ops *ops, void *arg,
	     struct vm **ret, int *ret_agent_fd, struct err *err) must_check;
/* For windows and connections; NULL when the control connection is gone. */
struct vmctl *vm_ctl(const struct vm *vm);
const struct vm_info *vm_info(const struct vm *vm);
/* Ends the VM: Kill, and SIGKILL when that takes longer than VM_KILL_NS. `ended` follows. `why` is
 * what `ended` will say unless a reason is known already. */
#define VM_KILL_NS NS_PER_S
void vm_kill(struct vm *vm, const char *why);
/* The guest is about to power itself off: its end is no failure. */
void vm_expect_end(struct vm *vm);
/* oom_score_adj of the monitor and of QEMU, from now on. */
void vm_set_oom_score(struct vm *vm, int score);
/* SIGKILLs and reaps the monitor if it still runs. NULL is fine. */
void vm_free(struct vm *vm);

#endif
