/*
 * The services on the shim's socket, for the daemon. Each is a table of handlers over a struct
 * shim; what several RPCs wait for is in pending.h. Loop thread.
 */
#ifndef HUSK_SHIM_SERVICE_SERVICE_H
#define HUSK_SHIM_SERVICE_SERVICE_H

#include "base/ttrpc/ttrpc.h"
#include "shim/pod/container.h"

extern const struct ttrpc_method task_methods[];    /* containerd.task.v2 and v3: the same */
extern const struct ttrpc_method sandbox_methods[]; /* containerd.runtime.sandbox.v1 */
extern const struct ttrpc_method husk_methods[];    /* husk.shim.v1 */

/* containerd's task events; arg is the struct shim. */
extern const struct container_ops task_events;

#endif
