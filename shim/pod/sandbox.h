/*
 * The pod: its VM, its agent, its disk windows. States and what leads from one to the next:
 *
 *	NONE --prepare--> CREATED --start--> STARTING --agent answered--> READY --stop--> STOPPING
 *	STARTING, READY, STOPPING --the VM's end--> STOPPED
 *	NONE, CREATED --stop, or a start that fails--> STOPPED
 *
 * huskd leads it by the sandbox service; for containerd's own clients the first container does.
 * It knows neither of them: who asks waits by a callback, and what happens to the pod goes to its
 * owner by sandbox_ops. Loop thread.
 */
#ifndef HUSK_SHIM_POD_SANDBOX_H
#define HUSK_SHIM_POD_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/waits.h"
#include "proto/agent.pb-c.h"
#include "proto/cri.pb-c.h"
#include "proto/shim.pb-c.h"
#include "shim/io/console.h"
#include "shim/pod/disk_room.h"
#include "shim/pod/guest_clock.h"
#include "shim/pod/hostgroup.h"
#include "shim/pod/liveness.h"
#include "shim/pod/network.h"
#include "shim/pod/windows.h"
#include "shim/vm/agent_client.h"
#include "shim/vm/vm.h"

#define SANDBOX_CONFIG_MAX (4 * MIB) /* of memory for what the pod's configuration says */
#define SANDBOX_STOP_NS (2 * NS_PER_S)
#define SANDBOX_LOST_NS (300 * NS_PER_MS) /* from the agent's end to that of its VM */

#define STATUS_VM_DIED 255u /* of processes whose VM ended by itself */
#define STATUS_KILLED 137u  /* of processes that the end of the sandbox took along */

enum sandbox_state { SB_NONE, SB_CREATED, SB_STARTING, SB_READY, SB_STOPPING, SB_STOPPED };

/* None of these may free the sandbox. */
struct sandbox_ops {
	/* The agent's word: a process exited; the OOM killer was in a container. */
	void (*exited)(const Agent__ExitEvent *ev, void *arg);
	void (*oom)(const char *id, void *arg);
	/* READY. */
	void (*ready)(void *arg);
	/* The VM is gone, and with it every process: each ended with `status`. why "" = it was
	 * asked for. */
	void (*died)(uint32_t status, const char *why, void *arg);
	/* STOPPED, after everybody who waited for that. */
	void (*ended)(void *arg);
	/* The host's processes of the pod are others now. */
	void (*pids_changed)(void *arg);
	/* The host's disk has no room for what the pod writes, or has it again; for the log. */
	void (*disk_room)(const Vmm__DiskRoom *room, void *arg);
	/* Something went wrong that the pod survives; for the log. */
	void (*trouble)(const char *what, const struct err *err, void *arg);
};

/* What a sandbox is made from. Borrowed for its life. */
struct sandbox_setup {
	const char *id; /* the pod's */
	const Shim__Options *opts;
	const char *vmm_path, *kernel, *initramfs;
	const char *console;	   /* path of the file for the guest's console */
	const char *cgroup_record; /* path of the file that names the cgroup; NULL = no cgroup */
	const struct liveness_times *liveness; /* NULL = the normal ones */
};

/* Read by everybody, written by sandbox.c; but who waits adds himself to the lists, and containers
 * take windows. */
