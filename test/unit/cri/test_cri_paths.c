/* Where huskd's files are, and that only one huskd has them. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/util.h"
#include "cri/huskd.h"
#include "cri/paths.h"

static void is(char *path, const char *dir, const char *below)
{
	char want[200];

	(void)snprintf(want, sizeof(want), "%s%s", dir, below);
	assert_string_equal(path, want);
	free(path);
}

static void is_private_dir(char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0700);
	free(path);
}

static void places(void **state)
{
	const struct huskd d = { .config = { .root = (char *)"/r", .state = (char *)"/s" } };

	is(path_db(&d), "/r", "/husk.db");
	is(path_images(&d), "/r", "/images");
	is(path_pod(&d, "p"), "/s", "/pods/p");
	is(path_container(&d, "c"), "/s", "/containers/c");
	is(path_container_data(&d, "c"), "/r", "/containers/c");
	is(path_shims(&d), "/s", "/shim");
	is(path_exec(&d, "e"), "/s", "/exec/e");
}

static void one_huskd(void **state)
{
	char dir[] = "/tmp/husk-paths-XXXXXX", root[64], run[64];
	int locks[2], other[2];
	struct err err = { 0 };
	struct huskd d = { 0 };

	assert_non_null(mkdtemp(dir));
	(void)snprintf(root, sizeof(root), "%s/root", dir);
	(void)snprintf(run, sizeof(run), "%s/run", dir);
	d.config.root = root;
	d.config.state = run;
	assert_ok(path_prepare(&d, locks, &err), &err);
	is_private_dir(path_pods(&d));
	is_private_dir(path_containers(&d));
	is_private_dir(path_containers_data(&d));
	is_private_dir(path_execs(&d));
	assert_int_equal(path_prepare(&d, other, &err), -EBUSY);
	assert_int_equal(other[0], -1);
	assert_text(err.msg, "/root is used by another huskd");

	/* Another root, but the state directory of the first. */
	(void)snprintf(root, sizeof(root), "%s/root2", dir);
	assert_int_equal(path_prepare(&d, other, &err), -EBUSY);
	assert_text(err.msg, "/run is used by another huskd");
	fd_close(&other[0]);

	fd_close(&locks[0]);
	fd_close(&locks[1]);
	d.config.state = root; /* both in one */
	assert_ok(path_prepare(&d, locks, &err), &err);
	assert_int_equal(locks[1], -1);
	fd_close(&locks[0]);
	assert_int_equal(remove_tree(dir, NULL), 0);
}

/* A small disk is not refused altogether, a large one keeps no more than helps. */
static void room_to_leave(void **state)
{
	char nowhere[] = "/no/such/directory";
	const struct huskd d = { .config = { .root = nowhere, .state = nowhere } };

	assert_int_equal(disk_reserve(200 * MIB), 5 * MIB);
	assert_int_equal(disk_reserve(10240 * MIB), 256 * MIB);
	assert_int_equal(disk_reserve(80 * GIB), GIB);
	assert_int_equal(disk_reserve(1024 * GIB), 2 * GIB);
	assert_int_equal(path_check_space(&d, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places),
		cmocka_unit_test(one_huskd),
		cmocka_unit_test(room_to_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
