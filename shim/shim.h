/*
 * The shim's daemon: one process for one pod. What it consists of, and how its parts find each
 * other. Everything runs on one loop; nothing here is shared with another thread.
 */
#ifndef HUSK_SHIM_SHIM_H
#define HUSK_SHIM_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/shim.pb-c.h"
#include "shim/calls.h"
#include "shim/pod/container.h"
#include "shim/events.h"
#include "shim/pod/sandbox.h"

#define SHIM_CONTAINERS_MAX 64u
#define SHIM_EXECS_MAX 250u /* a container; the agent allows 256 processes */

struct shim {
	struct loop *loop;
	const char *ns, *id;
	const char *bundle; /* absolute; the pod's */
	const char *socket; /* path of the socket */
	const Shim__Options *opts;
	char *vmm_path, *kernel, *initramfs; /* resolved */
	struct ttrpc_server *server;
	struct events *events;
	struct sandbox sandbox;
	struct container *containers;
	size_t n_containers;
	bool exiting;
	struct calls exit_calls; /* answered when the VM is gone */
	struct ev_timer exit_timer;
};

/* The pod's record of processes (pids.h), anew. */
void shim_record_pids(struct shim *s);
/* Ends the VM, removes the socket, answers `call` (with an Empty-like message), and exits. */
void shim_exit(struct shim *s, struct ttrpc_call *call);
/* Called when the sandbox has ended: an exit that waits for it goes on. */
void shim_sandbox_ended(struct shim *s);

extern const struct ttrpc_method task_methods[];    /* containerd.task.v2 and v3: the same */
extern const struct ttrpc_method sandbox_methods[]; /* containerd.runtime.sandbox.v1 */
extern const struct ttrpc_method husk_methods[];    /* husk.shim.v1 */

#endif
