/* From CRI's configuration to OCI: what is built, and what is refused with which code. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/limits.h"
#include "base/util.h"
#include "cri/runtime/spec.h"
#include "cri/runtime/spec_check.h"

static char *none[] = { NULL };

/* A pod, a container and an image with nothing special; tests change what they are about. */
struct fixture {
	Cri__PodSandboxMetadata pod_meta;
	Cri__LinuxPodSandboxConfig pod_linux;
	Cri__LinuxSandboxSecurityContext pod_sc;
	Cri__NamespaceOption pod_ns, ns;
	Cri__PodSandboxConfig pod;
	Cri__ContainerMetadata meta;
	Cri__ImageSpec image_spec;
	Cri__LinuxContainerSecurityContext sc;
	Cri__LinuxContainerResources res;
	Cri__LinuxContainerConfig lin;
	Cri__Capability caps;
	Cri__ContainerConfig c;
	struct image_config image;
	struct spec_input in;
	struct err err;
};

static void init(struct fixture *f)
{
	static char *cmd[] = { (char *)"image-cmd", NULL };

	memset(f, 0, sizeof(*f));
	cri__pod_sandbox_metadata__init(&f->pod_meta);
	cri__linux_pod_sandbox_config__init(&f->pod_linux);
	cri__linux_sandbox_security_context__init(&f->pod_sc);
	cri__namespace_option__init(&f->pod_ns);
	cri__namespace_option__init(&f->ns);
	cri__pod_sandbox_config__init(&f->pod);
	cri__container_metadata__init(&f->meta);
	cri__image_spec__init(&f->image_spec);
	cri__linux_container_security_context__init(&f->sc);
	cri__linux_container_resources__init(&f->res);
	cri__linux_container_config__init(&f->lin);
	cri__capability__init(&f->caps);
	cri__container_config__init(&f->c);
	f->pod_meta.name = (char *)"pod";
	f->pod.metadata = &f->pod_meta;
	f->pod.hostname = (char *)"podhost";
	f->pod.log_directory = (char *)"/var/log/pods/x";
	f->pod.linux = &f->pod_linux;
	f->pod_linux.security_context = &f->pod_sc;
	f->pod_sc.namespace_options = &f->pod_ns;
	f->meta.name = (char *)"ct";
	f->c.metadata = &f->meta;
	f->c.image = &f->image_spec;
	f->c.linux = &f->lin;
	f->lin.security_context = &f->sc;
	f->sc.namespace_options = &f->ns;
	f->image = (struct image_config){
		.entrypoint = none,
		.cmd = cmd,
		.env = none,
		.working_dir = (char *)"",
		.user = (char *)"",
		.stop_signal = (char *)"",
		.labels = none,
	};
	f->in = (struct spec_input){ "podid", "ctid", &f->pod, &f->c, &f->image, "img" };
}

static json_t *build(struct fixture *f)
{
	cleanup_free char *text = NULL;

	assert_int_equal(spec_check_container(&f->in, &f->err), 0);
	assert_int_equal(spec_build(&f->in, &text, &f->err), 0);
	json_t *j = json_loads(text, 0, NULL);
	assert_non_null(j);
	return j;
}

static void refused(struct fixture *f, int code, const char *text)
{
	cleanup_free char *json = NULL;

	f->err = (struct err){ 0 };
	int r = spec_check_container(&f->in, &f->err);
	if (r == 0)
		r = spec_build(&f->in, &json, &f->err);
	assert_int_equal(r, code);
	if (!strstr(f->err.msg, text))
		fail_msg("\"%s\" has no \"%s\"", f->err.msg, text);
	assert_null(json);
}

static void args_are(struct fixture *f, const char *want)
{
	json_t *j = build(f), *e;
	char got[256] = "";
	size_t i, n = 0;

	json_array_foreach (json_object_get(json_object_get(j, "process"), "args"), i, e) {
		n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%s", i ? " " : "",
				      json_string_value(e));
	}
	assert_string_equal(got, want);
	json_decref(j);
}

