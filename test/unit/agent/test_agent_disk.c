/* Who may have which disk: the table alone. Attaching and mounting are test_agent_host's. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/rootfs/disk.h"
#include "agent/rootfs/rootfs.h"
#include "base/util.h"

static struct disks ds;
static struct err err;

static int set_up(void **state)
{
	assert_ok(disks_init(&ds, "/no/such/device", "/no/such/run", &err), &err);
	return 0;
}

static int tear_down(void **state)
{
	disks_fini(&ds);
	return 0;
}

static Agent__Disk disk_at(uint64_t first)
{
	Agent__Disk d = AGENT__DISK__INIT;

	d.first_sector = first;
	d.sectors = 8;
	d.readonly = true;
	d.fstype = (char *)"ext4";
	return d;
}

/* One that is attached. */
static struct disk *attached(unsigned slot, uint64_t first, bool readonly)
{
	ds.slots[slot] = (struct disk){
		.refs = 1, .first_sector = first, .sectors = 8, .readonly = readonly
	};
	return &ds.slots[slot];
}

static void test_shared(void **state)
{
	struct disk *d = attached(2, 64, true), *got = NULL;
	Agent__Disk want = disk_at(64);
	cleanup_free char *path = disk_path(&ds, d);

	assert_string_equal(path, "/no/such/run/disks/3");
	assert_ok(disk_get(&ds, &want, &got, &err), &err);
	assert_ptr_equal(got, d);
	assert_int_equal(d->refs, 2);
	/* The same sectors with other properties are a mistake of the host. */
	want.sectors = 16;
	assert_int_equal(disk_get(&ds, &want, &got, &err), -EINVAL);
	want = disk_at(64);
	want.fstype = (char *)"erofs";
	assert_int_equal(disk_get(&ds, &want, &got, &err), -EINVAL);
	want = disk_at(64);
	want.readonly = false;
	assert_int_equal(disk_get(&ds, &want, &got, &err), -EINVAL);
	assert_int_equal(d->refs, 2);
	disk_forget(d);
	assert_int_equal(d->refs, 1);
	disk_forget(d);
	assert_int_equal(d->refs, 0);
	assert_int_equal(d->first_sector, 0);
}

static void test_alone(void **state)
{
	struct disk *d = attached(0, 64, false), *got = NULL;
	Agent__Disk want = disk_at(64);

	want.readonly = false;
	assert_int_equal(disk_get(&ds, &want, &got, &err), -EBUSY);
	assert_text(err.msg, "in use");
	d->readonly = true;
	d->detaching = true;
	want.readonly = true;
	assert_int_equal(disk_get(&ds, &want, &got, &err), -EBUSY);
	assert_null(got);
}

/* While the host has no room nothing is mounted that writes, and what cannot be set is told. One
 * that is being attached has nothing yet that could be set. */
static void test_full(void **state)
{
	struct disk *got = NULL;
	Agent__Disk want = disk_at(64);

	assert_int_equal(disks_set_full(&ds, true), 0);
	assert_ok(disk_get(&ds, &want, &got, &err), &err);
	disk_forget(got);
	want.readonly = false;
	assert_int_equal(disk_get(&ds, &want, &got, &err), -ENOSPC);
	assert_text(err.msg, "no space left on the host");
	assert_int_equal(disks_set_full(&ds, false), 0);
	assert_ok(disk_get(&ds, &want, &got, &err), &err);
	assert_int_equal(disks_set_full(&ds, true), 0);
	assert_false(got->full);
	assert_int_equal(disks_set_full(&ds, false), 0);
	disk_forget(got);
	(void)attached(0, 8, true);
	assert_int_equal(disks_set_full(&ds, true), 0);
	assert_int_equal(disks_set_full(&ds, false), 0);
	(void)attached(1, 128, false);
	assert_int_equal(disks_set_full(&ds, true), -ENOENT);
	assert_false(ds.slots[1].full);
}

static void test_moving(void **state)
{
	struct disk *d = attached(0, 64, true);
	Agent__Disk lower[] = { disk_at(8), disk_at(64) }, upper = disk_at(128);
	Agent__Disk *list[] = { &lower[0], &lower[1] };
	Agent__Rootfs spec = AGENT__ROOTFS__INIT;

	spec.lower = list;
	spec.n_lower = 2;
	assert_false(disks_moving(&ds, &spec));
	d->detaching = true;
	assert_true(disks_moving(&ds, &spec));
	d->stuck = true; /* nothing will change that: better told now than waited for */
	assert_false(disks_moving(&ds, &spec));
	d = attached(1, 128, false);
	spec.upper = &upper;
	assert_false(disks_moving(&ds, &spec));
	d->detaching = true;
	assert_true(disks_moving(&ds, &spec));
	d->detaching = false;
	assert_false(disks_moving(&ds, &spec));
	d->attaching = true;
	assert_true(disks_moving(&ds, &spec));
	disk_attached(&ds, d);
	assert_false(disks_moving(&ds, &spec));
}

/* All disks of a root file system or none of them; what nobody has is known. */
static void test_reserve(void **state)
{
	Agent__Disk lower[] = { disk_at(8), disk_at(64), disk_at(8) }, upper = disk_at(128);
	Agent__Disk *list[] = { &lower[0], &lower[1], &lower[2] };
	Agent__Rootfs spec = AGENT__ROOTFS__INIT;
	struct disk *shared = attached(5, 64, true), *busy = attached(6, 128, false);
	struct rootfs root;
	uint64_t unknown[4];

	spec.lower = list;
	spec.n_lower = 3;
	spec.upper = &upper;
	upper.readonly = false;
	assert_int_equal(disks_unknown(&ds, &spec, unknown), 2);
	assert_int_equal(unknown[0], 8);
	assert_int_equal(rootfs_reserve(&ds, &spec, &root, &err), -EBUSY);
	assert_text(err.msg, "root file system: disk 128 is in use");
	assert_int_equal(root.n_disks, 0);
	assert_int_equal(shared->refs, 1);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(ds.slots[i].refs, 0);
	disk_forget(busy);
	assert_ok(rootfs_reserve(&ds, &spec, &root, &err), &err);
	assert_int_equal(root.n_disks, 4);
	assert_ptr_equal(root.disks[1], shared);
	assert_false(shared->attaching);
	assert_ptr_equal(root.disks[0], root.disks[2]);
	assert_true(root.disks[0]->attaching && root.disks[3]->attaching);
	assert_int_equal(disks_unknown(&ds, &spec, unknown), 0);
	rootfs_mounted(&ds, &root, -1);
	assert_false(root.disks[0]->attaching || root.disks[3]->attaching);
	rootfs_unreserve(&root);
	assert_int_equal(shared->refs, 1);
	assert_int_equal(disks_unknown(&ds, &spec, unknown), 3);
}

static void test_refusals(void **state)
{
	Agent__Disk want = disk_at(7);
	struct disk *got = NULL;
	int dev = -1;

	assert_int_equal(disks_open(&ds, &dev, &err), -ENOENT);
	assert_text(err.msg, "/no/such/device");
	assert_int_equal(dev, -1);
	assert_int_equal(disk_attach(&ds, dev, attached(0, 7, true), &err), -ENOENT);
	assert_text(err.msg, "disk 7: /no/such/run/disks");
	for (unsigned i = 0; i < POD_DISKS_MAX; i++)
		(void)attached(i, 64 + 8 * i, true);
	assert_int_equal(disk_get(&ds, &want, &got, &err), -ENOSPC);
	assert_null(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shared, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_moving, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reserve, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
