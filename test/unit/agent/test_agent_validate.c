/* What requests may say: every field with a value that must be refused. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mount.h>

#include "agent/limits.h"
#include "agent/rootfs/mountopt.h"
#include "agent/validate.h"
#include "base/capname.h"
#include "base/util.h"

static Agent__CreateContainerRequest req;
static Agent__Rootfs rootfs;
static Agent__Disk disk, upper;
static Agent__Disk *lower[CONTAINER_LOWERS_MAX + 1];
static Agent__Process process;
static Agent__User user;
static Agent__Capabilities caps;
static Agent__Stdio stdio_;
static char *args[PROCESS_ARGS_MAX + 1];
static struct err err;

static int good(void **state)
{
	agent__create_container_request__init(&req);
	agent__rootfs__init(&rootfs);
	agent__disk__init(&disk);
	agent__disk__init(&upper);
	agent__process__init(&process);
	agent__user__init(&user);
	agent__capabilities__init(&caps);
	agent__stdio__init(&stdio_);
	for (size_t i = 0; i < ARRAY_SIZE(args); i++)
		args[i] = (char *)"x";
	for (size_t i = 0; i < ARRAY_SIZE(lower); i++)
		lower[i] = &disk;
	disk.sectors = upper.sectors = 8;
	upper.first_sector = 8;
	disk.readonly = true;
	disk.fstype = (char *)"erofs";
	upper.fstype = (char *)"ext4";
	rootfs.lower = lower;
	rootfs.n_lower = 1;
	rootfs.upper = &upper;
	process.args = args;
	process.n_args = 1;
	process.user = &user;
	process.capabilities = &caps;
	process.stdio = &stdio_;
	req.id = (char *)"c1";
	req.rootfs = &rootfs;
	req.process = &process;
	return 0;
}

#define REFUSED(code, text)                                                                        \
	do {                                                                                       \
		err = (struct err){ 0 };                                                           \
		assert_int_equal(validate_container(&req, &err), code);                            \
		assert_text(err.msg, text);                                                        \
		good(NULL);                                                                        \
	} while (0)

static void test_good(void **state)
{
	assert_ok(validate_container(&req, &err), &err);
	process.user = NULL;
	process.capabilities = NULL;
	process.stdio = NULL;
	assert_ok(validate_container(&req, &err), &err);
}

static void test_ids(void **state)
{
	static const char *const bad[] = {
		"", ".", "..", "a/b", "/a", "-a", "_a", "a b", "\xc3\xa4"
	};
	char lng[CONTAINER_ID_MAX + 2];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(id_valid(bad[i]));
	memset(lng, 'a', sizeof(lng));
	lng[sizeof(lng) - 1] = '\0';
	assert_false(id_valid(lng));
	lng[CONTAINER_ID_MAX] = '\0';
	assert_true(id_valid(lng));
	assert_true(id_valid("0a_B.c-9"));
	req.id = (char *)"..";
	REFUSED(-EINVAL, "id");
}

static void test_rootfs(void **state)
{
	req.rootfs = NULL;
	REFUSED(-EINVAL, "rootfs");
	rootfs.n_lower = 0;
	rootfs.upper = NULL;
	REFUSED(-EINVAL, "no disk");
	rootfs.n_lower = CONTAINER_LOWERS_MAX + 1;
	REFUSED(-EINVAL, "65");
	disk.readonly = false;
	REFUSED(-EINVAL, "read-only");
	rootfs.n_lower = 2;
	REFUSED(-EINVAL, "twice");
	disk.first_sector = 4;
	REFUSED(-EINVAL, "multiples of 8");
	disk.sectors = 0;
	REFUSED(-EINVAL, "multiples of 8");
	disk.first_sector = UINT64_MAX - 7;
	REFUSED(-EINVAL, "64 TiB");
	disk.sectors = UINT64_MAX - 7;
	REFUSED(-EINVAL, "64 TiB");
	disk.fstype = (char *)"xfs";
	REFUSED(-EOPNOTSUPP, "xfs");
	upper.fstype = (char *)"erofs";
	REFUSED(-EINVAL, "writable ext4");
	upper.readonly = true;
	REFUSED(-EINVAL, "writable ext4");
}

static void test_mounts(void **state)
{
	Agent__Mount m = AGENT__MOUNT__INIT, *list[] = { &m };
	char *one[] = { (char *)"ro" };

#define REFUSED_MOUNT(code, text)                                                                  \
	do {                                                                                       \
		req.mounts = list;                                                                 \
		req.n_mounts = 1;                                                                  \
		m.options = one;                                                                   \
		m.n_options = 1;                                                                   \
		REFUSED(code, text);                                                               \
		m.type = (char *)"tmpfs";                                                          \
		m.destination = (char *)"/x";                                                      \
		one[0] = (char *)"ro";                                                             \
	} while (0)
	m.type = (char *)"tmpfs";
	m.destination = (char *)"relative";
	REFUSED_MOUNT(-EINVAL, "absolute");
	m.destination = (char *)"/a/../b";
	REFUSED_MOUNT(-EINVAL, "..");
	m.destination = (char *)"/a/..";
	REFUSED_MOUNT(-EINVAL, "..");
	m.type = (char *)"nfs";
	REFUSED_MOUNT(-EOPNOTSUPP, "nfs");
	m.type = (char *)"bind";
	m.source = (char *)"/etc";
	REFUSED_MOUNT(-EOPNOTSUPP, "/etc");
	m.type = (char *)"bind";
	m.source = (char *)"sandbox:hosts";
	one[0] = (char *)"size=1";
	REFUSED_MOUNT(-EOPNOTSUPP, "size=1");
	m.type = (char *)"bind";
	one[0] = (char *)"shared";
	REFUSED_MOUNT(-EOPNOTSUPP, "shared");
	one[0] = (char *)"";
	REFUSED_MOUNT(-EINVAL, "option");
	one[0] = (char *)"source=/dev/vda";
	REFUSED_MOUNT(-EINVAL, "source");
	req.n_mounts = CONTAINER_MOUNTS_MAX + 1;
	REFUSED(-EINVAL, "mounts");
	(void)list;
}

static void test_mount_options(void **state)
{
	char *opts[] = { (char *)"nosuid",  (char *)"ro",	   (char *)"rw",
			 (char *)"noatime", (char *)"strictatime", (char *)"size=1k",
			 (char *)"rslave" };
	Agent__Mount m = AGENT__MOUNT__INIT;
	struct mount_opts o;

	m.type = (char *)"tmpfs";
	m.options = opts;
	m.n_options = ARRAY_SIZE(opts);
	assert_ok(mount_opts_parse(&m, &o, &err), &err);
	assert_int_equal(o.attr, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME);
	assert_int_equal(o.propagation, MS_SLAVE);
	assert_int_equal(o.n_data, 1);
	assert_string_equal(o.data[0], "size=1k");
	m.type = (char *)"cgroup"; /* OCI's word */
	m.n_options = 1;
	assert_ok(mount_opts_parse(&m, &o, &err), &err);
	assert_string_equal(o.fstype, "cgroup2");
}