static void test_args(void **state)
{
	struct fixture f;
	char *entry[] = { (char *)"entry", NULL };
	char *command[] = { (char *)"own" }, *args[] = { (char *)"a", (char *)"b" };

	init(&f);
	args_are(&f, "image-cmd");
	f.image.entrypoint = entry;
	args_are(&f, "entry image-cmd");
	f.c.args = args;
	f.c.n_args = 2;
	args_are(&f, "entry a b");
	f.c.command = command;
	f.c.n_command = 1;
	args_are(&f, "own a b");
	f.c.n_args = 0;
	args_are(&f, "own");
	init(&f);
	f.image.cmd = none;
	refused(&f, -EINVAL, "no command");
}

static const char *env_of(json_t *j, const char *key)
{
	json_t *e;
	size_t i, n = strlen(key);

	json_array_foreach (json_object_get(json_object_get(j, "process"), "env"), i, e) {
		const char *s = json_string_value(e);
		if (strncmp(s, key, n) == 0 && s[n] == '=')
			return s + n + 1;
	}
	return "(none)";
}

static void test_env(void **state)
{
	struct fixture f;
	char *image_env[] = { (char *)"A=image", (char *)"B=image=x", (char *)"PATH=/img", NULL };
	Cri__KeyValue kv[2], *list[] = { &kv[0], &kv[1] };

	cleanup_free char *text = NULL, *exec = NULL;
	json_t *process, *hex;

	init(&f);
	json_t *j = build(&f);
	assert_non_null(strstr(env_of(j, "PATH"), "/usr/sbin"));
	assert_string_equal(env_of(j, "HOSTNAME"), "podhost");
	assert_string_equal(env_of(j, "TERM"), "(none)");
	json_decref(j);

	f.image.env = image_env;
	f.c.tty = 1;
	f.c.n_envs = 2;
	f.c.envs = list;
	for (int i = 0; i < 2; i++)
		cri__key_value__init(&kv[i]);
	kv[0].key = (char *)"A";
	kv[0].value = (ProtobufCBinaryData){ 3, (uint8_t *)"own" };
	kv[1].key = (char *)"EMPTY";
	j = build(&f);
	assert_string_equal(env_of(j, "PATH"), "/img");
	assert_string_equal(env_of(j, "A"), "own");
	assert_string_equal(env_of(j, "B"), "image=x");
	assert_string_equal(env_of(j, "EMPTY"), "");
	assert_string_equal(env_of(j, "TERM"), "xterm");
	assert_int_equal(json_array_size(json_object_get(json_object_get(j, "process"), "env")), 6);
	json_decref(j);

	kv[0].key = (char *)"A=B";
	refused(&f, -EINVAL, "bad name");
	kv[0].key = (char *)"A";
	kv[0].value = (ProtobufCBinaryData){ 3, (uint8_t *)"x\0y" };
	refused(&f, -EINVAL, "NUL");
	/* Bytes that JSON cannot carry go beside it, in place of an earlier value, too. */
	kv[0].value = (ProtobufCBinaryData){ 2, (uint8_t *)"\xff%" };
	j = build(&f);
	assert_string_equal(env_of(j, "A"), "(none)");
	assert_string_equal(env_of(j, "B"), "image=x");
	process = json_object_get(j, "process");
	hex = json_object_get(process, PROCESS_ENV_HEX);
	assert_int_equal(json_array_size(hex), 1);
	assert_string_equal(json_string_value(json_array_get(hex, 0)), "413dff25");
	/* A command in the container has it, too. */
	text = json_dumps(j, 0);
	assert_int_equal(spec_exec(text, f.image.cmd, 1, false, &exec, NULL), 0);
	assert_non_null(strstr(exec, "\"" PROCESS_ENV_HEX "\":[\"413dff25\"]"));
	json_decref(j);
}

