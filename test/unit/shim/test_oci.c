/* config.json: what is taken, and what is refused by name. */
#include "test/lib/unit.h"

#include <errno.h>

#include "base/util.h"
#include "shim/oci/oci.h"

#define SPEC(process, linux_part)                                                                  \
	"{\"ociVersion\":\"1.1.0\",\"process\":{\"args\":[\"sh\"],\"cwd\":\"/\"" process           \
	"},\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"hostname\":\"h\",\"linux\":{"        \
	"\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"pid\"}]" linux_part "}}"

static int parse(struct pb_arena *a, const char *json, struct oci_spec *ret, struct err *err)
{
	pb_arena_init(a, OCI_MEMORY_MAX);
	*err = (struct err){ 0 };
	return oci_parse(a, json, strlen(json), ret, err);
}

static void refused(const char *json, int code, const char *names)
{
	struct pb_arena a;
	struct oci_spec spec;
	struct err err;

	assert_int_equal(parse(&a, json, &spec, &err), code);
	if (!strstr(err.msg, names))
		fail_msg("\"%s\" does not name \"%s\"", err.msg, names);
	pb_arena_fini(&a);
}

static const char *cgroup_value(const struct oci_spec *s, const char *file)
{
	for (size_t i = 0; i < s->req->n_cgroup; i++) {
		if (str_eq(s->req->cgroup[i]->key, file))
			return s->req->cgroup[i]->value;
	}
	return NULL;
}

static void test_oci_good(void **state)
{
	static const char json[] = SPEC(
		",\"terminal\":true,\"consoleSize\":{\"width\":80,\"height\":25},\"env\":[\"A=b\"],"
		"\"husk.envHex\":[\"423dff20\"],"
		"\"user\":{\"uid\":1,\"gid\":2,\"additionalGids\":[3,4],\"umask\":18},"
		"\"capabilities\":{\"bounding\":[\"CAP_CHOWN\",\"CAP_CHECKPOINT_RESTORE\"]},"
		"\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":1024,\"hard\":"
		"18446744073709551615}],"
		"\"noNewPrivileges\":true,\"oomScoreAdj\":-500,\"apparmorProfile\":\"\"",
		",\"seccomp\":null,\"sysctl\":{\"net.ipv4.ip_forward\":\"1\"},\"resources\":{"
		"\"memory\":{\"limit\":1048576,\"swap\":3145728},\"cpu\":{\"shares\":1024,"
		"\"quota\":"
		"50000},\"pids\":{\"limit\":-1},\"hugepageLimits\":[{\"pageSize\":\"2MB\","
		"\"limit\":0}],"
		"\"unified\":{\"memory.oom.group\":\"1\"},\"devices\":[{\"allow\":false,\"access\":"
		"\"rwm\"},{\"allow\":true,\"type\":\"c\",\"major\":1,\"minor\":3,\"access\":"
		"\"rwm\"}]}");
	const Agent__Process *p;
	struct pb_arena a;
	struct oci_spec s;
	struct err err;

	if (parse(&a, json, &s, &err) < 0)
		fail_msg("%s", err.msg);
	p = s.req->process;
	assert_int_equal(p->n_env, 2);
	assert_true(p->env[0].len == 3 && memcmp(p->env[0].data, "A=b", 3) == 0);
	assert_true(p->env[1].len == 4 && memcmp(p->env[1].data, "B=\xff ", 4) == 0);
	assert_true(p->terminal && p->width == 80 && p->height == 25 && p->no_new_privileges);
	assert_true(p->user->uid == 1 && p->user->gid == 2 && p->user->n_additional_gids == 2);
	assert_true(p->user->umask == 022 && p->oom_score_adj == -500);
	assert_true(p->capabilities->bounding == (1 | 1ull << 40));
	assert_true(p->rlimits[0]->hard == UINT64_MAX && p->rlimits[0]->soft == 1024);
	assert_string_equal(s.req->hostname, "h");
	assert_true(s.rootfs_readonly && !s.req->privileged);
	assert_int_equal(s.req->pid_namespace, AGENT__NAMESPACE_MODE__PRIVATE);
	assert_int_equal(s.req->ipc_namespace, AGENT__NAMESPACE_MODE__POD);
	assert_string_equal(cgroup_value(&s, "memory.max"), "1048576");
	assert_string_equal(cgroup_value(&s, "memory.swap.max"), "2097152");
	assert_string_equal(cgroup_value(&s, "cpu.weight"), "39");
	assert_string_equal(cgroup_value(&s, "cpu.max"), "50000 100000");
	assert_string_equal(cgroup_value(&s, "pids.max"), "max");
	assert_string_equal(cgroup_value(&s, "memory.oom.group"), "1");
	assert_string_equal(s.req->sysctls[0]->value, "1");
	pb_arena_fini(&a);
	/* The last word is "allow all": a privileged container. */
	assert_int_equal(parse(&a,
			       SPEC("",
				    ",\"resources\":{\"devices\":[{\"allow\":true,"
				    "\"access\":\"rwm\"}]}"),
			       &s, &err),
			 0);
	assert_true(s.req->privileged);
	pb_arena_fini(&a);
}

