/*
 * What a command of `husk` is, and what it gets: its arguments and the connection to huskd. A
 * command prints its result on standard output, everything else on standard error, and returns the
 * exit code of the program.
 */
#ifndef HUSK_CLI_CLI_H
#define HUSK_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cli/fail.h"
#include "cli/out.h"
#include "cli/rpc.h"
#include "proto/cri.pb-c.h"
#include "proto/husk.pb-c.h"

/* Short requests get this long; a pod's start and stop get what CRI gives them. */
#define CALL_TIMEOUT_MS 30000
#define POD_TIMEOUT_MS 240000
#define STOP_GRACE_S 10

struct cli {
	const char *endpoint;
	struct rpc *rpc; /* open for every command with needs_server */
};

struct command {
	const char *name;
	const char *args;    /* "[--rm] IMAGE [COMMAND [ARG...]]" */
	const char *summary; /* one line */
	const char *help;    /* options and notes, lines indented by two spaces; may be "" */
	int (*run)(struct cli *c, int argc, char **argv); /* argv[0] is the command's name */
	bool needs_server;
};

extern const struct command cmd_run, cmd_exec, cmd_attach, cmd_logs, cmd_ps, cmd_pods, cmd_stop,
	cmd_rm;
extern const struct command cmd_images, cmd_verify, cmd_inspect, cmd_tag, cmd_rmi;
extern const struct command cmd_pull, cmd_push, cmd_save, cmd_load, cmd_login, cmd_logout;
extern const struct command cmd_df, cmd_prune;
extern const struct command cmd_check, cmd_version;

/* Calls of the services of CRI and of husk.v1; see rpc_call. */
#define runtime_call(c, method, req, timeout_ms, ret, err)                                         \
	rpc_call((c)->rpc, &cri__runtime_service__descriptor, method, &(req)->base, timeout_ms,    \
		 (ProtobufCMessage **)(void *)(ret), NULL, err)
#define image_call(c, method, req, timeout_ms, ret, err)                                           \
	rpc_call((c)->rpc, &cri__image_service__descriptor, method, &(req)->base, timeout_ms,      \
		 (ProtobufCMessage **)(void *)(ret), NULL, err)
#define husk_call(c, method, req, timeout_ms, ret, err)                                            \
	rpc_call((c)->rpc, &husk__husk__descriptor, method, &(req)->base, timeout_ms,              \
		 (ProtobufCMessage **)(void *)(ret), NULL, err)

#endif
