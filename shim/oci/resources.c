/* linux.resources of OCI (cgroup v1 in spirit) as files of cgroup v2. Conversions are those of the
 * OCI runtimes: shares 2..262144 -> weight 1..10000, swap = memory+swap -> swap alone. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "shim/oci/json.h"

#define CPU_PERIOD_DEFAULT 100000u

static int cgroup_put(struct oci *o, const char *file, const char *value)
{
	Agent__CreateContainerRequest *q = o->spec->req;
	Agent__CreateContainerRequest__CgroupEntry *e, **list;
	size_t fn = strlen(file) + 1, vn = strlen(value) + 1;

	if (q->n_cgroup >= OCI_MAP_MAX)
		return oci_bad(o, "linux.resources", "is too large");
	/* Room grows in powers of two; the arena takes the old lists back at its end. */
	if ((q->n_cgroup & (q->n_cgroup - 1)) == 0) {
		size_t cap = q->n_cgroup ? 2 * q->n_cgroup : 1;

		list = oci_alloc(o, cap * sizeof(*list));
		if (!list)
			return oci_oom(o);
		if (q->n_cgroup)
			memcpy(list, q->cgroup, q->n_cgroup * sizeof(*list));
		q->cgroup = list;
	}
	e = oci_alloc(o, sizeof(*e));
	if (!e)
		return oci_oom(o);
	agent__create_container_request__cgroup_entry__init(e);
	e->key = oci_alloc(o, fn);
	e->value = oci_alloc(o, vn);
	if (!e->key || !e->value)
		return oci_oom(o);
	memcpy(e->key, file, fn);
	memcpy(e->value, value, vn);
	q->cgroup[q->n_cgroup++] = e;
	return 0;
}

/* Negative = "max", as in OCI -1. */
static int cgroup_put_limit(struct oci *o, const char *file, int64_t n)
{
	char text[32];

	if (n < 0)
		return cgroup_put(o, file, "max");
	(void)snprintf(text, sizeof(text), "%lld", (long long)n);
	return cgroup_put(o, file, text);
}

/* ---- memory ---- */

static int resources_memory_limit(struct oci *o, const char *path, json_t *v)
{
	o->has_limit = true;
	return oci_i64(o, path, v, -1, INT64_MAX, &o->memory_limit);
}

static int resources_memory_swap(struct oci *o, const char *path, json_t *v)
{
	o->has_swap = true;
	return oci_i64(o, path, v, -1, INT64_MAX, &o->memory_swap);
}

static int resources_reservation(struct oci *o, const char *path, json_t *v)
{
	int64_t n;
	int r = oci_i64(o, path, v, -1, INT64_MAX, &n);

	if (r < 0 || n == 0)
		return r;
	return cgroup_put_limit(o, "memory.low", n);
}

static int resources_swappiness(struct oci *o, const char *path, json_t *v)
{
	return oci_unsupported(o, path, "cgroup v2 has none");
}

static const struct oci_field memory_fields[] = {
	{ "limit", OCI_TAKE, resources_memory_limit },
	{ "swap", OCI_TAKE, resources_memory_swap },
	{ "reservation", OCI_TAKE, resources_reservation },
	{ "swappiness", OCI_TAKE, resources_swappiness },
	{ "kernel", OCI_REFUSE, NULL },
	{ "kernelTCP", OCI_REFUSE, NULL },
	{ "disableOOMKiller", OCI_REFUSE, NULL },
	{ "useHierarchy", OCI_SKIP, NULL },	 /* cgroup v2 always does */
	{ "checkBeforeUpdate", OCI_SKIP, NULL }, /* there is nothing to update yet */
};

static int resources_memory(struct oci *o, const char *path, json_t *v)
{
	int r = oci_fields(o, path, v, memory_fields);

	if (r < 0)
		return r;
	if (o->has_limit && o->memory_limit != 0)
		r = cgroup_put_limit(o, "memory.max", o->memory_limit);
	if (r < 0 || !o->has_swap || o->memory_swap == 0)
		return r;
	if (o->memory_swap < 0)
		return cgroup_put(o, "memory.swap.max", "max");
	if (!o->has_limit || o->memory_limit <= 0 || o->memory_swap < o->memory_limit)
		return oci_bad(o, path, "has a swap (memory and swap) below its limit");
	return cgroup_put_limit(o, "memory.swap.max", o->memory_swap - o->memory_limit);
}

