/* Options of mounts as OCI writes them. */
#include "test/lib/unit.h"

#include <errno.h>
#include <sys/mount.h>

#include "agent/rootfs/mountopt.h"

static struct mount_opts o;
static struct err err;

/* Parses with up to 8 options, the rest NULL. */
static int parse(const char *type, const char *source, const char *const options[8])
{
	Agent__Mount m = AGENT__MOUNT__INIT;

	m.type = (char *)type;
	m.source = (char *)source;
	m.destination = (char *)"/mnt";
	m.options = (char **)options;
	while (m.n_options < 8 && options[m.n_options])
		m.n_options++;
	err = (struct err){ 0 };
	return mount_opts_parse(&m, &o, &err);
}
#define OPTIONS(...)                                                                               \
	(const char *const[8])                                                                     \
	{                                                                                          \
		__VA_ARGS__                                                                        \
	}

static void test_kinds(void **state)
{
	static const struct {
		const char *type, *fstype;
		enum mount_kind kind;
	} kinds[] = {
		{ "proc", "proc", MOUNT_PROC },		{ "sysfs", "sysfs", MOUNT_SYSFS },
		{ "tmpfs", "tmpfs", MOUNT_TMPFS },	{ "devpts", "devpts", MOUNT_DEVPTS },
		{ "mqueue", "mqueue", MOUNT_MQUEUE },	{ "cgroup2", "cgroup2", MOUNT_CGROUP2 },
		{ "cgroup", "cgroup2", MOUNT_CGROUP2 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		assert_ok(parse(kinds[i].type, "", OPTIONS(NULL)), &err);
		assert_int_equal(o.kind, kinds[i].kind);
		assert_string_equal(o.fstype, kinds[i].fstype);
		assert_null(o.pod_file);
	}
	assert_int_equal(parse("nfs", "server:/", OPTIONS(NULL)), -EOPNOTSUPP);
	assert_text(err.msg, "\"nfs\"");
	assert_int_equal(parse("", "", OPTIONS(NULL)), -EOPNOTSUPP);
}

static void test_binds(void **state)
{
	assert_ok(parse("bind", "sandbox:shm", OPTIONS("rbind", "rprivate", "ro")), &err);
	assert_int_equal(o.kind, MOUNT_BIND);
	assert_null(o.fstype);
	assert_string_equal(o.pod_file, "shm");
	assert_true(o.pod_file_is_dir);
	assert_int_equal(o.attr, MOUNT_ATTR_RDONLY);
	assert_int_equal(o.propagation, MS_PRIVATE);
	assert_ok(parse("bind", "sandbox:resolv.conf", OPTIONS("bind")), &err);
	assert_string_equal(o.pod_file, "resolv.conf");
	assert_false(o.pod_file_is_dir);
	/* Nothing else of the guest can be bound, and a bind takes no option of a file system. */
	assert_int_equal(parse("bind", "/etc", OPTIONS("rbind")), -EOPNOTSUPP);
	assert_text(err.msg, "/etc");
	assert_int_equal(parse("bind", "sandbox:shm/../..", OPTIONS("bind")), -EOPNOTSUPP);
	assert_int_equal(parse("bind", "sandbox:hosts", OPTIONS("bind", "size=1m")), -EOPNOTSUPP);
	assert_text(err.msg, "size=1m");
}

static void test_flags(void **state)
{
	assert_ok(parse("tmpfs", "tmpfs",
			OPTIONS("nosuid", "strictatime", "mode=755", "noexec", "size=64k")),
		  &err);
	assert_int_equal(o.attr, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_NOEXEC);
	assert_int_equal(o.propagation, 0);
	/* What is left is the file system's own, in its order. */
	assert_int_equal(o.n_data, 2);
	assert_string_equal(o.data[0], "mode=755");
	assert_string_equal(o.data[1], "size=64k");
	/* The last one wins; access times are one field. */
	assert_ok(parse("tmpfs", "", OPTIONS("ro", "nodev", "noatime", "rw", "relatime")), &err);
	assert_int_equal(o.attr, MOUNT_ATTR_NODEV);
	assert_ok(parse("tmpfs", "", OPTIONS("rw", "ro", "strictatime", "noatime")), &err);
	assert_int_equal(o.attr, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME);
	assert_ok(parse("proc", "", OPTIONS("defaults", "slave")), &err);
	assert_int_equal(o.attr, 0);
	assert_int_equal(o.propagation, MS_SLAVE);
}

static void test_refusals(void **state)
{
	static char too_long[AGENT_VALUE_MAX + 1];
	Agent__Mount m = AGENT__MOUNT__INIT;
	char *many[AGENT_OPTIONS_MAX + 1];
	struct mount_opts before;

	assert_ok(parse("tmpfs", "", OPTIONS("ro")), &err);
	before = o;
	assert_int_equal(parse("tmpfs", "", OPTIONS("")), -EINVAL);
	assert_int_equal(parse("tmpfs", "", OPTIONS("=64k")), -EINVAL);
	assert_int_equal(parse("tmpfs", "", OPTIONS("source=/dev/vda1")), -EINVAL);
	memset(too_long, 'a', sizeof(too_long) - 1);
	assert_int_equal(parse("tmpfs", "", OPTIONS(too_long)), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (char *)"ro";
	m.type = (char *)"tmpfs";
	m.options = many;
	m.n_options = AGENT_OPTIONS_MAX + 1;
	assert_int_equal(mount_opts_parse(&m, &o, &err), -EINVAL);
	m.n_options = AGENT_OPTIONS_MAX;
	/* A failure has left the output alone. */
	assert_memory_equal(&o, &before, sizeof(o));
	assert_ok(mount_opts_parse(&m, &o, &err), &err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_binds),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
