#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/proc/user.h"
#include "base/util.h"

static const char passwd[] =
	"root:x:0:0:root:/root:/bin/sh\n"
	"# comment:x:9:9::/:\n"
	"broken:x:1\n"
	"\n"
	"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
	"app:x:1000:1001::/home/app:/bin/sh\n"
	"1234:x:77:78::/numeric:/bin/sh\n"
	"huge:x:4294967295:0::/:\n"
	"neg:x:-1:0::/:\n"
	"relative:x:80:80::home:/bin/sh\n"
	"last:x:90:90::/last:/bin/sh"; /* no newline */
static const char group[] =
	"root:x:0:\n"
	"wheel:x:10:root,app\n"
	"short:x:11\n"
	"extra:x:2000:other,app\n"
	"extra2:x:2001:apple,xapp\n"
	"app:x:1001:\n"
	"2000:x:55:\n";

static struct user u;
static struct err err;

static int resolve(const char *name)
{
	Agent__User spec = AGENT__USER__INIT;

	spec.name = (char *)name;
	err = (struct err){ 0 };
	return user_resolve(&spec, passwd, sizeof(passwd) - 1, group, sizeof(group) - 1, &u, &err);
}

static void test_names(void **state)
{
	assert_int_equal(resolve("app"), 0);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(u.gid, 1001);
	assert_string_equal(u.home, "/home/app");
	assert_int_equal(u.n_groups, 3);
	assert_int_equal(u.groups[0], 10);
	assert_int_equal(u.groups[1], 2000);
	assert_int_equal(u.groups[2], 1001); /* the primary one */
	assert_int_equal(resolve("last"), 0);
	assert_string_equal(u.home, "/last");
	assert_int_equal(resolve("nobody"), -ENOENT);
	assert_text(err.msg, "nobody");
	assert_int_equal(resolve("huge"), -ENOENT);
	assert_int_equal(resolve("neg"), -ENOENT);
	assert_int_equal(resolve("broken"), -ENOENT);
	assert_int_equal(resolve("# comment"), -ENOENT);
	assert_int_equal(resolve("relative"), 0);
	assert_string_equal(u.home, "/");
}

static void test_numbers(void **state)
{
	assert_int_equal(resolve("1000"), 0);
	assert_int_equal(u.gid, 1001);
	assert_int_equal(u.n_groups, 3); /* the user is known by its number, too */
	assert_int_equal(resolve("4000"), 0);
	assert_int_equal(u.uid, 4000);
	assert_int_equal(u.gid, 0);
	assert_string_equal(u.home, "/");
	assert_int_equal(resolve("1234"), 0); /* a name wins over a number */
	assert_int_equal(u.uid, 77);
	assert_int_equal(resolve("4294967295"), -ENOENT);
	assert_int_equal(resolve("99999999999"), -ENOENT);
	assert_int_equal(resolve("-1"), -ENOENT);
}

static void test_groups(void **state)
{
	assert_int_equal(resolve("app:wheel"), 0);
	assert_int_equal(u.gid, 10);
	/* A group was named: it is the primary one, and the user's others are joined all the
	 * same. */
	assert_int_equal(u.n_groups, 2);
	assert_int_equal(u.groups[0], 10);
	assert_int_equal(u.groups[1], 2000);
	assert_int_equal(resolve("1000:3000"), 0);
	assert_int_equal(u.n_groups, 3);
	assert_int_equal(u.groups[2], 3000);
	assert_int_equal(resolve("0:2000"), 0);
	assert_int_equal(u.gid, 55); /* the group called 2000 */
	assert_int_equal(resolve("0:3000"), 0);
	assert_int_equal(u.gid, 3000);
	assert_int_equal(resolve("app:none"), -ENOENT);
	assert_text(err.msg, "none");
	assert_int_equal(resolve(":wheel"), 0);
	assert_int_equal(u.uid, 0);
	assert_int_equal(u.gid, 10);
	assert_int_equal(resolve(":"), -EINVAL);
	assert_int_equal(resolve("app:"), 0);
	assert_int_equal(u.gid, 1001);
}

