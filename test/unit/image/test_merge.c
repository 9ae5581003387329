/* Which layers become one disk. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "image/limits.h"
#include "image/manifest.h"
#include "image/job/merge.h"

static struct manifest_layer layers[IMAGE_MAX_LAYERS + 1];
static char ids[IMAGE_MAX_LAYERS + 1][DIGEST_LEN + 1];
static char *diff_ids[IMAGE_MAX_LAYERS + 2];
static struct layer_group groups[MERGE_MAX_DISKS];

static size_t plan(size_t n)
{
	size_t made = 0, at = 0;

	assert_int_equal(merge_plan(layers, diff_ids, n, groups, &made), 0);
	for (size_t k = 0; k < made; k++) {
		assert_int_equal(groups[k].first, at);
		assert_true(groups[k].n > 0);
		assert_true(digest_valid(groups[k].id));
		at += groups[k].n;
	}
	assert_int_equal(at, n);
	return made;
}

static void few(void **state)
{
	assert_int_equal(plan(0), 0);
	for (size_t n = 1; n <= MERGE_MAX_DISKS; n++) {
		assert_int_equal(plan(n), n);
		assert_string_equal(groups[n - 1].id, diff_ids[n - 1]);
	}
}

static void many(void **state)
{
	char id[DIGEST_LEN + 1];
	size_t made;

	for (size_t n = MERGE_MAX_DISKS + 1; n <= IMAGE_MAX_LAYERS; n++)
		assert_int_equal(plan(n), MERGE_MAX_DISKS);
	assert_int_equal(merge_plan(layers, diff_ids, IMAGE_MAX_LAYERS + 1, groups, &made), -EFBIG);
	/* the large ones stay alone */
	layers[0].size = layers[9].size = layers[20].size = 1000 * MIB;
	(void)plan(40);
	assert_int_equal(groups[0].n, 1);
	for (size_t k = 0; k < MERGE_MAX_DISKS; k++)
		if (groups[k].first == 9 || groups[k].first == 20)
			assert_int_equal(groups[k].n, 1);
	assert_string_equal(groups[0].id, diff_ids[0]);
	layers[0].size = layers[9].size = layers[20].size = 5;
	/* equal sizes: the lowest two */
	for (size_t k = 0; k < 17; k++)
		layers[k].size = 7;
	assert_int_equal(plan(17), 16);
	assert_int_equal(groups[0].n, 2);
	memcpy(id, groups[0].id, sizeof(id));
	/* the same layers with another below are another disk */
	layers[0].size = 100;
	diff_ids[0] = ids[60];
	memmove(&diff_ids[1], &diff_ids[0], sizeof(diff_ids[0]) * 2);
	assert_int_equal(plan(17), 16);
	assert_int_equal(groups[1].first, 1);
	assert_int_equal(groups[1].n, 2);
	assert_string_not_equal(groups[1].id, id);
}

static int setup(void **state)
{
	for (size_t k = 0; k <= IMAGE_MAX_LAYERS; k++) {
		layers[k].size = (k * 37) % 101;
		snprintf(ids[k], sizeof(ids[k]), "sha256:%064zx", k);
		diff_ids[k] = ids[k];
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(few, setup),
		cmocka_unit_test_setup(many, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