struct sandbox {
	struct loop *loop;
	const struct sandbox_setup *setup;
	const struct sandbox_ops *ops;
	void *arg;
	enum sandbox_state state;
	bool by_service; /* the sandbox service made it, and ends it */
	struct pb_arena arena;
	Agent__CreateSandboxRequest *req; /* in the arena */
	uint32_t vcpus, memory_mib;
	int oom_score;	     /* for the VM: of the pod's containers, or what is known before them */
	bool oom_fixed;	     /* the configuration of the pod says it */
	char *cgroup_parent; /* as the client named it; "" = not */
	struct hostgroup group;
	char *netns;		     /* path of the pod's network namespace; NULL = loopback only */
	struct pod_network network;  /* while STARTING */
	bool guest_set, network_set; /* what READY needs */
	struct vm *vm;		     /* STARTING to the VM's end */
	struct agent *agent;	     /* the same */
	struct console *console;     /* from the start on; NULL = could not be had */
	struct liveness liveness;    /* while READY */
	struct guest_clock clock;    /* the same */
	struct disk_room room;	     /* the same */
	struct windows windows;
	uint64_t next_stream;
	struct vm_info info; /* outlives the VM */
	char kernel_release[65];
	uint64_t requested_ns, ready_ns; /* CLOCK_MONOTONIC */
	int64_t created_at, exited_at;	 /* CLOCK_REALTIME, ns; 0 = not yet */
	char why[500];			 /* why it ended by itself, "" = it was stopped */
	struct waits ready_waits;	 /* run at READY, or with why it cannot get there */
	struct waits stopped_waits;	 /* run at STOPPED */
	struct ev_timer stop_timer, lost_timer;
	char lost_why[100]; /* for lost_timer */
};

void sandbox_init(struct sandbox *sb, struct loop *l, const struct sandbox_setup *setup,
		  const struct sandbox_ops *ops, void *arg);
/* Kills the VM if there is one; who waits gets -ECANCELED. No op is called. */
void sandbox_fini(struct sandbox *sb);

/* NONE -> CREATED, for the sandbox service. cfg NULL: a pod of defaults. -EBUSY in another
 * state. */
int sandbox_prepare(struct sandbox *sb, const Cri__PodSandboxConfig *cfg,
		    struct err *err) must_check;
/* The same for a container without a sandbox service. */
int sandbox_prepare_implicit(struct sandbox *sb, const char *hostname, struct err *err) must_check;
/* CREATED: the VM is to have the network of this namespace, a path. */
int sandbox_set_netns(struct sandbox *sb, const char *netns, struct err *err) must_check;
/* CREATED -> STARTING. */
int sandbox_start(struct sandbox *sb, struct err *err) must_check;
/* fn(0) once READY, fn(-errno) once it cannot get there; at once when that is so already. */
void sandbox_when_ready(struct sandbox *sb, wait_fn fn, void *arg);
/* Towards STOPPED: graceful within SANDBOX_STOP_NS, then by force. */
void sandbox_stop(struct sandbox *sb);
/* Towards STOPPED at once. True: it is; false: `ended` follows. */
bool sandbox_end(struct sandbox *sb);

/* The value that the pod's containers ask for; nothing when the pod has one of its own. */
void sandbox_set_oom_score(struct sandbox *sb, int score);
/* NULL when the VM is gone or going. */
struct vmctl *sandbox_ctl(const struct sandbox *sb);
/* A new connection to the agent's port for streams; a stdio_opener, arg is the sandbox. -EIO: the
 * VM is gone. */
int sandbox_open_stream(void *arg, uint64_t *ret_id, int *ret_fd, struct err *err) must_check;
/* A window's file is mapped, if it is not yet. `done` as vmctl_map's. */
int sandbox_map_window(struct sandbox *sb, uint64_t first, int fd, vmctl_done done,
		       void *arg) must_check;
/* One user of the window less. When it was the last and the guest has let go of the sectors they
 * are free again. When it may still use them they are not; but the host's file is taken from it if
 * it was writable. A read-only one stays mapped for the next container that wants it. */
void sandbox_put_window(struct sandbox *sb, uint64_t first, bool let_go);
/* Takes a writable file from the guest, whatever the guest says; its users stay. */
void sandbox_revoke_window(struct sandbox *sb, uint64_t first);
/* The host's process that stands for everything in the VM. */
uint32_t sandbox_pid(const struct sandbox *sb);
uint32_t sandbox_exit_status(const struct sandbox *sb);
/* The sandbox service has it, and has not ended it yet. */
bool sandbox_in_use(const struct sandbox *sb);

#endif