static void test_ids(void **state)
{
	uint32_t gids[] = { 5, 6, 5 };
	Agent__User spec = AGENT__USER__INIT;

	spec.uid = 1000;
	spec.gid = 7;
	spec.additional_gids = gids;
	spec.n_additional_gids = 3;
	assert_int_equal(user_resolve(&spec, passwd, sizeof(passwd) - 1, NULL, 0, &u, &err), 0);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(u.gid, 7);
	assert_int_equal(u.n_groups, 2);
	assert_string_equal(u.home, "/home/app");
	spec.name = (char *)"app";
	assert_int_equal(
		user_resolve(&spec, passwd, sizeof(passwd) - 1, group, sizeof(group) - 1, &u, &err),
		0);
	assert_int_equal(u.n_groups, 5);
	assert_int_equal(u.gid, 1001);
	/* Strict: what was asked for, and nothing of /etc/group. */
	spec.strict_groups = true;
	assert_int_equal(
		user_resolve(&spec, passwd, sizeof(passwd) - 1, group, sizeof(group) - 1, &u, &err),
		0);
	assert_int_equal(u.n_groups, 3);
	assert_int_equal(u.groups[0], 5);
	assert_int_equal(u.groups[1], 6);
	assert_int_equal(u.groups[2], 1001);
	assert_int_equal(user_resolve(NULL, NULL, 0, NULL, 0, &u, &err), 0);
	assert_int_equal(u.uid, 0);
	assert_string_equal(u.home, "/");
}

static void test_too_many_groups(void **state)
{
	size_t cap = (PROCESS_GROUPS_MAX + 2) * 32, n = 0;
	char *text = malloc(cap);
	Agent__User spec = AGENT__USER__INIT;

	spec.name = (char *)"app";
	for (unsigned i = 0; i < PROCESS_GROUPS_MAX + 1; i++)
		n += (size_t)snprintf(text + n, cap - n, "g%u:x:%u:app\n", i, i + 1);
	assert_int_equal(user_resolve(&spec, passwd, sizeof(passwd) - 1, text, n, &u, &err),
			 -E2BIG);
	free(text);
}

static void test_files(void **state)
{
	char dir[] = "/tmp/test_agent_user.XXXXXX";
	Agent__User spec = AGENT__USER__INIT;
	char path[100];
	int root, fd;

	assert_non_null(mkdtemp(dir));
	root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	spec.name = (char *)"app";
	assert_int_equal(user_lookup(root, &spec, &u, &err), -ENOENT); /* no file at all */
	spec.name = (char *)"12:13";
	assert_int_equal(user_lookup(root, &spec, &u, &err), 0);
	snprintf(path, sizeof(path), "%s/etc", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	/* An absolute symlink stays within the root: it does not reach the host's file. */
	snprintf(path, sizeof(path), "%s/etc/passwd", dir);
	assert_int_equal(symlink("/../../../../etc/passwd", path), 0);
	spec.name = (char *)"root";
	assert_int_equal(user_lookup(root, &spec, &u, &err), -ENOENT);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0644), 0);
	assert_int_equal(user_lookup(root, &spec, &u, &err), -EINVAL); /* and does not block */
	assert_int_equal(unlink(path), 0);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_int_equal(write_all(fd, passwd, sizeof(passwd) - 1), 0);
	spec.name = (char *)"app";
	assert_int_equal(user_lookup(root, &spec, &u, &err), 0);
	assert_int_equal(u.uid, 1000);
	assert_int_equal(ftruncate(fd, AGENT_PASSWD_MAX + 1), 0);
	assert_int_equal(user_lookup(root, &spec, &u, &err), -EFBIG);
	close(fd);
	close(root);
	assert_int_equal(remove_tree(dir, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_groups),		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_too_many_groups), cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