/* As many as a thousand services make, and in linear time; people meet the kernel's limit. */
static void test_env_is_large(void **state)
{
	enum { N = 100000 };
	struct fixture f;
	Cri__KeyValue *kv = calloc(N, sizeof(*kv)), **list = calloc(N, sizeof(*list));
	cleanup_free char *big = calloc(1, PROCESS_BYTES_MAX);
	uint64_t begin = now_mono_ns();
	json_t *j;

	init(&f);
	assert_true(kv && list && big);
	for (size_t i = 0; i < N; i++) {
		cri__key_value__init(&kv[i]);
		kv[i].key = str_fmt("KEY_%zu", i / 2); /* each twice */
		kv[i].value = (ProtobufCBinaryData){ 3, (uint8_t *)(i % 2 ? "new" : "old") };
		list[i] = &kv[i];
	}
	f.c.envs = list;
	f.c.n_envs = N;
	j = build(&f);
	assert_int_equal(json_array_size(json_object_get(json_object_get(j, "process"), "env")),
			 N / 2 + 2);
	assert_string_equal(env_of(j, "KEY_1234"), "new");
	json_decref(j);
	/* The square of it took minutes. */
	assert_true(now_mono_ns() - begin < 20 * NS_PER_S);

	memset(big, 'x', PROCESS_BYTES_MAX - 1);
	kv[0].value = (ProtobufCBinaryData){ PROCESS_BYTES_MAX - 1, (uint8_t *)big };
	f.c.n_envs = 1;
	refused(&f, -E2BIG, "argument list too long");
	f.c.n_envs = 0;
	f.c.args = &big;
	f.c.n_args = 1;
	refused(&f, -E2BIG, "argument list too long");
	for (size_t i = 0; i < N; i++)
		free(kv[i].key);
	free(kv);
	free(list);
}

static void user_is(const Cri__LinuxContainerSecurityContext *sc, const char *image,
		    const char *want)
{
	cleanup_free char *got = NULL;

	assert_int_equal(spec_user(sc, image, &got, NULL), 0);
	assert_string_equal(got, want);
}

static void test_user(void **state)
{
	struct fixture f;
	Cri__Int64Value user = CRI__INT64_VALUE__INIT;
	Cri__Int64Value group = CRI__INT64_VALUE__INIT;
	int64_t groups[] = { 5, 6 };
	char *got;

	init(&f);
	user_is(NULL, "", "0");
	user_is(NULL, "www:extra", "www:extra");
	user_is(&f.sc, "1000", "1000");
	f.sc.run_as_username = (char *)"alice";
	user_is(&f.sc, "1000", "alice");
	user.value = 7;
	f.sc.run_as_user = &user;
	user_is(&f.sc, "1000", "7");
	group.value = 8;
	f.sc.run_as_group = &group;
	user_is(&f.sc, "1000", "7:8");
	f.sc.run_as_user = NULL;
	user_is(&f.sc, "1000", "alice:8");
	f.sc.run_as_username = (char *)"";
	assert_int_equal(spec_user(&f.sc, "1000", &got, &f.err), -EINVAL);
	user.value = -1;
	f.sc.run_as_user = &user;
	assert_int_equal(spec_user(&f.sc, "", &got, &f.err), -EINVAL);
	user.value = 4294967295ll;
	assert_int_equal(spec_user(&f.sc, "", &got, &f.err), -EINVAL);

	init(&f);
	f.sc.n_supplemental_groups = 2;
	f.sc.supplemental_groups = groups;
	json_t *j = build(&f), *u = json_object_get(json_object_get(j, "process"), "user");
	assert_int_equal(json_array_size(json_object_get(u, "additionalGids")), 2);
	assert_string_equal(json_string_value(json_object_get(u, "username")), "0");
	json_decref(j);
	groups[0] = -4;
	refused(&f, -EINVAL, "out of range");
	groups[0] = 1;
	f.sc.supplemental_groups_policy = CRI__SUPPLEMENTAL_GROUPS_POLICY__Strict;
	j = build(&f);
	u = json_object_get(json_object_get(j, "process"), "user");
	assert_true(json_is_true(json_object_get(u, "strictGroups")));
	json_decref(j);
	f.sc.supplemental_groups_policy = (Cri__SupplementalGroupsPolicy)7;
	refused(&f, -EINVAL, "policy");
}

