/*
 * Containers and pods over CRI, as several commands need them: found by name, stopped, removed.
 * Blocking calls, any thread.
 */
#ifndef HUSK_CLI_CRI_H
#define HUSK_CLI_CRI_H

#include "cli/cli.h"

/* Where `husk run` keeps the logs, unless HUSK_LOG_DIR says otherwise. */
#define DEFAULT_LOG_DIR "/var/log/husk"

/* Labels of what `husk run` makes; `ps`, `logs`, `stop` and `rm` know a container by its name. */
#define LABEL_NAME "io.husk.name"
#define LABEL_RUN "io.husk.run"

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

#endif
