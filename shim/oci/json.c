#include "shim/oci/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

int oci_bad(struct oci *o, const char *path, const char *what)
{
	return err_set(o->err, -EINVAL, "config.json: %s %s", path, what);
}

int oci_unsupported(struct oci *o, const char *path, const char *why)
{
	return err_set(o->err, -ENOSYS, "config.json: %s is not supported%s%s", path,
		       *why ? ": " : "", why);
}

int oci_oom(struct oci *o)
{
	return err_set(o->err, -ENOBUFS, "config.json needs more than %zu MiB",
		       OCI_MEMORY_MAX / MIB);
}

void *oci_alloc(struct oci *o, size_t n)
{
	void *p = pb_arena_alloc(o->a, n ? n : 1);

	if (p)
		memset(p, 0, n);
	return p;
}

bool oci_empty(json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_NULL:
	case JSON_FALSE:
		return true;
	case JSON_STRING:
		return json_string_length(v) == 0;
	case JSON_ARRAY:
		return json_array_size(v) == 0;
	case JSON_OBJECT:
		return json_object_size(v) == 0;
	case JSON_INTEGER:
	case JSON_REAL:
		return json_number_value(v) == 0;
	default:
		return false;
	}
}

static const struct oci_field *find_field(const struct oci_field *fields, size_t n,
					  const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (str_eq(fields[i].name, name))
			return &fields[i];
	}
	return NULL;
}

int oci_object(struct oci *o, const char *path, json_t *v, const struct oci_field *fields, size_t n)
{
	char sub[OCI_PATH_MAX];
	const char *key;
	json_t *value;
	int r;

	if (!json_is_object(v))
		return oci_bad(o, path, "is not an object");
	json_object_foreach (v, key, value) {
		const struct oci_field *f = find_field(fields, n, key);

		(void)snprintf(sub, sizeof(sub), "%s%s%.60s", path, *path ? "." : "", key);
		if (json_is_null(value))
			continue;
		if (!f)
			return oci_unsupported(o, sub, "unknown field");
		if (f->action == OCI_SKIP)
			continue;
		if (f->action == OCI_REFUSE) {
			if (oci_empty(value))
				continue;
			return oci_unsupported(o, sub, "");
		}
		r = f->fn(o, sub, value);
		if (r < 0)
			return r;
	}
	return 0;
}

int oci_string(struct oci *o, const char *path, json_t *v, char **ret)
{
	size_t n;
	char *s;

	if (!json_is_string(v))
		return oci_bad(o, path, "is not a string");
	n = json_string_length(v);
	s = pb_arena_alloc(o->a, n + 1);
	if (!s)
		return oci_oom(o);
	memcpy(s, json_string_value(v), n);
	s[n] = 0;
	*ret = s;
	return 0;
}

int oci_strings(struct oci *o, const char *path, json_t *v, size_t max, size_t *ret_n, char ***ret)
{
	size_t n = json_array_size(v);
	char **list;
	int r;

	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	if (n > max)
		return oci_bad(o, path, "has too many entries");
	list = oci_alloc(o, n * sizeof(*list));
	if (!list)
		return oci_oom(o);
	for (size_t i = 0; i < n; i++) {
		r = oci_string(o, path, json_array_get(v, i), &list[i]);
		if (r < 0)
			return r;
	}
	*ret_n = n;
	*ret = list;
	return 0;
}

int oci_bool(struct oci *o, const char *path, json_t *v, bool *ret)
{
	if (!json_is_boolean(v))
		return oci_bad(o, path, "is not true or false");
	*ret = json_is_true(v);
	return 0;
}

/* Numbers come as doubles (JSON_DECODE_INT_AS_REAL), because jansson has no integers above 2^63 - 1
 * and RLIM_INFINITY is 2^64 - 1. Exact up to 2^53; what is beyond 2^64 - 2^11 is meant as infinite.
 */
static int number(struct oci *o, const char *path, json_t *v, double *ret)
{
	double d = json_number_value(v);

	if (!json_is_number(v))
		return oci_bad(o, path, "is not a number");
	if (!isfinite(d) || d != trunc(d))
		return oci_bad(o, path, "is not an integer");
	*ret = d;
	return 0;
}

int oci_u64(struct oci *o, const char *path, json_t *v, uint64_t max, uint64_t *ret)
{
	uint64_t n;
	double d;
	int r = number(o, path, v, &d);

	if (r < 0)
		return r;
	if (d < 0 || d > 0x1p64)
		return oci_bad(o, path, "is out of range");
	n = d >= 0x1p64 ? UINT64_MAX : (uint64_t)d;
	if (n > max)
		return oci_bad(o, path, "is out of range");
	*ret = n;
	return 0;
}

int oci_i64(struct oci *o, const char *path, json_t *v, int64_t min, int64_t max, int64_t *ret)
{
	int64_t n;
	double d;
	int r = number(o, path, v, &d);

	if (r < 0)
		return r;
	if (d < -0x1p63 || d > 0x1p63)
		return oci_bad(o, path, "is out of range");
	n = d >= 0x1p63 ? INT64_MAX : (int64_t)d;
	if (n < min || n > max)
		return oci_bad(o, path, "is out of range");
	*ret = n;
	return 0;
}
