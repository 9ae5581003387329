/* The list of disks that makes a root file system. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "shim/pod/rootfs.h"
#include "test/lib/tmpdir.h"

static int open_rootfs(const char *const rows[][3], size_t n, struct rootfs **ret, struct err *err)
{
	static const char *const ro[] = { "ro", "loop" }, *const rw[] = { "rw", "loop" };
	Types__Mount m[8], *list[8];

	for (size_t i = 0; i < n; i++) {
		types__mount__init(&m[i]);
		m[i].type = (char *)rows[i][0];
		m[i].source = (char *)rows[i][1];
		if (rows[i][2]) {
			m[i].options = (char **)(*rows[i][2] == 'o' ? ro : rw);
			m[i].n_options = 2;
		}
		list[i] = &m[i];
	}
	*err = (struct err){ 0 };
	return rootfs_open(list, n, ret, err);
}

static void test_rootfs(void **state)
{
	char *a = in_tmpdir("a.img"), *b = in_tmpdir("b.img"), *fifo = in_tmpdir("fifo");
	const char *overlay[3] = { "overlay", "overlay", NULL };
	struct windows *w = calloc(1, sizeof(*w));
	Agent__Rootfs *msg;
	struct pb_arena arena;
	struct rootfs *rf;
	struct err err = { 0 };

#define ROWS(...) ((const char *const[][3]){ __VA_ARGS__ })
#define OPEN(...)                                                                                  \
	open_rootfs(ROWS(__VA_ARGS__), sizeof(ROWS(__VA_ARGS__)) / sizeof(char *[3]), &rf, &err)
	assert_int_equal(write_file_atomic(a, "x", 1, 0600, false, &err), 0);
	assert_int_equal(write_file_atomic(b, "y", 1, 0600, false, &err), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(open_rootfs(NULL, 0, &rf, &err), -ENOSYS);
	assert_int_equal(OPEN({ "bind", "/", NULL }), -ENOSYS);
	assert_int_equal(OPEN({ "ext4", a, "o" }, { "bind", "/", NULL }), -ENOSYS);
	assert_int_equal(OPEN({ "ext4", a, NULL }), -EINVAL);
	assert_int_equal(OPEN({ "ext4", fifo, "o" }), -EINVAL);
	assert_int_equal(OPEN({ "ext4", "/nonexistent", "o" }), -ENOENT);
	assert_int_equal(OPEN({ "ext4", a, "w" }), -ENOSYS);
	assert_int_equal(OPEN({ "ext4", a, "o" }, { "ext4", b, "o" }), -EINVAL);
	assert_int_equal(
		OPEN({ "ext4", a, "w" }, { "ext4", b, "o" }, { overlay[0], overlay[1], NULL }),
		-EINVAL);
	assert_int_equal(OPEN({ "ext4", a, "o" }), 0);
	rootfs_free(rf);
	/* The same layer twice is mounted once, where it counts. */
	assert_int_equal(OPEN({ "ext4", a, "o" }, { "ext4", a, "o" }, { "ext4", b, "w" },
			      { overlay[0], overlay[1], NULL }),
			 0);
	assert_int_equal(rf->n, 2);
	assert_int_equal(rootfs_assign(rf, w, &err), 0);
	pb_arena_init(&arena, MIB);
	assert_int_equal(rootfs_describe(rf, &arena, &msg, &err), 0);
	assert_true(msg->n_lower == 1 && msg->lower[0]->readonly && msg->upper &&
		    !msg->upper->readonly && msg->upper->first_sector == rf->disks[1].first);
	pb_arena_fini(&arena);
	rootfs_free(rf);
	/* All or nothing: b is in use by the one before. */
	assert_int_equal(OPEN({ "ext4", fifo, "o" }), -EINVAL);
	assert_int_equal(
		OPEN({ "ext4", a, "o" }, { "ext4", b, "w" }, { overlay[0], overlay[1], NULL }), 0);
	assert_int_equal(rootfs_assign(rf, w, &err), -EBUSY);
	assert_int_equal(w->slots[0].users, 1);
	rootfs_free(rf);
	windows_fini(w);
	free(w);
	free(a);
	free(b);
	free(fifo);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rootfs),
	};

	return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
