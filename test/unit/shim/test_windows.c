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
	bool is_new;

	assert_int_equal(windows_get(w, 1, 1, 1, true, &a, &n, &is_new, &err), 0);
	assert_true(is_new && n == 8 && a == 0);
	assert_int_equal(windows_get(w, 1, 1, 1, true, &b, &n, &is_new, &err), 0);
	assert_true(!is_new && a == b);
	assert_int_equal(windows_get(w, 1, 1, 1, false, &b, &n, &is_new, &err), -EBUSY);
	assert_int_equal(windows_get(w, 1, 2, 4097, false, &b, &n, &is_new, &err), 0);
	assert_true(is_new && b == 8 && n == 16);
	assert_int_equal(windows_get(w, 1, 2, 4097, false, &c, &n, &is_new, &err), -EBUSY);
	assert_int_equal(windows_get(w, 1, 3, 0, false, &c, &n, &is_new, &err), -EINVAL);
	assert_int_equal(windows_get(w, 1, 3, (8ull << 40) + 1, true, &c, &n, &is_new, &err),
			 -ENOSPC);
	assert_int_equal(windows_get(w, 1, 3, 8ull << 40, true, &c, &n, &is_new, &err), -ENOSPC);
	assert_false(windows_put(w, a));
	windows_free(w, a); /* still used */
	assert_non_null(windows_find(w, a));
	assert_true(windows_put(w, a));
	/* Being unmapped: not to be shared, its place not to be given away. */
	assert_int_equal(windows_get(w, 1, 1, 1, true, &c, &n, &is_new, &err), 0);
	assert_true(is_new && c == 24);
	windows_free(w, a);
	assert_null(windows_find(w, a));
	assert_int_equal(windows_get(w, 1, 9, 4096, true, &c, &n, &is_new, &err), 0);
	assert_true(c == 0); /* the gap */
	for (uint64_t i = 0; w->n < POD_DISKS_MAX; i++)
		assert_int_equal(windows_get(w, 2, i, 1 << 20, true, &c, &n, &is_new, &err), 0);
	assert_int_equal(windows_get(w, 3, 1, 1, true, &c, &n, &is_new, &err), -ENOSPC);
	for (size_t i = 1; i < w->n; i++)
		assert_true(w->slots[i - 1].first + w->slots[i - 1].sectors <= w->slots[i].first);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_windows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
