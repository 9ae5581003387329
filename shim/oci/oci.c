#include "shim/oci/oci.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "shim/oci/json.h"

/* ---- process ---- */

/* Bit numbers of capabilities(7). */
static const char *const cap_names[] = {
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_DAC_READ_SEARCH",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST",
	"CAP_NET_ADMIN",
	"CAP_NET_RAW",
	"CAP_IPC_LOCK",
	"CAP_IPC_OWNER",
	"CAP_SYS_MODULE",
	"CAP_SYS_RAWIO",
	"CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE",
	"CAP_SYS_PACCT",
	"CAP_SYS_ADMIN",
	"CAP_SYS_BOOT",
	"CAP_SYS_NICE",
	"CAP_SYS_RESOURCE",
	"CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG",
	"CAP_MKNOD",
	"CAP_LEASE",
	"CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL",
	"CAP_SETFCAP",
	"CAP_MAC_OVERRIDE",
	"CAP_MAC_ADMIN",
	"CAP_SYSLOG",
	"CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ",
	"CAP_PERFMON",
	"CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
};

static int cap_set(struct oci *o, const char *path, json_t *v, uint64_t *ret)
{
	uint64_t bits = 0;
	const char *name;
	size_t i, c;
	json_t *e;

	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	json_array_foreach (v, i, e) {
		name = json_string_value(e);
		for (c = 0; c < ARRAY_SIZE(cap_names); c++) {
			if (str_eq(cap_names[c], name))
				break;
		}
		if (c == ARRAY_SIZE(cap_names))
			return oci_bad(o, path, "names an unknown capability");
		bits |= 1ull << c;
	}
	*ret = bits;
	return 0;
}

#define CAP_FIELD(set)                                                                             \
	static int cap_##set(struct oci *o, const char *path, json_t *v)                           \
	{                                                                                          \
		return cap_set(o, path, v, &o->process->capabilities->set);                        \
	}
CAP_FIELD(bounding)
CAP_FIELD(effective)
CAP_FIELD(permitted)
CAP_FIELD(inheritable)
CAP_FIELD(ambient)

static const struct oci_field cap_fields[] = {
	{ "bounding", OCI_TAKE, cap_bounding },	  { "effective", OCI_TAKE, cap_effective },
	{ "permitted", OCI_TAKE, cap_permitted }, { "inheritable", OCI_TAKE, cap_inheritable },
	{ "ambient", OCI_TAKE, cap_ambient },
};

static int take_capabilities(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, cap_fields);
}

static int user_id(struct oci *o, const char *path, json_t *v, uint32_t *ret)
{
	uint64_t n;
	int r = oci_u64(o, path, v, UINT32_MAX - 1, &n);

	if (r == 0)
		*ret = (uint32_t)n;
	return r;
}

static int take_uid(struct oci *o, const char *path, json_t *v)
{
	return user_id(o, path, v, &o->process->user->uid);
}

static int take_gid(struct oci *o, const char *path, json_t *v)
{
	return user_id(o, path, v, &o->process->user->gid);
}

static int take_umask(struct oci *o, const char *path, json_t *v)
{
	uint64_t n;
	int r = oci_u64(o, path, v, 0777, &n);

	if (r < 0)
		return r;
	/* The agent's 0 means its default. */
	if (n == 0)
		return oci_unsupported(o, path, "a umask of 0");
	o->process->user->umask = (uint32_t)n;
	return 0;
}

static int take_username(struct oci *o, const char *path, json_t *v)
{
	return oci_string(o, path, v, &o->process->user->name);
}

