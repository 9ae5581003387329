/* mounts of OCI: kernel file systems, and the files that the pod itself provides. */
#include <errno.h>

#include "base/limits.h"
#include "base/util.h"
#include "shim/oci/json.h"

static const struct {
	const char *oci, *agent;
} mount_types[] = {
	{ "proc", "proc" },	  { "sysfs", "sysfs" },	  { "tmpfs", "tmpfs" },
	{ "devpts", "devpts" },	  { "mqueue", "mqueue" }, { "cgroup", "cgroup2" },
	{ "cgroup2", "cgroup2" },
};

static bool has_option(const Agent__Mount *m, const char *name)
{
	for (size_t i = 0; i < m->n_options; i++) {
		if (str_eq(m->options[i], name))
			return true;
	}
	return false;
}

static int mount_kind(struct oci *o, Agent__Mount *m)
{
	static const char *const files[] = { "sandbox:shm", "sandbox:hosts", "sandbox:hostname",
					     "sandbox:resolv.conf" };

	if (str_eq(m->type, "bind") || has_option(m, "bind") || has_option(m, "rbind")) {
		for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
			if (str_eq(m->source, files[i])) {
				m->type = (char *)"bind";
				return 0;
			}
		}
		return err_set(
			o->err, -ENOSYS,
			"config.json: mount of %.150s on %.150s: directories and files of the "
			"host come with volumes, which Husk does not have yet",
			m->source, m->destination);
	}
	for (size_t i = 0; i < ARRAY_SIZE(mount_types); i++) {
		if (str_eq(m->type, mount_types[i].oci)) {
			m->type = (char *)mount_types[i].agent;
			m->source = (char *)""; /* a word without meaning for these types */
			return 0;
		}
	}
	return err_set(o->err, -ENOSYS,
		       "config.json: mount on %.150s: type \"%.50s\" is not supported",
		       m->destination, m->type);
}

static int one_mount(struct oci *o, const char *path, json_t *v, Agent__Mount *m)
{
	const char *key;
	json_t *e;
	int r = 0;

	if (!json_is_object(v))
		return oci_bad(o, path, "is not a list of objects");
	json_object_foreach (v, key, e) {
		if (json_is_null(e))
			continue;
		if (str_eq(key, "destination"))
			r = oci_string(o, path, e, &m->destination);
		else if (str_eq(key, "type"))
			r = oci_string(o, path, e, &m->type);
		else if (str_eq(key, "source"))
			r = oci_string(o, path, e, &m->source);
		else if (str_eq(key, "options"))
			r = oci_strings(o, path, e, 64, &m->n_options, &m->options);
		else if (!oci_empty(e))
			r = oci_unsupported(o, path, key); /* uidMappings, gidMappings */
		if (r < 0)
			return r;
	}
	if (m->destination[0] != '/')
		return oci_bad(o, path, "has an entry without absolute destination");
	return mount_kind(o, m);
}

int oci_mounts(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *req = o->spec->req;
	size_t n = json_array_size(v);
	int r;

	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	if (n > CONTAINER_MOUNTS_MAX)
		return oci_bad(o, path, "has too many entries");
	req->mounts = oci_alloc(o, n * sizeof(*req->mounts));
	if (!req->mounts)
		return oci_oom(o);
	for (size_t i = 0; i < n; i++) {
		req->mounts[i] = oci_alloc(o, sizeof(**req->mounts));
		if (!req->mounts[i])
			return oci_oom(o);
		agent__mount__init(req->mounts[i]);
		r = one_mount(o, path, json_array_get(v, i), req->mounts[i]);
		if (r < 0)
			return r;
	}
	req->n_mounts = n;
	return 0;
}
