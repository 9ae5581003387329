/*
 * How the OCI files read a JSON object: a table says for each field what becomes of it, so that
 * none can be forgotten; and how they find each other. Private to this folder. Any thread.
 */
#ifndef HUSK_SHIM_OCI_JSON_H
#define HUSK_SHIM_OCI_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "shim/oci/oci.h"

#define OCI_PATH_MAX 128

struct oci {
	struct pb_arena *a;
	struct err *err;
	struct oci_spec *spec;	 /* NULL in an exec */
	Agent__Process *process; /* being filled */
	/* linux.resources, put together at the end */
	bool has_limit, has_swap, has_quota, has_period, devices_all;
	int64_t memory_limit, memory_swap, cpu_quota;
	uint64_t cpu_period;
};

enum oci_action {
	OCI_TAKE,   /* fn reads it */
	OCI_SKIP,   /* has no meaning inside a VM; the table says why */
	OCI_REFUSE, /* not supported: an error unless it is empty (null, "", [], {}, 0, false) */
};

struct oci_field {
	const char *name;
	enum oci_action action;
	int (*fn)(struct oci *o, const char *path, json_t *v);
};

/* Reads an object by its table. `path` names it in errors, "" at the top. A null value is as
 * absent. */
int oci_object(struct oci *o, const char *path, json_t *v, const struct oci_field *fields,
	       size_t n) must_check;
#define oci_fields(o, path, v, table) oci_object(o, path, v, table, ARRAY_SIZE(table))

int oci_bad(struct oci *o, const char *path, const char *what) must_check;	  /* -EINVAL */
int oci_unsupported(struct oci *o, const char *path, const char *why) must_check; /* -ENOSYS */

void *oci_alloc(struct oci *o, size_t n) must_check; /* zeroed; NULL: err is set by oci_oom */
int oci_oom(struct oci *o) must_check;
int oci_string(struct oci *o, const char *path, json_t *v, char **ret) must_check;
int oci_strings(struct oci *o, const char *path, json_t *v, size_t max, size_t *ret_n,
		char ***ret) must_check;
int oci_bool(struct oci *o, const char *path, json_t *v, bool *ret) must_check;
int oci_u64(struct oci *o, const char *path, json_t *v, uint64_t max, uint64_t *ret) must_check;
int oci_i64(struct oci *o, const char *path, json_t *v, int64_t min, int64_t max,
	    int64_t *ret) must_check;
bool oci_empty(json_t *v);

/* The parts of config.json, each in the file of its name. */
int oci_process(struct oci *o, const char *path, json_t *v, Agent__Process **ret) must_check;
int oci_mounts(struct oci *o, const char *path, json_t *v) must_check; /* -> req->mounts */
int oci_linux(struct oci *o, const char *path, json_t *v) must_check;
/* linux.resources -> req->cgroup, req->privileged */
int oci_resources(struct oci *o, const char *path, json_t *v) must_check;

#endif