#define BIT(n) (1ull << (n))
#define DEFAULTS 0xa80425fbull /* the 14 of every container runtime */

static uint64_t caps(Cri__Capability *c, const char *add, const char *drop, bool privileged)
{
	static char *a[1], *d[1];
	uint64_t set = 0, ambient = 0;

	a[0] = (char *)add;
	d[0] = (char *)drop;
	c->n_add_capabilities = add ? 1 : 0;
	c->add_capabilities = a;
	c->n_drop_capabilities = drop ? 1 : 0;
	c->drop_capabilities = d;
	assert_int_equal(spec_capabilities(c, privileged, &set, &ambient, NULL), 0);
	assert_int_equal(ambient, 0);
	return set;
}

static void test_capabilities(void **state)
{
	Cri__Capability c = CRI__CAPABILITY__INIT;
	uint64_t all = BIT(41) - 1, set, ambient;
	char *bad[] = { (char *)"NO_SUCH" }, *net[] = { (char *)"NET_ADMIN" };

	assert_int_equal(caps(&c, NULL, NULL, false), DEFAULTS);
	assert_int_equal(caps(&c, "NET_ADMIN", NULL, false), DEFAULTS | BIT(12));
	assert_int_equal(caps(&c, "cap_net_admin", NULL, false), DEFAULTS | BIT(12));
	assert_int_equal(caps(&c, NULL, "CHOWN", false), DEFAULTS & ~BIT(0));
	assert_int_equal(caps(&c, NULL, "ALL", false), 0);
	assert_int_equal(caps(&c, "CHOWN", "all", false), BIT(0));
	assert_int_equal(caps(&c, "ALL", NULL, false), all);
	assert_int_equal(caps(&c, "ALL", "SYS_TIME", false), all & ~BIT(25));
	assert_int_equal(caps(&c, "ALL", "ALL", false), 0);
	assert_int_equal(caps(&c, NULL, "ALL", true), all);
	c = (Cri__Capability)CRI__CAPABILITY__INIT;
	c.n_add_ambient_capabilities = 1;
	c.add_ambient_capabilities = net;
	assert_int_equal(spec_capabilities(&c, false, &set, &ambient, NULL), 0);
	assert_int_equal(set, DEFAULTS | BIT(12));
	assert_int_equal(ambient, BIT(12));
	c.n_add_capabilities = 1;
	c.add_capabilities = bad;
	assert_int_equal(spec_capabilities(&c, false, &set, &ambient, NULL), -EINVAL);
}

static const char *ns_path(json_t *j, const char *type)
{
	json_t *e;
	size_t i;

	json_array_foreach (json_object_get(json_object_get(j, "linux"), "namespaces"), i, e) {
		if (strcmp(json_string_value(json_object_get(e, "type")), type) == 0)
			return json_object_get(e, "path") ? "pod" : "own";
	}
	return "absent";
}

static void test_namespaces(void **state)
{
	struct fixture f;

	init(&f);
	json_t *j = build(&f);
	assert_string_equal(ns_path(j, "pid"), "pod");
	assert_string_equal(ns_path(j, "ipc"), "pod");
	assert_string_equal(ns_path(j, "mount"), "own");
	assert_string_equal(ns_path(j, "cgroup"), "own");
	json_decref(j);
	f.ns.pid = CRI__NAMESPACE_MODE__CONTAINER;
	j = build(&f);
	assert_string_equal(ns_path(j, "pid"), "own");
	json_decref(j);
	f.ns.pid = CRI__NAMESPACE_MODE__TARGET;
	refused(&f, -ENOSYS, "TARGET");
	f.ns.pid = CRI__NAMESPACE_MODE__NODE;
	refused(&f, -EBUSY, "host's processes");
	f.ns.pid = 0;
	f.ns.network = CRI__NAMESPACE_MODE__NODE;
	refused(&f, -EBUSY, "host's network");
}

