/*
 * From CRI's configuration to the OCI config.json that the shim reads. Also the checks: what Husk
 * cannot honour is refused here with -ENOSYS (not yet), -EINVAL (never right) or -EBUSY (the pod
 * was not made for it), never ignored. Input is a hostile client's. Pure functions, no I/O.
 */
#ifndef HUSK_CRI_RUNTIME_SPEC_H
#define HUSK_CRI_RUNTIME_SPEC_H

#include "base/compiler.h"
#include "base/err.h"
#include "image/image.h"
#include "proto/cri.pb-c.h"

#define SPEC_ARGS_MAX 4096 /* as the agent (agent.proto) */
#define SPEC_ENV_MAX 4096
#define SPEC_GROUPS_MAX 1024
#define SPEC_PATHS_MAX 1024
#define SPEC_NAME_MAX 1024	/* of a name or uid in metadata */
#define SPEC_JSON_MAX (2 * MIB) /* as the shim (OCI_JSON_MAX) */

/* The path of a namespace that a container shares with its pod: any path means the pod's. */
#define SPEC_POD_NAMESPACE "/run/husk/pod/"

struct spec_input {
	const char *pod_id, *container_id;
	const Cri__PodSandboxConfig *pod;
	const Cri__ContainerConfig *container;
	const struct image_config *image;
	const char *image_name;
};

/* RunPodSandbox: everything that can be said about its configuration before any work. */
int spec_check_pod(const Cri__PodSandboxConfig *c, struct err *err) must_check;
/* CreateContainer: what spec_build does not look at. */
int spec_check_container(const struct spec_input *in, struct err *err) must_check;
/* The text of config.json; the caller frees. */
int spec_build(const struct spec_input *in, char **ret, struct err *err) must_check;
/* The `process` of a config.json text with other arguments, without terminal, for an exec. */
int spec_exec(const char *config_json, char *const *args, size_t n_args, char **ret,
	      struct err *err) must_check;
/* Stop signal: configuration over image over SIGTERM. *chosen: not just the default. */
int spec_stop_signal(const struct spec_input *in, int *ret, bool *chosen,
		     struct err *err) must_check;
/* log_directory/log_path; NULL = no log. -EINVAL: not absolute, or it climbs out by "..". */
int spec_log_path(const Cri__PodSandboxConfig *pod, const Cri__ContainerConfig *container,
		  char **ret, struct err *err) must_check;

/* ---- parts, for tests ---- */
/* Bits of the capabilities; adding and dropping as CRI says, "ALL" in any place. */
int spec_capabilities(const Cri__Capability *c, bool privileged, uint64_t *ret,
		      uint64_t *ret_ambient, struct err *err) must_check;
/* What process.user.username becomes: "user", "uid", "user:group", "uid:gid". The caller frees. */
int spec_user(const Cri__LinuxContainerSecurityContext *sc, const char *image_user, char **ret,
	      struct err *err) must_check;

#endif
