#include "cri/runtime/spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "base/capname.h"
#include "base/util.h"
#include "cri/rpc/signals.h"
#include "cri/runtime/spec_env.h"

#define UID_LAST 4294967294ll /* (uid_t)-1 means "no change" to the kernel */

static void spec_json_freep(json_t **j)
{
	json_decref(*j);
}
#define cleanup_json cleanup_with(spec_json_freep)

/*
 * json_object_set_new and its like return -1 without memory, and for text that is not UTF-8.
 * rpc_decode has checked all input but the one that is checked below, so one check at the end is
 * enough.
 */
struct build {
	const struct spec_input *in;
	const Cri__LinuxContainerSecurityContext *sc; /* may be NULL */
	bool privileged;
	bool bad; /* out of memory */
};

static void put(struct build *b, json_t *object, const char *key, json_t *value)
{
	if (json_object_set_new(object, key, value) < 0)
		b->bad = true;
}

static void add(struct build *b, json_t *array, json_t *value)
{
	if (json_array_append_new(array, value) < 0)
		b->bad = true;
}

static void add_string(struct build *b, json_t *array, const char *s)
{
	add(b, array, json_string(s));
}

/* ---- capabilities ---- */

static const char *const cap_defaults[] = {
	"CHOWN",   "DAC_OVERRIDE", "FSETID",	       "FOWNER",
	"MKNOD",   "NET_RAW",	   "SETGID",	       "SETUID",
	"SETFCAP", "SETPCAP",	   "NET_BIND_SERVICE", "SYS_CHROOT",
	"KILL",	   "AUDIT_WRITE",
};

/* One name, or "ALL", with or without "CAP_", any case. */
static int cap_bits(const char *name, uint64_t *ret, struct err *err)
{
	int n = capname_find_loose(name);

	if (n >= 0) {
		*ret = UINT64_C(1) << n;
	} else if (strcasecmp(name, "ALL") == 0 || strcasecmp(name, "CAP_ALL") == 0) {
		*ret = CAPNAME_ALL;
	} else {
		return err_set(err, -EINVAL, "unknown capability \"%s\"", name);
	}
	return 0;
}

static int cap_list(char **names, size_t n, uint64_t *ret, struct err *err)
{
	uint64_t sum = 0, bits = 0;

	for (size_t i = 0; i < n; i++) {
		int r = cap_bits(names[i], &bits, err);

		if (r < 0)
			return r;
		sum |= bits;
	}
	*ret = sum;
	return 0;
}

int spec_capabilities(const Cri__Capability *c, bool privileged, uint64_t *ret,
		      uint64_t *ret_ambient, struct err *err)
{
	uint64_t set = 0, add_bits = 0, drop = 0, ambient = 0;
	int r = cap_list((char **)cap_defaults, ARRAY_SIZE(cap_defaults), &set, err);

	if (r == 0 && c)
		r = cap_list(c->add_capabilities, c->n_add_capabilities, &add_bits, err);
	if (r == 0 && c)
		r = cap_list(c->drop_capabilities, c->n_drop_capabilities, &drop, err);
	if (r == 0 && c)
		r = cap_list(c->add_ambient_capabilities, c->n_add_ambient_capabilities, &ambient,
			     err);
	if (r < 0)
		return r;
	/* "ALL" first, on either side, then the single names: drop ALL + add X leaves X, and
	 * add ALL + drop X leaves all but X. */
	if (add_bits == CAPNAME_ALL)
		set = CAPNAME_ALL;
	if (drop == CAPNAME_ALL)
		set = 0;
	if (add_bits != CAPNAME_ALL)
		set |= add_bits;
	if (drop != CAPNAME_ALL)
		set &= ~drop;
	set |= ambient;
	*ret = privileged ? CAPNAME_ALL : set;
	*ret_ambient = ambient;
	return 0;
}

static json_t *cap_json(struct build *b, uint64_t bits)
{
	json_t *a = json_array();

	for (unsigned i = 0; i <= CAPNAME_LAST; i++) {
		if (bits & (UINT64_C(1) << i))
			add_string(b, a, capname(i));
	}
	return a;
}

/* ---- process ---- */

