/*
 * The shim of a pod: running the program, and connecting to the daemon it leaves behind. The calls
 * themselves go through base/ttrpc/ttrpc.h with the services named here. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_SHIM_CLIENT_H
#define HUSK_CRI_RUNTIME_SHIM_CLIENT_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "proto/shim.pb-c.h"

struct huskd;

#define SHIM_NAMESPACE "husk"
#define SHIM_START_MS 20000 /* `start` until its output ends */
#define SHIM_DELETE_MS 20000
#define SHIM_OUTPUT_MAX (64 * KIB)

#define SVC_SANDBOX (&sandbox__sandbox__descriptor)
#define SVC_TASK (&task_v3__task__descriptor)
#define SVC_SHIM (&shim__shim__descriptor)

/* address: of the daemon's socket, valid during the call, NULL when code < 0. */
typedef void (*shim_start_fn)(void *arg, int code, const char *address, const struct err *err);
typedef void (*shim_delete_fn)(void *arg, int code, const struct err *err);

/* Runs `start` in the bundle directory. `done` exactly once when 0 is returned, never inside. */
int shim_start(struct huskd *d, const char *id, const char *bundle, shim_start_fn done, void *arg,
	       struct err *err) must_check;
/* Runs `delete`: ends what is left of a pod whose shim does not answer. As above. */
int shim_delete(struct huskd *d, const char *id, const char *bundle, shim_delete_fn done, void *arg,
		struct err *err) must_check;
/* on_close as in ttrpc_client_new. */
int shim_connect(struct huskd *d, const char *address, void (*on_close)(void *arg), void *arg,
		 struct ttrpc_client **ret, struct err *err) must_check;

/* The exit code (126, 127, 128) that a Start which failed stands for, or 0 when the shim names
 * none. */
int shim_start_exit_code(const struct ttrpc_result *res);

/* The address in what `start` printed: plain text, or JSON of version 2 or 3. The caller frees. */
int shim_parse_address(const char *text, size_t len, char **ret, struct err *err) must_check;

#endif