static void test_oci_refused(void **state)
{
	refused("{", -EINVAL, "line 1");
	refused("[]", -EINVAL, "object");
	refused(SPEC(",\"husk.envHex\":[\"4\"]", ""), -EINVAL, "hexadecimal");
	refused(SPEC(",\"husk.envHex\":[\"4G\"]", ""), -EINVAL, "hexadecimal");
	refused(SPEC(",\"husk.envHex\":\"41\"", ""), -EINVAL, "list");
	refused("{\"linux\":{}}", -EINVAL, "process");
	refused("{\"process\":{\"args\":[],\"cwd\":\"/\"}}", -EINVAL, "args");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"x\"}}", -EINVAL, "process.cwd");
	refused("{\"process\":{\"args\":[\"a\"]}}", -EINVAL, "cwd");
	refused("{\"process\":{\"args\":[\"a\"],\"args\":[\"b\"],\"cwd\":\"/\"}}", -EINVAL, "");
	refused(SPEC(",\"selinuxLabel\":\"x\"", ""), -ENOSYS, "process.selinuxLabel");
	refused(SPEC(",\"new\":1", ""), -ENOSYS, "process.new");
	refused(SPEC(",\"user\":{\"uid\":-1}", ""), -EINVAL, "process.user.uid");
	refused(SPEC(",\"user\":{\"uid\":4294967295}", ""), -EINVAL, "process.user.uid");
	refused(SPEC(",\"user\":{\"uid\":1.5}", ""), -EINVAL, "process.user.uid");
	refused(SPEC(",\"user\":{\"uid\":1,\"username\":\"a\"}", ""), -EINVAL, "process.user");
	refused(SPEC(",\"capabilities\":{\"bounding\":[\"CAP_X\"]}", ""), -EINVAL, "bounding");
	refused(SPEC(",\"rlimits\":[{\"type\":\"X\",\"soft\":1,\"hard\":1}]", ""), -EINVAL,
		"rlimits");
	refused(SPEC("", ",\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ERRNO\"}"), -ENOSYS,
		"linux.seccomp");
	refused(SPEC("", ",\"devices\":[{\"path\":\"/dev/fuse\"}]"), -ENOSYS, "linux.devices");
	refused(SPEC("", ",\"uidMappings\":[{\"size\":1}]"), -ENOSYS, "linux.uidMappings");
	refused(SPEC("", ",\"rootfsPropagation\":\"shared\""), -ENOSYS, "rootfsPropagation");
	refused(SPEC("", ",\"resources\":{\"blockIO\":{\"weight\":10}}"), -ENOSYS, "blockIO");
	refused(SPEC("", ",\"resources\":{\"cpu\":{\"cpus\":\"0-1\"}}"), -ENOSYS, "cpu.cpus");
	refused(SPEC("", ",\"resources\":{\"unified\":{\"cgroup.kill\":\"1\"}}"), -EINVAL,
		"unified");
	refused(SPEC("", ",\"resources\":{\"unified\":{\"../x.y\":\"1\"}}"), -EINVAL, "unified");
	refused(SPEC("", ",\"resources\":{\"memory\":{\"limit\":10,\"swap\":5}}"), -EINVAL,
		"memory");
	refused(SPEC("",
		     ",\"resources\":{\"devices\":[{\"allow\":true,\"type\":\"b\",\"major\":8,"
		     "\"access\":\"rwm\"}]}"),
		-ENOSYS, "devices");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"/\"},\"linux\":{\"namespaces\":[]}}",
		-ENOSYS, "namespaces");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"/"
		"\"},\"linux\":{\"namespaces\":[{\"type\":"
		"\"mount\"},{\"type\":\"user\"}]}}",
		-ENOSYS, "user");
	refused("{\"process\":{\"args\":[\"a\"],\"cwd\":\"/\"},\"hooks\":{\"prestart\":[{}]}}",
		-ENOSYS, "hooks");
	refused("{\"mounts\":[{\"destination\":\"/d\",\"type\":\"bind\",\"source\":\"/etc\"}]}",
		-ENOSYS, "/etc on /d");
	refused("{\"mounts\":[{\"destination\":\"/d\",\"type\":\"nfs\"}]}", -ENOSYS, "nfs");
	refused("{\"mounts\":[{\"destination\":\"d\",\"type\":\"proc\"}]}", -EINVAL, "mounts");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_oci_good),
		cmocka_unit_test(test_oci_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