static int check_id(const char *what, int64_t id, struct err *err)
{
	if (id < 0 || id > UID_LAST)
		return err_set(err, -EINVAL, "%s %" PRId64 " is out of range", what, id);
	return 0;
}

int spec_user(const Cri__LinuxContainerSecurityContext *sc, const char *image_user, char **ret,
	      struct err *err)
{
	cleanup_free char *user = NULL;
	int r = 0;

	if (sc && sc->run_as_user) {
		r = check_id("run_as_user", sc->run_as_user->value, err);
		user = str_fmt("%" PRId64, sc->run_as_user->value);
	} else if (sc && !str_empty(sc->run_as_username)) {
		user = strdup(sc->run_as_username);
	} else if (sc && sc->run_as_group) {
		return err_set(err, -EINVAL, "run_as_group without run_as_user");
	} else {
		/* Also for root: its groups in the image's /etc/group count. */
		user = strdup(str_empty(image_user) ? "0" : image_user);
	}
	if (r == 0 && sc && sc->run_as_group) {
		char *both;

		r = check_id("run_as_group", sc->run_as_group->value, err);
		if (r == 0 && user && strchr(user, ':'))
			r = err_set(err, -EINVAL,
				    "run_as_username has a group, and run_as_group is set");
		both = user ? str_fmt("%s:%" PRId64, user, sc->run_as_group->value) : NULL;
		free(user);
		user = both;
	}
	if (r < 0)
		return r;
	if (!user)
		return err_nomem(err);
	*ret = take_ptr(&user);
	return 0;
}

static int build_user(struct build *b, json_t *process, struct err *err)
{
	cleanup_free char *name = NULL;
	cleanup_json json_t *user = json_object();
	json_t *groups = json_array();
	int r = spec_user(b->sc, b->in->image->user, &name, err);

	for (size_t i = 0; r == 0 && b->sc && i < b->sc->n_supplemental_groups; i++) {
		r = check_id("supplemental group", b->sc->supplemental_groups[i], err);
		add(b, groups, json_integer(b->sc->supplemental_groups[i]));
	}
	/* The numbers stand for a name that the agent looks up in the image's /etc/passwd. */
	put(b, user, "uid", json_integer(0));
	put(b, user, "gid", json_integer(0));
	put(b, user, "additionalGids", groups);
	if (r < 0)
		return r;
	put(b, user, "username", json_string(name));
	if (b->sc && b->sc->supplemental_groups_policy == CRI__SUPPLEMENTAL_GROUPS_POLICY__Strict)
		put(b, user, "strictGroups", json_true());
	put(b, process, "user", json_incref(user));
	return 0;
}

static int build_args(struct build *b, json_t *process, struct err *err)
{
	const Cri__ContainerConfig *c = b->in->container;
	const struct image_config *im = b->in->image;
	json_t *args = json_array();

	put(b, process, "args", args);
	for (size_t i = 0; i < c->n_command; i++)
		add_string(b, args, c->command[i]);
	for (char **e = im->entrypoint; c->n_command == 0 && *e; e++)
		add_string(b, args, *e);
	for (size_t i = 0; i < c->n_args; i++)
		add_string(b, args, c->args[i]);
	/* A command replaces the image's whole default, arguments only its last part. */
	for (char **e = im->cmd; c->n_command == 0 && c->n_args == 0 && *e; e++)
		add_string(b, args, *e);
	if (json_array_size(args) == 0)
		return err_set(err, -EINVAL,
			       "no command: neither the container nor the image has one");
	return 0;
}

static int build_cwd(struct build *b, json_t *process, struct err *err)
{
	const char *own = b->in->container->working_dir, *image = b->in->image->working_dir;

	if (!str_empty(own)) {
		if (own[0] != '/')
			return err_set(err, -EINVAL, "working_dir is not absolute: %s", own);
		put(b, process, "cwd", json_string(own));
	} else if (str_empty(image) || image[0] == '/') {
		put(b, process, "cwd", json_string(str_empty(image) ? "/" : image));
	} else { /* as other builders and runtimes read it */
		cleanup_free char *s = str_fmt("/%s", image);

		put(b, process, "cwd", s ? json_string(s) : NULL);
	}
	return 0;
}

