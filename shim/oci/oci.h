/*
 * The OCI runtime specification (config.json, and the Process of an exec) as the typed message that
 * the agent takes. Every field is either honoured or refused with an error that names it; nothing
 * is ignored but what has no meaning inside a VM (said where). Messages live in the caller's arena.
 * No I/O but oci_load. Any thread.
 */
#ifndef HUSK_SHIM_OCI_OCI_H
#define HUSK_SHIM_OCI_OCI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/pb.h"
#include "proto/agent.pb-c.h"

#define OCI_JSON_MAX (24 * MIB)	  /* 3 MiB of environment, escaped as \uXXXX, and the rest */
#define OCI_MEMORY_MAX (24 * MIB) /* of the arena */
#define OCI_MAP_MAX 1024u	  /* sysctls, annotations, unified */

struct oci_spec {
	Agent__CreateContainerRequest *req; /* without id, rootfs disks and stdio */
	bool rootfs_readonly;
	const char *hostname;	    /* "" = none */
	const char *container_type; /* annotation io.kubernetes.cri.container-type, "" = none */
	const char *sandbox_id;	    /* annotation io.kubernetes.cri.sandbox-id, "" = none */
};

/* What `start` needs: which pod a bundle belongs to. Each "" when absent. */
struct oci_group {
	char group[CONTAINER_ID_MAX + 1];      /* annotation io.containerd.runc.v2.group */
	char sandbox_id[CONTAINER_ID_MAX + 1]; /* annotation io.kubernetes.cri.sandbox-id */
};

/* -EINVAL: malformed; -ENOSYS: asks for something that Husk does not have; -EFBIG, -ENOMEM,
 * -ENOENT. */
int oci_load(struct pb_arena *a, const char *path, struct oci_spec *ret,
	     struct err *err) must_check;
int oci_parse(struct pb_arena *a, const char *json, size_t n, struct oci_spec *ret,
	      struct err *err) must_check;
/* A Process of its own, as an exec brings it. */
int oci_parse_process(struct pb_arena *a, const char *json, size_t n, Agent__Process **ret,
		      struct err *err) must_check;
/* A missing config.json is no error: containerd's sandbox bundles have none. */
int oci_group_of(const char *bundle, struct oci_group *ret, struct err *err) must_check;

#endif
