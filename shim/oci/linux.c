/* linux of OCI, but for its resources: namespaces, sysctls, paths, and what is refused. */
#include "base/limits.h"
#include "base/util.h"
#include "shim/oci/json.h"

/* A namespace of its own: an entry without path. No entry, or one with a path (another container's,
 * as container managers write it), is the pod's. */
static int linux_namespaces(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *req = o->spec->req;
	const char *type, *where;
	bool mount_seen = false;
	size_t i;
	json_t *e;

	req->pid_namespace = req->ipc_namespace = AGENT__NAMESPACE_MODE__POD;
	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	json_array_foreach (v, i, e) {
		type = json_string_value(json_object_get(e, "type"));
		where = json_string_value(json_object_get(e, "path"));
		if (!type)
			return oci_bad(o, path, "has an entry without type");
		if (str_eq(type, "pid") && str_empty(where))
			req->pid_namespace = AGENT__NAMESPACE_MODE__PRIVATE;
		else if (str_eq(type, "ipc") && str_empty(where))
			req->ipc_namespace = AGENT__NAMESPACE_MODE__PRIVATE;
		else if (str_eq(type, "mount") && str_empty(where))
			mount_seen = true;
		else if (str_eq(type, "mount"))
			return oci_unsupported(o, path, "a mount namespace with a path");
		else if (str_eq(type, "user") || str_eq(type, "time"))
			return oci_unsupported(o, path, type);
		else if (!str_eq(type, "pid") && !str_eq(type, "ipc") && !str_eq(type, "uts") &&
			 !str_eq(type, "network") && !str_eq(type, "cgroup"))
			return oci_bad(o, path, "has an entry of unknown type");
		/* network: the VM's is the pod's, private already. uts: `hostname` below says
		 * whether the container has a name of its own. cgroup: always the container's own.
		 */
	}
	if (!mount_seen)
		return oci_unsupported(o, path, "a container without mount namespace");
	return 0;
}

static int linux_masked(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *q = o->spec->req;

	return oci_strings(o, path, v, CONTAINER_PATHS_MAX, &q->n_masked_paths, &q->masked_paths);
}

static int linux_readonly(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *q = o->spec->req;

	return oci_strings(o, path, v, CONTAINER_PATHS_MAX, &q->n_readonly_paths,
			   &q->readonly_paths);
}

static int linux_sysctl(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *q = o->spec->req;
	Agent__CreateContainerRequest__SysctlsEntry *e;
	size_t n = json_object_size(v), i = 0;
	json_t *value, *name;
	const char *key;
	int r;

	if (!json_is_object(v) || n > OCI_MAP_MAX)
		return oci_bad(o, path, "is not an object, or is too large");
	q->sysctls = oci_alloc(o, n * sizeof(*q->sysctls));
	if (!q->sysctls)
		return oci_oom(o);
	json_object_foreach (v, key, value) {
		e = oci_alloc(o, sizeof(*e));
		if (!e)
			return oci_oom(o);
		agent__create_container_request__sysctls_entry__init(e);
		r = oci_string(o, path, value, &e->value);
		if (r < 0)
			return r;
		name = json_string(key);
		r = name ? oci_string(o, path, name, &e->key) : oci_oom(o);
		json_decref(name);
		if (r < 0)
			return r;
		q->sysctls[i++] = e;
	}
	q->n_sysctls = n;
	return 0;
}

static int linux_seccomp(struct oci *o, const char *path, json_t *v)
{
	if (oci_empty(v))
		return 0;
	return oci_unsupported(o, path, "run it unconfined until Husk compiles seccomp profiles");
}

static int linux_devices(struct oci *o, const char *path, json_t *v)
{
	if (oci_empty(v))
		return 0;
	return oci_unsupported(o, path,
			       "devices of the host are not in the VM (containerd: set "
			       "privileged_without_host_devices)");
}

static int linux_propagation(struct oci *o, const char *path, json_t *v)
{
	static const char *const fine[] = { "", "private", "rprivate", "slave", "rslave" };

	for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
		if (str_eq(json_string_value(v), fine[i]))
			return 0;
	}
	return oci_unsupported(o, path, "only private and slave");
}

static const struct oci_field linux_fields[] = {
	{ "uidMappings", OCI_REFUSE, NULL },
	{ "gidMappings", OCI_REFUSE, NULL },
	{ "sysctl", OCI_TAKE, linux_sysctl },
	{ "resources", OCI_TAKE, oci_resources },
	{ "cgroupsPath", OCI_SKIP, NULL }, /* a place on the host; the guest has its own tree */
	{ "namespaces", OCI_TAKE, linux_namespaces },
	{ "devices", OCI_TAKE, linux_devices },
	{ "netDevices", OCI_REFUSE, NULL },
	{ "seccomp", OCI_TAKE, linux_seccomp },
	{ "rootfsPropagation", OCI_TAKE, linux_propagation },
	{ "maskedPaths", OCI_TAKE, linux_masked },
	{ "readonlyPaths", OCI_TAKE, linux_readonly },
	{ "mountLabel", OCI_REFUSE, NULL },
	{ "intelRdt", OCI_REFUSE, NULL },
	{ "memoryPolicy", OCI_REFUSE, NULL },
	{ "personality", OCI_REFUSE, NULL },
	{ "timeOffsets", OCI_REFUSE, NULL },
};

int oci_linux(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, linux_fields);
}