static int build_process(struct build *b, json_t *spec, struct err *err)
{
	json_t *process = json_object(), *caps = json_object();
	const Cri__ContainerConfig *c = b->in->container;
	uint64_t set = 0, ambient = 0;
	int r;

	put(b, spec, "process", process);
	put(b, process, "capabilities", caps);
	put(b, process, "terminal", json_boolean(c->tty));
	r = build_user(b, process, err);
	if (r == 0)
		r = build_args(b, process, err);
	if (r == 0)
		r = spec_env(b->in, process, err);
	if (r == 0)
		r = spec_env_check_size(process, err);
	if (r == 0)
		r = build_cwd(b, process, err);
	if (r == 0)
		r = spec_capabilities(b->sc ? b->sc->capabilities : NULL, b->privileged, &set,
				      &ambient, err);
	if (r < 0)
		return r;
	put(b, caps, "bounding", cap_json(b, set));
	put(b, caps, "effective", cap_json(b, set));
	put(b, caps, "permitted", cap_json(b, set));
	put(b, caps, "inheritable", cap_json(b, ambient)); /* empty but for ambient ones */
	put(b, caps, "ambient", cap_json(b, ambient));
	put(b, process, "noNewPrivileges", json_boolean(b->sc && b->sc->no_new_privs));
	if (c->linux && c->linux->resources) {
		int64_t adj = c->linux->resources->oom_score_adj;

		if (adj < -1000 || adj > 1000)
			return err_set(err, -EINVAL, "oom_score_adj %" PRId64 " is out of range",
				       adj);
		put(b, process, "oomScoreAdj", json_integer(adj));
	}
	return 0;
}

/* ---- mounts ---- */

static void add_mount(struct build *b, json_t *mounts, const char *dest, const char *type,
		      const char *source, const char *options)
{
	json_t *m = json_object(), *o = json_array();
	const char *p = options;

	put(b, m, "destination", json_string(dest));
	put(b, m, "type", json_string(type));
	put(b, m, "source", json_string(source));
	while (*p) {
		size_t n = strcspn(p, ",");

		add(b, o, json_stringn(p, n));
		p += n + (p[n] == ',');
	}
	put(b, m, "options", o);
	add(b, mounts, m);
}

