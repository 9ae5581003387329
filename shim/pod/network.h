/*
 * The pod's network on its way into the VM: the host's half (net/join.h), the tap to the monitor,
 * the interface to the agent. All of it while the VM boots. Loop thread.
 */
#ifndef HUSK_SHIM_POD_NETWORK_H
#define HUSK_SHIM_POD_NETWORK_H

#include "base/err.h"
#include "base/loop.h"
#include "shim/net/join.h"
#include "shim/vm/agent_client.h"
#include "shim/vm/vm.h"

/* Once: code 0, the pod has its network, or none; or -errno, and the pod is not what was asked
 * for. */
typedef void (*pod_network_done)(int code, const struct err *err, void *arg);

/* Embedded in its owner, which outlives the agent. All zero = stopped. */
struct pod_network {
	struct join *join;
	struct vm *vm; /* borrowed; NULL = stopped */
	struct agent *agent;
	unsigned due; /* answers */
	pod_network_done done;
	void *arg;
};

/* CreateSandbox has been sent to the agent. */
int pod_network_start(struct pod_network *n, struct loop *loop, const char *netns, struct vm *vm,
		      struct agent *agent, pod_network_done done, void *arg,
		      struct err *err) must_check;
void pod_network_stop(struct pod_network *n); /* before vm and agent are freed; again is fine */

#endif
