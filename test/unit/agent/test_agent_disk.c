/* Who may have which disk: the table alone. Attaching and mounting are test_agent_host's. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/rootfs/disk.h"
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

/* As disk_get leaves one that is attached. */
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

/* While the host has no room nothing is mounted that writes, and what cannot be set is told. */
static void test_full(void **state)
{
	struct disk *got = NULL;
	Agent__Disk want = disk_at(64);

	assert_int_equal(disks_set_full(&ds, true), 0);
	assert_int_equal(disk_get(&ds, &want, &got, &err), -ENOENT);
	want.readonly = false;
	assert_int_equal(disk_get(&ds, &want, &got, &err), -ENOSPC);
	assert_text(err.msg, "no space left on the host");
	assert_int_equal(disks_set_full(&ds, false), 0);
	assert_int_equal(disk_get(&ds, &want, &got, &err), -ENOENT);
	(void)attached(0, 8, true);
	assert_int_equal(disks_set_full(&ds, true), 0);
	assert_int_equal(disks_set_full(&ds, false), 0);
	(void)attached(1, 128, false);
	assert_int_equal(disks_set_full(&ds, true), -ENOENT);
	assert_false(ds.slots[1].full);
}

static void test_leaving(void **state)
{
	struct disk *d = attached(0, 64, true);
	Agent__Disk lower[] = { disk_at(8), disk_at(64) }, upper = disk_at(128);
	Agent__Disk *list[] = { &lower[0], &lower[1] };
	Agent__Rootfs spec = AGENT__ROOTFS__INIT;

	spec.lower = list;
	spec.n_lower = 2;
	assert_false(disks_leaving(&ds, &spec));
	d->detaching = true;
	assert_true(disks_leaving(&ds, &spec));
	d->stuck = true; /* nothing will change that: better told now than waited for */
	assert_false(disks_leaving(&ds, &spec));
	d = attached(1, 128, false);
	spec.upper = &upper;
	assert_false(disks_leaving(&ds, &spec));
	d->detaching = true;
	assert_true(disks_leaving(&ds, &spec));
}

static void test_refusals(void **state)
{
	Agent__Disk want = disk_at(7);
	struct disk *got = NULL;

	/* A failure leaves no trace in the table. */
	assert_int_equal(disk_get(&ds, &want, &got, &err), -ENOENT);
	assert_text(err.msg, "disk 7: /no/such/device");
	assert_int_equal(ds.slots[0].refs, 0);
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
		cmocka_unit_test_setup_teardown(test_leaving, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
