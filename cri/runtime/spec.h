/*
 * From CRI's configuration to the OCI config.json that the shim reads. What is wrong in it is
 * refused as in spec_check.h. Input is a hostile client's. Pure functions, no I/O.
 */
#ifndef HUSK_CRI_RUNTIME_SPEC_H
#define HUSK_CRI_RUNTIME_SPEC_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "image/image.h"
#include "proto/cri.pb-c.h"

#define SPEC_NAME_MAX 1024	 /* of a name or uid in metadata */
#define SPEC_JSON_MAX (24 * MIB) /* as the shim (OCI_JSON_MAX) */

/* The path of a namespace that a container shares with its pod: any path means the pod's. */
#define SPEC_POD_NAMESPACE "/run/husk/pod/"

struct spec_input {
	const char *pod_id, *container_id;
	const Cri__PodSandboxConfig *pod;
	const Cri__ContainerConfig *container;
	const struct image_config *image;
	const char *image_name;
};

/* The text of config.json; the caller frees. */
int spec_build(const struct spec_input *in, char **ret, struct err *err) must_check;
/* The `process` of a config.json text with other arguments, for an exec. */
int spec_exec(const char *config_json, char *const *args, size_t n_args, bool tty, char **ret,
	      struct err *err) must_check;
/* Stop signal: configuration over image over SIGTERM. *chosen: not just the default. */
int spec_stop_signal(const struct spec_input *in, int *ret, bool *chosen,
		     struct err *err) must_check;

/* ---- parts, for tests ---- */
/* Bits of the capabilities; adding and dropping as CRI says, "ALL" in any place. */
int spec_capabilities(const Cri__Capability *c, bool privileged, uint64_t *ret,
		      uint64_t *ret_ambient, struct err *err) must_check;
/* What process.user.username becomes: "user", "uid", "user:group", "uid:gid". The caller frees. */
int spec_user(const Cri__LinuxContainerSecurityContext *sc, const char *image_user, char **ret,
	      struct err *err) must_check;

#endif