/* ---- cpu ---- */

static int resources_shares(struct oci *o, const char *path, json_t *v)
{
	uint64_t n;
	int r = oci_u64(o, path, v, UINT64_MAX, &n);

	if (r < 0 || n == 0)
		return r;
	n = MIN_OF(MAX_OF(n, 2), 262144);
	return cgroup_put_limit(o, "cpu.weight", (int64_t)(1 + (n - 2) * 9999 / 262142));
}

static int resources_quota(struct oci *o, const char *path, json_t *v)
{
	o->has_quota = true;
	return oci_i64(o, path, v, -1, INT64_MAX, &o->cpu_quota);
}

static int resources_period(struct oci *o, const char *path, json_t *v)
{
	o->has_period = true;
	return oci_u64(o, path, v, 1000000, &o->cpu_period);
}

static int resources_burst(struct oci *o, const char *path, json_t *v)
{
	int64_t n;
	int r = oci_i64(o, path, v, 0, INT64_MAX, &n);

	return r < 0 || n == 0 ? r : cgroup_put_limit(o, "cpu.max.burst", n);
}

static int resources_idle(struct oci *o, const char *path, json_t *v)
{
	int64_t n;
	int r = oci_i64(o, path, v, 0, 1, &n);

	return r < 0 || n == 0 ? r : cgroup_put_limit(o, "cpu.idle", n);
}

static int resources_cpuset(struct oci *o, const char *path, json_t *v)
{
	if (oci_empty(v))
		return 0;
	return oci_unsupported(o, path, "numbers of the host's CPUs mean nothing in the VM");
}

static const struct oci_field cpu_fields[] = {
	{ "shares", OCI_TAKE, resources_shares }, { "quota", OCI_TAKE, resources_quota },
	{ "period", OCI_TAKE, resources_period }, { "burst", OCI_TAKE, resources_burst },
	{ "idle", OCI_TAKE, resources_idle },	  { "cpus", OCI_TAKE, resources_cpuset },
	{ "mems", OCI_TAKE, resources_cpuset },	  { "realtimeRuntime", OCI_REFUSE, NULL },
	{ "realtimePeriod", OCI_REFUSE, NULL },
};

static int resources_cpu(struct oci *o, const char *path, json_t *v)
{
	char text[64];
	int r = oci_fields(o, path, v, cpu_fields);

	if (r < 0)
		return r;
	if (!(o->has_quota && o->cpu_quota > 0) && !(o->has_period && o->cpu_period))
		return 0;
	if (!o->cpu_period)
		o->cpu_period = CPU_PERIOD_DEFAULT;
	if (o->has_quota && o->cpu_quota > 0)
		(void)snprintf(text, sizeof(text), "%lld %llu", (long long)o->cpu_quota,
			       (unsigned long long)o->cpu_period);
	else
		(void)snprintf(text, sizeof(text), "max %llu", (unsigned long long)o->cpu_period);
	return cgroup_put(o, "cpu.max", text);
}

/* ---- the others ---- */

static int resources_pids_limit(struct oci *o, const char *path, json_t *v)
{
	int64_t n;
	int r = oci_i64(o, path, v, INT64_MIN, INT64_MAX, &n);

	if (r < 0 || n == 0)
		return r;
	return cgroup_put_limit(o, "pids.max", n);
}

static const struct oci_field pids_fields[] = { { "limit", OCI_TAKE, resources_pids_limit } };

static int resources_pids(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, pids_fields);
}

/* kubelet sends a limit of 0 for every page size of the host; the guest has no huge pages. */
static int resources_hugepages(struct oci *o, const char *path, json_t *v)
{
	size_t i;
	json_t *e;

	json_array_foreach (v, i, e) {
		if (json_number_value(json_object_get(e, "limit")) != 0)
			return oci_unsupported(o, path, "the VM has no huge pages");
	}
	return 0;
}