static int take_gids(struct oci *o, const char *path, json_t *v)
{
	Agent__User *u = o->process->user;
	size_t n = json_array_size(v);
	int r;

	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	if (n > OCI_GROUPS_MAX)
		return oci_bad(o, path, "has too many entries");
	u->additional_gids = oci_alloc(o, n * sizeof(*u->additional_gids));
	if (!u->additional_gids)
		return oci_oom(o);
	u->n_additional_gids = n;
	for (size_t i = 0; i < n; i++) {
		r = user_id(o, path, json_array_get(v, i), &u->additional_gids[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* `username` is ours on Linux: the user of the image, by name, as in an image configuration. */
static const struct oci_field user_fields[] = {
	{ "uid", OCI_TAKE, take_uid },		 { "gid", OCI_TAKE, take_gid },
	{ "umask", OCI_TAKE, take_umask },	 { "additionalGids", OCI_TAKE, take_gids },
	{ "username", OCI_TAKE, take_username },
};

static int take_user(struct oci *o, const char *path, json_t *v)
{
	Agent__User *u = o->process->user;
	int r = oci_fields(o, path, v, user_fields);

	if (r == 0 && *u->name && (u->uid || u->gid))
		return oci_bad(o, path, "has a username beside uid and gid");
	return r;
}

static const char *const rlimit_names[] = {
	"RLIMIT_AS",	 "RLIMIT_CORE",	  "RLIMIT_CPU",	       "RLIMIT_DATA",
	"RLIMIT_FSIZE",	 "RLIMIT_LOCKS",  "RLIMIT_MEMLOCK",    "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE",	 "RLIMIT_NOFILE", "RLIMIT_NPROC",      "RLIMIT_RSS",
	"RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
};

static int one_rlimit(struct oci *o, const char *path, json_t *v, Agent__Rlimit *l)
{
	json_t *type = json_object_get(v, "type"), *soft = json_object_get(v, "soft"),
	       *hard = json_object_get(v, "hard");
	int r;

	if (json_object_size(v) != 3 || !type || !soft || !hard)
		return oci_bad(o, path, "is not a list of {type, soft, hard}");
	r = oci_string(o, path, type, &l->type);
	if (r == 0)
		r = oci_u64(o, path, soft, UINT64_MAX, &l->soft);
	if (r == 0)
		r = oci_u64(o, path, hard, UINT64_MAX, &l->hard);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(rlimit_names); i++) {
		if (str_eq(rlimit_names[i], l->type))
			return 0;
	}
	return oci_bad(o, path, "has an unknown type");
}

static int take_rlimits(struct oci *o, const char *path, json_t *v)
{
	Agent__Process *p = o->process;
	size_t n = json_array_size(v);
	int r;

	if (!json_is_array(v) || n > 2 * ARRAY_SIZE(rlimit_names))
		return oci_bad(o, path, "is not a list, or is too long");
	p->rlimits = oci_alloc(o, n * sizeof(*p->rlimits));
	if (!p->rlimits)
		return oci_oom(o);
	for (size_t i = 0; i < n; i++) {
		p->rlimits[i] = oci_alloc(o, sizeof(**p->rlimits));
		if (!p->rlimits[i])
			return oci_oom(o);
		agent__rlimit__init(p->rlimits[i]);
		r = one_rlimit(o, path, json_array_get(v, i), p->rlimits[i]);
		if (r < 0)
			return r;
	}
	p->n_rlimits = n;
	return 0;
}

static int take_terminal(struct oci *o, const char *path, json_t *v)
{
	bool b;
	int r = oci_bool(o, path, v, &b);

	if (r == 0)
		o->process->terminal = b;
	return r;
}

static int take_width(struct oci *o, const char *path, json_t *v)
{
	uint64_t n;
	int r = oci_u64(o, path, v, UINT16_MAX, &n);

	if (r == 0)
		o->process->width = (uint32_t)n;
	return r;
}

static int take_height(struct oci *o, const char *path, json_t *v)
{
	uint64_t n;
	int r = oci_u64(o, path, v, UINT16_MAX, &n);

	if (r == 0)
		o->process->height = (uint32_t)n;
	return r;
}

static const struct oci_field console_fields[] = {
	{ "width", OCI_TAKE, take_width },
	{ "height", OCI_TAKE, take_height },
};

static int take_console(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, console_fields);
}

static int take_args(struct oci *o, const char *path, json_t *v)
{
	return oci_strings(o, path, v, OCI_ARGS_MAX, &o->process->n_args, &o->process->args);
}

static int take_env(struct oci *o, const char *path, json_t *v)
{
	return oci_strings(o, path, v, OCI_ARGS_MAX, &o->process->n_env, &o->process->env);
}

static int take_cwd(struct oci *o, const char *path, json_t *v)
{
	int r = oci_string(o, path, v, &o->process->cwd);

	if (r == 0 && *o->process->cwd != '/')
		return oci_bad(o, path, "is not absolute");
	return r;
}

static int take_nnp(struct oci *o, const char *path, json_t *v)
{
	bool b;
	int r = oci_bool(o, path, v, &b);

	if (r == 0)
		o->process->no_new_privileges = b;
	return r;
}

static int take_oom(struct oci *o, const char *path, json_t *v)
{
	int64_t n;
	int r = oci_i64(o, path, v, -1000, 1000, &n);

	if (r == 0)
		o->process->oom_score_adj = (int32_t)n;
	return r;
}

static const struct oci_field process_fields[] = {
	{ "terminal", OCI_TAKE, take_terminal }, { "consoleSize", OCI_TAKE, take_console },
	{ "user", OCI_TAKE, take_user },	 { "args", OCI_TAKE, take_args },
	{ "commandLine", OCI_REFUSE, NULL },	 { "env", OCI_TAKE, take_env },
	{ "cwd", OCI_TAKE, take_cwd },		 { "capabilities", OCI_TAKE, take_capabilities },
	{ "rlimits", OCI_TAKE, take_rlimits },	 { "noNewPrivileges", OCI_TAKE, take_nnp },
	{ "apparmorProfile", OCI_REFUSE, NULL }, { "oomScoreAdj", OCI_TAKE, take_oom },
	{ "selinuxLabel", OCI_REFUSE, NULL },	 { "scheduler", OCI_REFUSE, NULL },
	{ "ioPriority", OCI_REFUSE, NULL },	 { "execCPUAffinity", OCI_REFUSE, NULL },
};

static int read_process(struct oci *o, const char *path, json_t *v, Agent__Process **ret)
{
	Agent__Process *p = oci_alloc(o, sizeof(*p));
	int r;

	if (!p)
		return oci_oom(o);
	agent__process__init(p);
	p->user = oci_alloc(o, sizeof(*p->user));
	p->capabilities = oci_alloc(o, sizeof(*p->capabilities));
	p->stdio = oci_alloc(o, sizeof(*p->stdio));
	if (!p->user || !p->capabilities || !p->stdio)
		return oci_oom(o);
	agent__user__init(p->user);
	agent__capabilities__init(p->capabilities);
	agent__stdio__init(p->stdio);
	o->process = p;
	r = oci_fields(o, path, v, process_fields);
	if (r < 0)
		return r;
	if (p->n_args == 0 || !*p->args[0])
		return oci_bad(o, *path ? path : "process", "has no args");
	if (!*p->cwd)
		return oci_bad(o, *path ? path : "process", "has no cwd");
	*ret = p;
	return 0;
}

static int take_process(struct oci *o, const char *path, json_t *v)
{
	return read_process(o, path, v, &o->spec->req->process);
}

/* ---- mounts ---- */

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

static int take_mounts(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *req = o->spec->req;
	size_t n = json_array_size(v);
	int r;

	if (!json_is_array(v))
		return oci_bad(o, path, "is not a list");
	if (n > OCI_MOUNTS_MAX)
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

/* ---- linux ---- */

/* A namespace of its own: an entry without path. No entry, or one with a path (another container's,
 * as container managers write it), is the pod's. */
static int take_namespaces(struct oci *o, const char *path, json_t *v)
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

static int take_masked(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *q = o->spec->req;

	return oci_strings(o, path, v, OCI_PATHS_MAX, &q->n_masked_paths, &q->masked_paths);
}

static int take_readonly(struct oci *o, const char *path, json_t *v)
{
	Agent__CreateContainerRequest *q = o->spec->req;

	return oci_strings(o, path, v, OCI_PATHS_MAX, &q->n_readonly_paths, &q->readonly_paths);
}

static int take_sysctl(struct oci *o, const char *path, json_t *v)
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

static int take_seccomp(struct oci *o, const char *path, json_t *v)
{
	if (oci_empty(v))
		return 0;
	return oci_unsupported(o, path, "run it unconfined until Husk compiles seccomp profiles");
}

static int take_devices(struct oci *o, const char *path, json_t *v)
{
	if (oci_empty(v))
		return 0;
	return oci_unsupported(o, path,
			       "devices of the host are not in the VM (containerd: set "
			       "privileged_without_host_devices)");
}

static int take_propagation(struct oci *o, const char *path, json_t *v)
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
	{ "sysctl", OCI_TAKE, take_sysctl },
	{ "resources", OCI_TAKE, oci_resources },
	{ "cgroupsPath", OCI_SKIP, NULL }, /* a place on the host; the guest has its own tree */
	{ "namespaces", OCI_TAKE, take_namespaces },
	{ "devices", OCI_TAKE, take_devices },
	{ "netDevices", OCI_REFUSE, NULL },
	{ "seccomp", OCI_TAKE, take_seccomp },
	{ "rootfsPropagation", OCI_TAKE, take_propagation },
	{ "maskedPaths", OCI_TAKE, take_masked },
	{ "readonlyPaths", OCI_TAKE, take_readonly },
	{ "mountLabel", OCI_REFUSE, NULL },
	{ "intelRdt", OCI_REFUSE, NULL },
	{ "memoryPolicy", OCI_REFUSE, NULL },
	{ "personality", OCI_REFUSE, NULL },
	{ "timeOffsets", OCI_REFUSE, NULL },
};

static int take_linux(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, linux_fields);
}

/* ---- the top ---- */

static int take_root_readonly(struct oci *o, const char *path, json_t *v)
{
	return oci_bool(o, path, v, &o->spec->rootfs_readonly);
}

static const struct oci_field root_fields[] = {
	{ "path", OCI_SKIP, NULL }, /* a mount point on the host; the root comes as disks */
	{ "readonly", OCI_TAKE, take_root_readonly },
};

static int take_root(struct oci *o, const char *path, json_t *v)
{
	return oci_fields(o, path, v, root_fields);
}

static int take_hostname(struct oci *o, const char *path, json_t *v)
{
	char *s;
	int r = oci_string(o, path, v, &s);

	if (r == 0 && strlen(s) > 64)
		return oci_bad(o, path, "is longer than 64 characters");
	if (r == 0) {
		o->spec->req->hostname = s;
		o->spec->hostname = s;
	}
	return r;
}

static int take_annotations(struct oci *o, const char *path, json_t *v)
{
	json_t *type = json_object_get(v, "io.kubernetes.cri.container-type");
	json_t *sandbox = json_object_get(v, "io.kubernetes.cri.sandbox-id");
	int r = 0;

	if (!json_is_object(v))
		return oci_bad(o, path, "is not an object");
	if (type)
		r = oci_string(o, path, type, (char **)&o->spec->container_type);
	if (r == 0 && sandbox)
		r = oci_string(o, path, sandbox, (char **)&o->spec->sandbox_id);
	return r;
}

static const struct oci_field top_fields[] = {
	{ "ociVersion", OCI_SKIP, NULL }, /* fields are checked one by one */
	{ "process", OCI_TAKE, take_process },
	{ "root", OCI_TAKE, take_root },
	{ "hostname", OCI_TAKE, take_hostname },
	{ "domainname", OCI_REFUSE, NULL },
	{ "mounts", OCI_TAKE, take_mounts },
	{ "hooks", OCI_REFUSE, NULL },
	{ "annotations", OCI_TAKE, take_annotations },
	{ "linux", OCI_TAKE, take_linux },
	{ "solaris", OCI_REFUSE, NULL },
	{ "windows", OCI_REFUSE, NULL },
	{ "vm", OCI_REFUSE, NULL },
	{ "zos", OCI_REFUSE, NULL },
	{ "freebsd", OCI_REFUSE, NULL },
};

static json_t *load_json(const char *json, size_t n, struct err *err)
{
	json_error_t je;
	json_t *v;

	if (n > OCI_JSON_MAX) {
		(void)err_set(err, -EFBIG, "config.json is larger than %zu MiB",
			      OCI_JSON_MAX / MIB);
		return NULL;
	}
	v = json_loadb(json, n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &je);
	if (!v)
		(void)err_set(err, -EINVAL, "config.json, line %d: %s", je.line, je.text);
	return v;
}

int oci_parse(struct pb_arena *a, const char *json, size_t n, struct oci_spec *ret, struct err *err)
{
	struct oci_spec spec = { .hostname = "", .container_type = "", .sandbox_id = "" };
	struct oci o = { .a = a, .err = err, .spec = &spec };
	json_t *v = load_json(json, n, err);
	int r;

	if (!v)
		return n > OCI_JSON_MAX ? -EFBIG : -EINVAL;
	spec.req = oci_alloc(&o, sizeof(*spec.req));
	if (spec.req) {
		agent__create_container_request__init(spec.req);
		r = oci_fields(&o, "", v, top_fields);
	} else {
		r = oci_oom(&o);
	}
	json_decref(v);
	if (r < 0)
		return r;
	if (!spec.req->process)
		return oci_bad(&o, "process", "is missing");
	*ret = spec;
	return 0;
}

int oci_load(struct pb_arena *a, const char *path, struct oci_spec *ret, struct err *err)
{
	cleanup_free char *text = NULL;
	size_t n;
	int r = read_file(path, OCI_JSON_MAX, &text, &n, err);

	return r < 0 ? r : oci_parse(a, text, n, ret, err);
}

int oci_parse_process(struct pb_arena *a, const char *json, size_t n, Agent__Process **ret,
		      struct err *err)
{
	struct oci o = { .a = a, .err = err };
	json_t *v = load_json(json, n, err);
	int r;

	if (!v)
		return n > OCI_JSON_MAX ? -EFBIG : -EINVAL;
	r = read_process(&o, "", v, ret);
	json_decref(v);
	return r;
}

static void copy_annotation(json_t *annotations, const char *key, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(annotations, key));

	(void)snprintf(out, size, "%s", s ? s : "");
}

int oci_group_of(const char *bundle, struct oci_group *ret, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/config.json", bundle);
	cleanup_free char *text = NULL;
	json_t *v, *annotations;
	size_t n;
	int r;

	if (!path)
		return -ENOMEM;
	*ret = (struct oci_group){ 0 };
	r = read_file(path, OCI_JSON_MAX, &text, &n, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	v = load_json(text, n, err);
	if (!v)
		return -EINVAL;
	annotations = json_object_get(v, "annotations");
	copy_annotation(annotations, "io.containerd.runc.v2.group", ret->group, sizeof(ret->group));
	copy_annotation(annotations, "io.kubernetes.cri.sandbox-id", ret->sandbox_id,
			sizeof(ret->sandbox_id));
	json_decref(v);
	return 0;
}