static void test_process(void **state)
{
	ProtobufCBinaryData env[] = { { 2, (uint8_t *)"=x" } };
	Agent__Rlimit lim = AGENT__RLIMIT__INIT, *limits[] = { &lim };

	process.n_args = 0;
	REFUSED(-EINVAL, "no command");
	process.n_args = PROCESS_ARGS_MAX + 1;
	REFUSED(-EINVAL, "args");
	args[0] = (char *)"";
	REFUSED(-EINVAL, "no command");
	process.env = env;
	process.n_env = 1;
	REFUSED(-EINVAL, "NAME=VALUE");
	env[0] = (ProtobufCBinaryData){ 7, (uint8_t *)"NOVALUE" };
	process.env = env;
	process.n_env = 1;
	REFUSED(-EINVAL, "NOVALUE");
	env[0] = (ProtobufCBinaryData){ 0, NULL };
	process.env = env;
	process.n_env = 1;
	REFUSED(-EINVAL, "NAME=VALUE");
	env[0] = (ProtobufCBinaryData){ 4, (uint8_t *)"A=\0b" };
	process.env = env;
	process.n_env = 1;
	REFUSED(-EINVAL, "NUL");
	process.n_env = PROCESS_ARGS_MAX + 1;
	REFUSED(-EINVAL, "env");
	process.cwd = (char *)"x";
	REFUSED(-EINVAL, "cwd");
	process.oom_score_adj = 1001;
	REFUSED(-EINVAL, "oom_score_adj");
	process.width = 65536;
	REFUSED(-EINVAL, "terminal");
	process.terminal = true;
	stdio_.stderr_stream = 3;
	REFUSED(-EINVAL, "stderr");
	stdio_.stdin_stream = stdio_.stdout_stream = 9;
	REFUSED(-EINVAL, "twice");
	lim.type = (char *)"RLIMIT_NONSENSE";
	process.rlimits = limits;
	process.n_rlimits = 1;
	REFUSED(-EOPNOTSUPP, "RLIMIT_NONSENSE");
	lim.type = (char *)"RLIMIT_NOFILE";
	lim.soft = 2;
	lim.hard = 1;
	process.rlimits = limits;
	process.n_rlimits = 1;
	REFUSED(-EINVAL, "above hard");
	user.uid = UINT32_MAX;
	REFUSED(-EINVAL, "user");
	user.umask = 01000;
	REFUSED(-EINVAL, "umask");
	user.n_additional_gids = PROCESS_GROUPS_MAX + 1;
	REFUSED(-EINVAL, "gids");
	caps.bounding = 1ull << (CAPNAME_LAST + 1);
	REFUSED(-EINVAL, "capabilities");
	caps.effective = 1;
	REFUSED(-EINVAL, "effective");
	caps.ambient = 1;
	REFUSED(-EINVAL, "ambient");
	req.process = NULL;
	REFUSED(-EINVAL, "process: missing");
}