static void build_mounts(struct build *b, json_t *spec)
{
	json_t *m = json_array();
	const char *sys = b->privileged ? "nosuid,noexec,nodev,rw" : "nosuid,noexec,nodev,ro";

	put(b, spec, "mounts", m);
	add_mount(b, m, "/proc", "proc", "proc", "nosuid,noexec,nodev");
	add_mount(b, m, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
	add_mount(b, m, "/dev/pts", "devpts", "devpts",
		  "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
	add_mount(b, m, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
	add_mount(b, m, "/sys", "sysfs", "sysfs", sys);
	add_mount(b, m, "/sys/fs/cgroup", "cgroup", "cgroup",
		  b->privileged ? "nosuid,noexec,nodev,relatime,rw"
				: "nosuid,noexec,nodev,relatime,ro");
	/* Of the pod, kept by the agent: not files of the host. */
	add_mount(b, m, "/dev/shm", "bind", "sandbox:shm", "rbind,rw");
	add_mount(b, m, "/etc/hosts", "bind", "sandbox:hosts", "rbind,rw");
	add_mount(b, m, "/etc/hostname", "bind", "sandbox:hostname", "rbind,rw");
	add_mount(b, m, "/etc/resolv.conf", "bind", "sandbox:resolv.conf", "rbind,rw");
}

/* ---- linux ---- */

static void add_namespace(struct build *b, json_t *list, const char *type, bool pods)
{
	json_t *n = json_object();

	put(b, n, "type", json_string(type));
	if (pods) {
		char path[64];

		(void)snprintf(path, sizeof(path), SPEC_POD_NAMESPACE "%s", type);
		put(b, n, "path", json_string(path));
	}
	add(b, list, n);
}

static void build_namespaces(struct build *b, json_t *linux_)
{
	json_t *list = json_array();
	const Cri__NamespaceOption *o = b->sc ? b->sc->namespace_options : NULL;

	put(b, linux_, "namespaces", list);
	add_namespace(b, list, "mount", false);
	add_namespace(b, list, "pid", !o || o->pid == CRI__NAMESPACE_MODE__POD);
	add_namespace(b, list, "ipc", true);
	add_namespace(b, list, "uts", true);
	add_namespace(b, list, "network", true);
	if (!b->privileged)
		add_namespace(b, list, "cgroup", false);
}

static void put_nonzero(struct build *b, json_t *o, const char *key, int64_t v)
{
	if (v != 0)
		put(b, o, key, json_integer(v));
}

static void build_hugepages(struct build *b, json_t *res, const Cri__LinuxContainerResources *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->n_hugepage_limits; i++) {
		json_t *h = json_object();

		put(b, h, "pageSize", json_string(r->hugepage_limits[i]->page_size));
		put(b, h, "limit", json_integer((json_int_t)r->hugepage_limits[i]->limit));
		add(b, list, h);
	}
	if (json_array_size(list))
		put(b, res, "hugepageLimits", list);
	else
		json_decref(list);
}

static int build_resources(struct build *b, json_t *linux_, struct err *err)
{
	const Cri__LinuxContainerResources *r =
		b->in->container->linux ? b->in->container->linux->resources : NULL;
	json_t *res = json_object(), *devices = json_array(), *all = json_object();
	json_t *memory, *cpu;

	put(b, linux_, "resources", res);
	put(b, res, "devices", devices);
	add(b, devices, all);
	put(b, all, "allow", json_boolean(b->privileged));
	put(b, all, "access", json_string("rwm"));
	if (!r)
		return 0;
	if (r->cpu_shares < 0 || r->cpu_period < 0)
		return err_set(err, -EINVAL, "negative cpu_shares or cpu_period");
	memory = json_object();
	cpu = json_object();
	put(b, res, "memory", memory);
	put(b, res, "cpu", cpu);
	put_nonzero(b, memory, "limit", r->memory_limit_in_bytes);
	/* Unset means no swap: the sum of memory and swap is the memory. */
	put_nonzero(b, memory, "swap",
		    r->memory_swap_limit_in_bytes ? r->memory_swap_limit_in_bytes
						  : r->memory_limit_in_bytes);
	put_nonzero(b, cpu, "shares", r->cpu_shares);
	put_nonzero(b, cpu, "quota", r->cpu_quota);
	put_nonzero(b, cpu, "period", r->cpu_period);
	if (!str_empty(r->cpuset_cpus))
		put(b, cpu, "cpus", json_string(r->cpuset_cpus));
	if (!str_empty(r->cpuset_mems))
		put(b, cpu, "mems", json_string(r->cpuset_mems));
	build_hugepages(b, res, r);
	if (r->n_unified) {
		json_t *unified = json_object();

		put(b, res, "unified", unified);
		for (size_t i = 0; i < r->n_unified; i++)
			put(b, unified, r->unified[i]->key, json_string(r->unified[i]->value));
	}
	return 0;
}

static int build_paths(struct build *b, json_t *linux_, const char *key, char **paths, size_t n,
		       struct err *err)
{
	json_t *list = json_array();

	put(b, linux_, key, list);
	for (size_t i = 0; !b->privileged && i < n; i++) {
		if (paths[i][0] != '/')
			return err_set(err, -EINVAL, "%s: not absolute: %s", key, paths[i]);
		add_string(b, list, paths[i]);
	}
	return 0;
}

static int build_linux(struct build *b, json_t *spec, struct err *err)
{
	json_t *linux_ = json_object();
	int r;

	put(b, spec, "linux", linux_);
	build_namespaces(b, linux_);
	r = build_resources(b, linux_, err);
	if (r == 0)
		r = build_paths(b, linux_, "maskedPaths", b->sc ? b->sc->masked_paths : NULL,
				b->sc ? b->sc->n_masked_paths : 0, err);
	if (r == 0)
		r = build_paths(b, linux_, "readonlyPaths", b->sc ? b->sc->readonly_paths : NULL,
				b->sc ? b->sc->n_readonly_paths : 0, err);
	return r;
}

/* Names that other VM runtimes and their tools read. */
static void build_annotations(struct build *b, json_t *spec)
{
	json_t *a = json_object();
	const Cri__PodSandboxMetadata *m = b->in->pod->metadata;

	put(b, spec, "annotations", a);
	put(b, a, "io.kubernetes.cri.container-type", json_string("container"));
	put(b, a, "io.kubernetes.cri.sandbox-id", json_string(b->in->pod_id));
	put(b, a, "io.kubernetes.cri.sandbox-name", json_string(m->name));
	put(b, a, "io.kubernetes.cri.sandbox-namespace", json_string(m->namespace_));
	put(b, a, "io.kubernetes.cri.sandbox-uid", json_string(m->uid));
	put(b, a, "io.kubernetes.cri.container-name",
	    json_string(b->in->container->metadata->name));
	put(b, a, "io.kubernetes.cri.image-name", json_string(b->in->image_name));
}

static int dump(json_t *j, char **ret, struct err *err)
{
	char *text = json_dumps(j, JSON_COMPACT);

	if (!text)
		return err_nomem(err);
	if (strlen(text) > SPEC_JSON_MAX) {
		free(text);
		return err_set(err, -EINVAL, "the container's configuration is larger than %zu MiB",
			       SPEC_JSON_MAX / MIB);
	}
	*ret = text;
	return 0;
}

int spec_build(const struct spec_input *in, char **ret, struct err *err)
{
	struct build b = { .in = in };
	cleanup_json json_t *spec = json_object();
	json_t *root = json_object();
	int r;

	b.sc = in->container->linux ? in->container->linux->security_context : NULL;
	b.privileged = b.sc && b.sc->privileged;
	put(&b, spec, "ociVersion", json_string("1.1.0"));
	put(&b, spec, "root", root);
	put(&b, root, "path", json_string("rootfs"));
	put(&b, root, "readonly", json_boolean(b.sc && b.sc->readonly_rootfs));
	r = build_process(&b, spec, err);
	if (r < 0)
		return r;
	build_mounts(&b, spec);
	r = build_linux(&b, spec, err);
	if (r < 0)
		return r;
	build_annotations(&b, spec);
	if (b.bad)
		return err_nomem(err);
	return dump(spec, ret, err);
}

/* Programs on a terminal need to know its kind; what image or container say wins. */
static void add_term(struct build *b, json_t *process)
{
	json_t *env = json_object_get(process, "env"), *kv;
	size_t i;

	json_array_foreach (env, i, kv)
		if (json_is_string(kv) && str_starts(json_string_value(kv), "TERM="))
			return;
	if (!env)
		put(b, process, "env", env = json_array());
	add_string(b, env, "TERM=xterm");
}

int spec_exec(const char *config_json, char *const *args, size_t n_args, bool tty, char **ret,
	      struct err *err)
{
	struct build b = { 0 };
	cleanup_json json_t *spec = json_loads(config_json, 0, NULL);
	json_t *process = json_object_get(spec, "process");
	json_t *list = json_array();
	int r;

	if (!process) {
		json_decref(list);
		return err_set(err, -EIO, "config.json of the container has no process");
	}
	for (size_t i = 0; i < n_args; i++)
		add_string(&b, list, args[i]);
	put(&b, process, "args", list);
	put(&b, process, "terminal", json_boolean(tty));
	if (tty)
		add_term(&b, process);
	if (b.bad)
		return err_nomem(err);
	r = spec_env_check_size(process, err);
	return r == 0 ? dump(process, ret, err) : r;
}

int spec_stop_signal(const struct spec_input *in, int *ret, bool *chosen, struct err *err)
{
	int n = signal_of_cri(in->container->stop_signal);

	*chosen = n != 0 || !str_empty(in->image->stop_signal);
	if (n == 0 && !str_empty(in->image->stop_signal)) {
		if (signal_parse(in->image->stop_signal, &n) < 0)
			return err_set(err, -EINVAL, "the image's stop signal \"%s\" is none",
				       in->image->stop_signal);
	}
	*ret = n ? n : 15;
	return 0;
}
