/*
 * The pod: its VM, its agent, its disk windows. States and what leads from one to the next:
 *
 *	NONE --prepare--> CREATED --start--> STARTING --agent answered--> READY --stop--> STOPPING
 *	STARTING, READY, STOPPING --the VM's end--> STOPPED     NONE, CREATED --stop--> STOPPED
 *
 * huskd leads it by the sandbox service; for containerd's own clients the first container does.
 * Loop thread.
 */
#ifndef HUSK_SHIM_POD_SANDBOX_H
#define HUSK_SHIM_POD_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pb.h"
#include "proto/agent.pb-c.h"
#include "proto/cri.pb-c.h"
#include "shim/vm/agent_client.h"
#include "shim/calls.h"
#include "shim/vm/vm.h"
#include "shim/pod/windows.h"

struct shim;

#define SANDBOX_CONFIG_MAX (4 * MIB) /* of memory for what the pod's configuration says */
#define SANDBOX_VCPUS_DEFAULT 1u
#define SANDBOX_VCPUS_MAX 64u
#define SANDBOX_MEMORY_DEFAULT_MIB 256u
#define SANDBOX_MEMORY_MIN_MIB 128u
#define SANDBOX_MEMORY_MAX_MIB 1048576u
#define SANDBOX_OVERHEAD_MIB 96u /* of guest kernel and agent, when the pod names none */
#define SANDBOX_STOP_NS (2 * NS_PER_S)
#define SANDBOX_LOST_NS (300 * NS_PER_MS) /* from the agent's end to that of its VM */

#define STATUS_VM_DIED 255u /* of containers whose VM ended by itself */
#define STATUS_KILLED 137u  /* of containers that StopSandbox ended */

enum sandbox_state { SB_NONE, SB_CREATED, SB_STARTING, SB_READY, SB_STOPPING, SB_STOPPED };

struct ready_waiter;

struct sandbox {
	enum sandbox_state state;
	bool by_service; /* CreateSandbox was called */
	struct pb_arena arena;
	Agent__CreateSandboxRequest *req; /* in the arena */
	uint32_t vcpus, memory_mib;
	struct vm *vm;	     /* STARTING to the VM's end */
	struct agent *agent; /* the same */
	struct windows windows;
	uint64_t next_stream;
	struct vm_info info; /* outlives the VM */
	char kernel_release[65];
	uint64_t requested_ns, ready_ns; /* CLOCK_MONOTONIC */
	int64_t created_at, exited_at;	 /* CLOCK_REALTIME, ns; 0 = not yet */
	char why[500];			 /* why it ended by itself, "" = it was stopped */
	struct err start_err;
	struct ready_waiter *waiters;
	struct calls wait_calls, stop_calls;
	struct ev_timer stop_timer, lost_timer;
	char lost_why[100]; /* for lost_timer */
};

void sandbox_init(struct shim *s);
void sandbox_fini(struct shim *s); /* kills the VM if there is one */

/* NONE -> CREATED. cfg NULL: a pod of defaults with the given host name. -EBUSY in another state.
 */
int sandbox_prepare(struct shim *s, const Cri__PodSandboxConfig *cfg, const char *hostname,
		    struct err *err) must_check;
/* CREATED -> STARTING. */
int sandbox_start(struct shim *s, struct err *err) must_check;
/* fn(0) once READY, fn(-errno) once it cannot get there; at once when that is so already. */
void sandbox_when_ready(struct shim *s, void (*fn)(int code, const struct err *err, void *arg),
			void *arg);
/* Graceful within SANDBOX_STOP_NS, else by force. `call`, if any, gets an empty
 * StopSandboxResponse. */
void sandbox_stop(struct shim *s, struct ttrpc_call *call);
/* By force. */
void sandbox_kill(struct shim *s, const char *why);
/* NULL when the VM is gone or going. */
struct vmctl *sandbox_ctl(struct shim *s);
/* One user of the window less; unmapped when it was the last. */
void sandbox_put_window(struct shim *s, uint64_t first, bool unmap);
/* The host's process that stands for everything in the VM. */
uint32_t sandbox_pid(const struct shim *s);
uint32_t sandbox_exit_status(const struct shim *s);

#endif