static void test_privileged(void **state)
{
	struct fixture f;
	char *masked[] = { (char *)"/proc/kcore" };

	init(&f);
	f.sc.privileged = 1;
	refused(&f, -EINVAL, "privileged pod sandbox");
	f.pod_sc.privileged = 1;
	f.sc.n_masked_paths = 1;
	f.sc.masked_paths = masked;
	json_t *j = build(&f), *l = json_object_get(j, "linux");
	assert_int_equal(json_array_size(json_object_get(l, "maskedPaths")), 0);
	assert_string_equal(ns_path(j, "cgroup"), "absent");
	json_t *dev =
		json_array_get(json_object_get(json_object_get(l, "resources"), "devices"), 0);
	assert_true(json_is_true(json_object_get(dev, "allow")));
	json_decref(j);
	f.sc.privileged = 0;
	j = build(&f);
	l = json_object_get(j, "linux");
	assert_int_equal(json_array_size(json_object_get(l, "maskedPaths")), 1);
	json_decref(j);
	masked[0] = (char *)"relative";
	refused(&f, -EINVAL, "not absolute");
}

static void test_what_is_not_there_yet(void **state)
{
	struct fixture f;
	Cri__SecurityProfile p = CRI__SECURITY_PROFILE__INIT;
	Cri__SELinuxOption se = CRI__SELINUX_OPTION__INIT;
	Cri__Mount m = CRI__MOUNT__INIT, *mounts[] = { &m };
	Cri__Device d = CRI__DEVICE__INIT, *devices[] = { &d };
	Cri__CDIDevice cdi = CRI__CDIDEVICE__INIT, *cdis[] = { &cdi };

	init(&f);
	f.sc.seccomp = &p; /* RuntimeDefault is 0 */
	refused(&f, -ENOSYS, "seccomp");
	p.profile_type = CRI__SECURITY_PROFILE__PROFILE_TYPE__Unconfined;
	json_decref(build(&f));
	f.sc.seccomp = NULL;
	f.sc.seccomp_profile_path = (char *)"runtime/default";
	refused(&f, -ENOSYS, "seccomp");
	f.sc.seccomp_profile_path = (char *)"unconfined";
	json_decref(build(&f));
	f.sc.apparmor = &p;
	json_decref(build(&f));
	p.profile_type = CRI__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
	p.localhost_ref = (char *)"mine";
	refused(&f, -EBUSY, "mine");
	f.sc.apparmor = NULL;
	f.sc.apparmor_profile = (char *)"localhost/mine";
	refused(&f, -EBUSY, "mine");
	f.sc.apparmor_profile = (char *)"";
	f.sc.selinux_options = &se;
	json_decref(build(&f));
	se.level = (char *)"s0";
	refused(&f, -ENOSYS, "SELinux");
	f.sc.selinux_options = NULL;

	m.container_path = (char *)"/data";
	f.c.n_mounts = 1;
	f.c.mounts = mounts;
	refused(&f, -ENOSYS, "/data");
	f.c.n_mounts = 0;
	f.c.n_devices = 1;
	f.c.devices = devices;
	refused(&f, -ENOSYS, "devices");
	f.c.n_devices = 0;
	f.c.n_cdi_devices = 1;
	f.c.cdi_devices = cdis;
	refused(&f, -ENOSYS, "CDI");
}

