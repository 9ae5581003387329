/* Which sectors of the disk show which file. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "shim/pod/windows.h"

static void test_windows(void **state)
{
	struct windows *w = calloc(1, sizeof(*w));
	uint64_t a, b, c, n;
	struct err err = { 0 };
	bool map;

	assert_int_equal(windows_get(w, 1, 1, 1, true, &a, &n, &map, &err), 0);
	assert_true(map && n == 8 && a == 0);
	assert_int_equal(windows_get(w, 1, 1, 1, true, &b, &n, &map, &err), 0);
	assert_true(map && a == b); /* as long as nobody did */
	assert_int_equal(windows_get(w, 1, 1, 1, false, &b, &n, &map, &err), -EBUSY);
	assert_int_equal(windows_get(w, 1, 2, 4097, false, &b, &n, &map, &err), 0);
	assert_true(map && b == 8 && n == 16);
	assert_int_equal(windows_get(w, 1, 2, 4097, false, &c, &n, &map, &err), -EBUSY);
	assert_int_equal(windows_get(w, 1, 3, 0, false, &c, &n, &map, &err), -EINVAL);
	assert_int_equal(windows_get(w, 1, 3, (64ull << 40) + 1, true, &c, &n, &map, &err),
			 -ENOSPC);
	assert_int_equal(windows_get(w, 1, 3, 64ull << 40, true, &c, &n, &map, &err), -ENOSPC);
	assert_false(windows_put(w, a));
	windows_free(w, a); /* still used */
	assert_non_null(windows_find(w, a));
	windows_find(w, a)->mapped = true;
	assert_int_equal(windows_get(w, 1, 1, 1, true, &b, &n, &map, &err), 0);
	assert_true(!map && a == b);
	assert_false(windows_put(w, a));
	assert_true(windows_put(w, a));
	/* Mapped and not in use: taken up again. */
	assert_int_equal(windows_get(w, 1, 1, 1, true, &b, &n, &map, &err), 0);
	assert_true(!map && a == b);
	assert_true(windows_put(w, a));
	windows_free(w, a);
	assert_non_null(windows_find(w, a));
	/* Being unmapped: not to be shared, its place not to be given away. */
	windows_find(w, a)->unmapping = true;
	assert_int_equal(windows_get(w, 1, 1, 1, true, &c, &n, &map, &err), 0);
	assert_true(map && c == 24);
	windows_find(w, a)->mapped = false;
	windows_find(w, a)->held = true;
	windows_free(w, a);
	assert_non_null(windows_find(w, a)); /* the guest may write there */
	windows_find(w, a)->held = false;
	windows_free(w, a);
	assert_null(windows_find(w, a));
	assert_int_equal(windows_get(w, 1, 9, 4096, true, &c, &n, &map, &err), 0);
	assert_true(c == 0); /* the gap */
	for (uint64_t i = 0; w->n < POD_DISKS_MAX; i++)
		assert_int_equal(windows_get(w, 2, i, 1 << 20, true, &c, &n, &map, &err), 0);
	assert_int_equal(windows_get(w, 3, 1, 1, true, &c, &n, &map, &err), -ENOSPC);
	for (size_t i = 1; i < w->n; i++)
		assert_true(w->slots[i - 1].first + w->slots[i - 1].sectors <= w->slots[i].first);
	windows_fini(w);
	free(w);
}

/* A pod with many containers: each has a scratch disk of 64 GiB, and they share layers. */
static void test_many(void **state)
{
	struct windows w = { 0 };
	uint64_t first, n;
	struct err err = { 0 };
	bool map;

	for (uint64_t i = 0; i < 256 && w.n < POD_DISKS_MAX; i++) {
		assert_ok(windows_get(&w, 1, i, 64ull << 30, false, &first, &n, &map, &err), &err);
		for (uint64_t k = 0; k < 20 && w.n < POD_DISKS_MAX; k++)
			assert_ok(windows_get(&w, 2, k, 1ull << 30, true, &first, &n, &map, &err),
				  &err);
	}
	windows_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