static int resources_unified(struct oci *o, const char *path, json_t *v)
{
	static const char fine[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	const char *key, *value;
	json_t *e;
	int r;

	if (!json_is_object(v))
		return oci_bad(o, path, "is not an object");
	json_object_foreach (v, key, e) {
		value = json_string_value(e);
		if (!value || strlen(value) > 4096)
			return oci_bad(o, path, "has a value that is no string, or too long");
		/* A file of a controller; cgroup.* would move or freeze the container. */
		if (strspn(key, fine) != strlen(key) || strlen(key) > 64 || !strchr(key, '.') ||
		    key[0] == '.' || str_starts(key, "cgroup."))
			return oci_bad(o, path, "names a file that is not a controller's");
		r = cgroup_put(o, key, value);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The devices that every container has (null, zero, full, random, urandom, tty, console, ptmx,
 * pts). */
static bool standard_device(const char *type, int64_t major, int64_t minor)
{
	static const int64_t numbers[][2] = { { 1, 3 }, { 1, 5 }, { 1, 7 }, { 1, 8 },	{ 1, 9 },
					      { 5, 0 }, { 5, 1 }, { 5, 2 }, { 136, -1 } };

	if (!str_eq(type, "c"))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (numbers[i][0] == major && (numbers[i][1] == minor || numbers[i][1] < 0))
			return true;
	}
	return false;
}

/* Rules apply in order. Two kinds of container exist: one with the standard devices, and one that
 * may use everything the VM has, whose last word is "allow all". */
static int device_rule(struct oci *o, const char *path, json_t *e)
{
	const char *type = json_string_value(json_object_get(e, "type"));
	const char *access = json_string_value(json_object_get(e, "access"));
	json_t *maj = json_object_get(e, "major"), *min = json_object_get(e, "minor");
	int64_t major = -1, minor = -1;
	bool allow, all;
	int r;

	if (!json_is_object(e) || !json_is_boolean(json_object_get(e, "allow")))
		return oci_bad(o, path, "has an entry without allow");
	allow = json_is_true(json_object_get(e, "allow"));
	r = maj && !json_is_null(maj) ? oci_i64(o, path, maj, -1, UINT32_MAX, &major) : 0;
	if (r == 0 && min && !json_is_null(min))
		r = oci_i64(o, path, min, -1, UINT32_MAX, &minor);
	if (r < 0)
		return r;
	all = major < 0 && minor < 0 && (str_empty(type) || str_eq(type, "a"));
	if (all && !str_empty(access) && strspn(access, "rwm") == strlen(access) &&
	    strlen(access) == 3) {
		o->devices_all = allow;
		return 0;
	}
	if (all && str_empty(access)) {
		o->devices_all = allow;
		return 0;
	}
	/* Making a node is no use of it. */
	if (allow && (str_eq(access, "m") || o->devices_all || standard_device(type, major, minor)))
		return 0;
	return oci_unsupported(
		o, path, allow ? "a device beyond the standard ones" : "to deny single devices");
}

static int resources_devices(struct oci *o, const char *path, json_t *v)
{
	size_t i;
	json_t *e;
	int r;

	if (!json_is_array(v) || json_array_size(v) > OCI_MAP_MAX)
		return oci_bad(o, path, "is not a list, or is too long");
	json_array_foreach (v, i, e) {
		r = device_rule(o, path, e);
		if (r < 0)
			return r;
	}
	o->spec->req->privileged = o->devices_all;
	return 0;
}

static const struct oci_field resource_fields[] = {
	{ "devices", OCI_TAKE, resources_devices },
	{ "memory", OCI_TAKE, resources_memory },
	{ "cpu", OCI_TAKE, resources_cpu },
	{ "pids", OCI_TAKE, resources_pids },
	{ "blockIO", OCI_REFUSE, NULL },
	{ "hugepageLimits", OCI_TAKE, resources_hugepages },
	{ "network", OCI_REFUSE, NULL },
	{ "rdma", OCI_REFUSE, NULL },
	{ "unified", OCI_TAKE, resources_unified },
};

int oci_resources(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, resource_fields);
}