static void test_resources(void **state)
{
	struct fixture f;

	init(&f);
	f.lin.resources = &f.res;
	f.res.memory_limit_in_bytes = 1 << 20;
	f.res.cpu_shares = 512;
	f.res.cpu_quota = 50000;
	f.res.cpu_period = 100000;
	f.res.oom_score_adj = 900;
	json_t *j = build(&f);
	json_t *r = json_object_get(json_object_get(j, "linux"), "resources");
	json_t *mem = json_object_get(r, "memory"), *cpu = json_object_get(r, "cpu");
	assert_int_equal(json_integer_value(json_object_get(mem, "limit")), 1 << 20);
	assert_int_equal(json_integer_value(json_object_get(mem, "swap")), 1 << 20);
	assert_int_equal(json_integer_value(json_object_get(cpu, "shares")), 512);
	assert_int_equal(json_integer_value(json_object_get(cpu, "quota")), 50000);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(j, "process"), "oomScoreAdj")),
		900);
	json_decref(j);
	f.res.oom_score_adj = 1001;
	refused(&f, -EINVAL, "oom_score_adj");
	f.res.oom_score_adj = 0;
	f.res.cpu_shares = -1;
	refused(&f, -EINVAL, "cpu_shares");
}

static void log_is(const char *dir, const char *path, const char *want)
{
	struct fixture f;
	cleanup_free char *got = NULL;

	init(&f);
	f.pod.log_directory = (char *)dir;
	f.c.log_path = (char *)path;
	assert_int_equal(spec_check_log_path(&f.pod, &f.c, &got, &f.err), 0);
	if (want)
		assert_string_equal(got, want);
	else
		assert_null(got);
}

static void test_log_path(void **state)
{
	static const char *const climbing[] = { "..", "../x", "a/../x", "a/..", "//../x" };
	struct fixture f;
	char *got;

	log_is("/d", "ct/0.log", "/d/ct/0.log");
	log_is("/d", "..x/a..b", "/d/..x/a..b");
	log_is("", "ct/0.log", NULL);
	log_is("/d", "", NULL);
	init(&f);
	for (size_t i = 0; i < ARRAY_SIZE(climbing); i++) {
		f.c.log_path = (char *)climbing[i];
		assert_int_equal(spec_check_log_path(&f.pod, &f.c, &got, &f.err), -EINVAL);
	}
	f.c.log_path = (char *)"x";
	f.pod.log_directory = (char *)"relative";
	assert_int_equal(spec_check_log_path(&f.pod, &f.c, &got, &f.err), -EINVAL);
}

static void test_cwd(void **state)
{
	struct fixture f;

	init(&f);
	f.image.working_dir = (char *)"app";
	json_t *j = build(&f);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(j, "process"), "cwd")), "/app");
	json_decref(j);
	f.c.working_dir = (char *)"/own";
	j = build(&f);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(j, "process"), "cwd")), "/own");
	json_decref(j);
	f.c.working_dir = (char *)"own";
	refused(&f, -EINVAL, "not absolute");
}

static void test_stop_signal(void **state)
{
	struct fixture f;
	bool chosen;
	int n;

	init(&f);
	assert_int_equal(spec_stop_signal(&f.in, &n, &chosen, NULL), 0);
	assert_int_equal(n, 15);
	assert_false(chosen);
	f.image.stop_signal = (char *)"SIGQUIT";
	assert_int_equal(spec_stop_signal(&f.in, &n, &chosen, NULL), 0);
	assert_int_equal(n, 3);
	assert_true(chosen);
	f.c.stop_signal = CRI__SIGNAL__SIGNAL_SIGUSR1;
	assert_int_equal(spec_stop_signal(&f.in, &n, &chosen, NULL), 0);
	assert_int_equal(n, 10);
	f.c.stop_signal = 0;
	f.image.stop_signal = (char *)"SIGNONSENSE";
	assert_int_equal(spec_stop_signal(&f.in, &n, &chosen, &f.err), -EINVAL);
}

