/*
 * What the commands of `husk` share: the connection, the table of commands, and small helpers over
 * CRI. A command prints its result on standard output, everything else on standard error, and
 * returns the exit code of the program.
 */
#ifndef HUSK_CLI_CLI_H
#define HUSK_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cli/out.h"
#include "cli/rpc.h"
#include "proto/cri.pb-c.h"

#define EXIT_USAGE 2
/* `run` and `exec` end with the container's code; this one means that husk itself failed. */
#define EXIT_HUSK 125

/* Short requests get this long; a pod's start and stop get what CRI gives them. */
#define CALL_TIMEOUT_MS 30000
#define POD_TIMEOUT_MS 240000
#define STOP_GRACE_S 10

/* Where `husk run` keeps the logs, unless HUSK_LOG_DIR says otherwise. */
#define DEFAULT_LOG_DIR "/var/log/husk"

/* Labels of what `husk run` makes; `ps`, `logs`, `stop` and `rm` know a container by its name. */
#define LABEL_NAME "io.husk.name"
#define LABEL_RUN "io.husk.run"

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

extern const struct command cmd_run, cmd_exec, cmd_logs, cmd_ps, cmd_pods, cmd_stop, cmd_rm;
extern const struct command cmd_images, cmd_verify, cmd_inspect, cmd_tag, cmd_rmi;
extern const struct command cmd_pull, cmd_push, cmd_save, cmd_load, cmd_login, cmd_logout;
extern const struct command cmd_df, cmd_prune;
extern const struct command cmd_check, cmd_version;

/* Prints "husk: TEXT" and returns `code`. */
int fail(int code, const struct err *err);
/* Appends "; HINT" to the text: what to do now. Returns `code`. */
int with_hint(struct err *err, int code, const char *hint);
/* Prints the text, then "Try 'husk COMMAND --help'.", returns EXIT_USAGE. */
int usage_error(const struct command *cmd, const char *fmt, ...) printf_like(2, 3);
void print_help(const struct command *cmd);

/* Calls of the CRI services; see rpc_call. */
#define runtime_call(c, method, req, timeout_ms, ret, err)                                         \
	rpc_call((c)->rpc, &cri__runtime_service__descriptor, method, &(req)->base, timeout_ms,    \
		 (ProtobufCMessage **)(void *)(ret), NULL, err)
#define image_call(c, method, req, timeout_ms, ret, err)                                           \
	rpc_call((c)->rpc, &cri__image_service__descriptor, method, &(req)->base, timeout_ms,      \
		 (ProtobufCMessage **)(void *)(ret), NULL, err)

#define husk_call(c, method, req, timeout_ms, ret, err)                                            \
	rpc_call((c)->rpc, &husk__husk__descriptor, method, &(req)->base, timeout_ms,              \
		 (ProtobufCMessage **)(void *)(ret), NULL, err)

const char *container_state_text(Cri__ContainerState s);
/* Value of a label, or NULL. */
const char *label_of(Cri__Container *const ct, const char *key);
/* The container whose name (label) equals `ref`, or whose id starts with it and with no other.
 * *ret_list owns *ret; free it with free_containers. -ENOENT, -EEXIST when ambiguous. */
int find_container(struct cli *c, const char *ref, Cri__ListContainersResponse **ret_list,
		   Cri__Container **ret, struct err *err) must_check;
void free_containers(Cri__ListContainersResponse **list);
#define cleanup_containers cleanup_with(free_containers)
/* Stops and removes a pod and all that is in it. */
int remove_pod(struct cli *c, const char *pod_id, struct err *err) must_check;
/* The pod that `husk run` made goes with its container, and its log. */
int remove_run(struct cli *c, Cri__Container *const ct, struct err *err) must_check;
int stop_container(struct cli *c, const char *id, int64_t grace_s, struct err *err) must_check;
/* Directory of the log of what `husk run` called `name`; -EINVAL for a name that cannot be one. The
 * caller frees. */
int run_log_dir(const char *name, char **ret, struct err *err) must_check;
/* How long a pull took; both 0 when the image was here. */
struct pull_times {
	uint64_t fetch_ns; /* until the last blob was there */
	uint64_t total_ns; /* until the image could be used */
};
/* Makes sure that an image is there; draws progress on standard error. *ret_ref: for
 * CreateContainer, the caller frees. */
int ensure_image(struct cli *c, const char *image, bool always_pull, char **ret_ref,
		 struct pull_times *ret_times, struct err *err) must_check;

/* "3 minutes ago", "12.4 MB" into buf. */
const char *human_age(int64_t then_ns, char buf[32]);
const char *human_size(uint64_t bytes, char buf[32]);

#endif