static void test_settings(void **state)
{
	Agent__CreateContainerRequest__SysctlsEntry s =
		AGENT__CREATE_CONTAINER_REQUEST__SYSCTLS_ENTRY__INIT;
	Agent__CreateContainerRequest__SysctlsEntry *sl[] = { &s };
	Agent__CreateContainerRequest__CgroupEntry c =
		AGENT__CREATE_CONTAINER_REQUEST__CGROUP_ENTRY__INIT;
	Agent__CreateContainerRequest__CgroupEntry *cl[] = { &c };
	static const char *const bad_sysctl[] = { "", "../x", "a/../b", "net..x", "/proc", "a b" };
	static const char *const bad_file[] = { "",	  "memory",	  "a/b.c",
						"../x.y", "cgroup.procs", ".x.y" };
	char *paths[] = { (char *)"proc" };

	for (size_t i = 0; i < ARRAY_SIZE(bad_sysctl); i++) {
		s.key = (char *)bad_sysctl[i];
		req.sysctls = sl;
		req.n_sysctls = 1;
		REFUSED(-EINVAL, "sysctls");
	}
	s.key = (char *)"vm.swappiness";
	req.sysctls = sl;
	req.n_sysctls = 1;
	REFUSED(-EOPNOTSUPP, "whole pod");
	s.key = (char *)"kernel.shmmax"; /* the container's own IPC namespace, or the pod's */
	req.sysctls = sl;
	req.n_sysctls = 1;
	assert_ok(validate_container(&req, &err), &err);
	req.ipc_namespace = AGENT__NAMESPACE_MODE__POD;
	REFUSED(-EOPNOTSUPP, "kernel.shmmax");
	for (size_t i = 0; i < ARRAY_SIZE(bad_file); i++) {
		c.key = (char *)bad_file[i];
		req.cgroup = cl;
		req.n_cgroup = 1;
		REFUSED(-EINVAL, "cgroup");
	}
	req.pid_namespace = 7;
	REFUSED(-EOPNOTSUPP, "pid_namespace");
	req.hostname = (char *)"a b";
	REFUSED(-EINVAL, "hostname");
	req.masked_paths = paths;
	req.n_masked_paths = 1;
	REFUSED(-EINVAL, "masked_paths");
	req.n_readonly_paths = CONTAINER_PATHS_MAX + 1;
	REFUSED(-EINVAL, "readonly_paths");
}

static void test_sandbox(void **state)
{
	Agent__CreateSandboxRequest s = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	char *big = malloc(AGENT_POD_FILE_MAX + 2);

	s.id = (char *)"p";
	assert_ok(validate_sandbox(&s, &err), &err);
	s.realtime_ns = -1;
	assert_int_equal(validate_sandbox(&s, &err), -EINVAL);
	s.realtime_ns = 0;
	s.shm_size = UINT64_MAX;
	assert_int_equal(validate_sandbox(&s, &err), -EINVAL);
	s.shm_size = 0;
	memset(big, 'x', AGENT_POD_FILE_MAX + 1);
	big[AGENT_POD_FILE_MAX + 1] = '\0';
	s.hosts = big;
	assert_int_equal(validate_sandbox(&s, &err), -EINVAL);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_good, good),
		cmocka_unit_test_setup(test_ids, good),
		cmocka_unit_test_setup(test_rootfs, good),
		cmocka_unit_test_setup(test_mounts, good),
		cmocka_unit_test_setup(test_mount_options, good),
		cmocka_unit_test_setup(test_process, good),
		cmocka_unit_test_setup(test_settings, good),
		cmocka_unit_test_setup(test_sandbox, good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