static void test_exec(void **state)
{
	struct fixture f;
	cleanup_free char *text = NULL, *process = NULL;
	char *args[] = { (char *)"ls", (char *)"-l" };

	init(&f);
	f.c.tty = 1;
	assert_int_equal(spec_build(&f.in, &text, &f.err), 0);
	assert_int_equal(spec_exec(text, args, 2, false, &process, &f.err), 0);
	json_t *j = json_loads(process, 0, NULL);
	assert_true(json_is_false(json_object_get(j, "terminal")));
	assert_int_equal(json_array_size(json_object_get(j, "args")), 2);
	assert_non_null(json_object_get(j, "capabilities"));
	json_decref(j);
	free(take_ptr(&process));
	assert_int_equal(spec_exec(text, args, 2, true, &process, &f.err), 0);
	assert_non_null(strstr(process, "\"terminal\":true"));
	assert_ptr_equal(strstr(process, "TERM="), strstr(process, "TERM=xterm\""));
	/* What the container says of its terminal is kept; without one it is said for the exec. */
	free(take_ptr(&process));
	assert_int_equal(spec_exec("{\"process\":{\"env\":[\"TERM=vt100\"]}}", args, 2, true,
				   &process, &f.err),
			 0);
	assert_non_null(strstr(process, "[\"TERM=vt100\"]"));
	free(take_ptr(&process));
	assert_int_equal(spec_exec("{\"process\":{}}", args, 2, true, &process, &f.err), 0);
	assert_non_null(strstr(process, "[\"TERM=xterm\"]"));
	assert_int_equal(spec_exec("{}", args, 2, false, &process, &f.err), -EIO);
	assert_int_equal(spec_exec("nonsense", args, 2, false, &process, &f.err), -EIO);
}

static void test_pod(void **state)
{
	struct fixture f;
	Cri__UserNamespace u = CRI__USER_NAMESPACE__INIT;

	init(&f);
	assert_int_equal(spec_check_pod(&f.pod, &f.err), 0);
	assert_int_equal(spec_check_pod(NULL, &f.err), -EINVAL);
	f.pod.metadata = NULL;
	assert_int_equal(spec_check_pod(&f.pod, &f.err), -EINVAL);
	f.pod.metadata = &f.pod_meta;
	f.pod_meta.name = (char *)"";
	assert_int_equal(spec_check_pod(&f.pod, &f.err), -EINVAL);
	f.pod_meta.name = (char *)"p";
	f.pod_ns.network = CRI__NAMESPACE_MODE__NODE;
	assert_int_equal(spec_check_pod(&f.pod, &f.err), -EBUSY);
	f.pod_ns.network = 0;
	f.pod_ns.pid = CRI__NAMESPACE_MODE__TARGET;
	assert_int_equal(spec_check_pod(&f.pod, &f.err), -EINVAL);
	f.pod_ns.pid = 0;
	f.pod_ns.userns_options = &u;
	assert_int_equal(spec_check_pod(&f.pod, &f.err), -ENOSYS);
	u.mode = CRI__NAMESPACE_MODE__CONTAINER;
	assert_int_equal(spec_check_pod(&f.pod, &f.err), -EINVAL);
	u.mode = CRI__NAMESPACE_MODE__NODE;
	assert_int_equal(spec_check_pod(&f.pod, &f.err), 0);
	f.pod.log_directory = (char *)"logs";
	assert_int_equal(spec_check_pod(&f.pod, &f.err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_args),	     cmocka_unit_test(test_env),
		cmocka_unit_test(test_env_is_large), cmocka_unit_test(test_user),
		cmocka_unit_test(test_capabilities), cmocka_unit_test(test_namespaces),
		cmocka_unit_test(test_privileged),   cmocka_unit_test(test_what_is_not_there_yet),
		cmocka_unit_test(test_resources),    cmocka_unit_test(test_log_path),
		cmocka_unit_test(test_cwd),	     cmocka_unit_test(test_stop_signal),
		cmocka_unit_test(test_exec),	     cmocka_unit_test(test_pod),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
