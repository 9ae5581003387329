#include "test/lib/unit.h"

#include <errno.h>

#include "vmm/guestmem.h"

static _Alignas(16) uint8_t low[0x1000], high[0x2000];

static void fill(struct guestmem *m)
{
	struct guest_region a;
	struct guest_region b;

	guestmem_init(m);
	a = (struct guest_region){ .gpa = 0x1000, .size = 0x1000, .host = low, .user = 0x7000 };
	b = (struct guest_region){
		.gpa = 0x100000000, .size = 0x2000, .host = high, .readonly = true, .user = 0x9000
	};
	assert_int_equal(guestmem_add(m, &a), 0);
	assert_int_equal(guestmem_add(m, &b), 0);
}

static void test_lookup(void **state)
{
	struct guestmem m;

	fill(&m);
	assert_ptr_equal(guestmem_at(&m, 0x1000, 0x1000, GUEST_WRITE), low);
	assert_ptr_equal(guestmem_at(&m, 0x1fff, 1, GUEST_READ), low + 0xfff);
	assert_ptr_equal(guestmem_at(&m, 0x100001000, 0x1000, GUEST_READ), high + 0x1000);
	assert_null(guestmem_at(&m, 0xfff, 1, GUEST_READ));
	assert_null(guestmem_at(&m, 0x2000, 1, GUEST_READ));
	assert_null(guestmem_at(&m, 0x1fff, 2, GUEST_READ));
	assert_null(guestmem_at(&m, 0x1000, 0, GUEST_READ));
	assert_null(guestmem_at(&m, 0x1800, UINT64_MAX, GUEST_READ));
	assert_null(guestmem_at(&m, UINT64_MAX, 2, GUEST_READ));
	assert_null(guestmem_at(&m, 0x1000, UINT64_MAX - 0xfff, GUEST_READ));
	assert_null(guestmem_at(&m, 0x100000000, 1, GUEST_WRITE)); /* read-only */
}

static void test_refused(void **state)
{
	struct guestmem m;
	struct guest_region r;

	fill(&m);
	r = (struct guest_region){ .gpa = 0x1800, .size = 0x1000, .host = low };
	assert_int_equal(guestmem_add(&m, &r), -EEXIST);
	r.gpa = 0;
	r.size = 0x1001;
	assert_int_equal(guestmem_add(&m, &r), -EEXIST);
	r.size = 0;
	assert_int_equal(guestmem_add(&m, &r), -EINVAL);
	r.gpa = UINT64_MAX - 1;
	r.size = 16;
	assert_int_equal(guestmem_add(&m, &r), -EINVAL);
	r.gpa = 0x5000;
	r.size = UINT64_MAX - 0x6000;
	assert_int_equal(guestmem_add(&m, &r), -EINVAL);
	r.size = 0x10;
	r.gpa = 0x5008; /* aligned otherwise than its memory */
	assert_int_equal(guestmem_add(&m, &r), -EINVAL);
	r.gpa = 0x5000;
	for (int i = 0; i < GUESTMEM_REGIONS_MAX - 2; i++, r.gpa += 0x10)
		assert_int_equal(guestmem_add(&m, &r), 0);
	assert_int_equal(guestmem_add(&m, &r), -ENOSPC);
}

static void test_user(void **state)
{
	struct guestmem m;
	uint64_t gpa = 42;

	fill(&m);
	assert_int_equal(guestmem_user_to_gpa(&m, 0x7010, 16, &gpa), 0);
	assert_int_equal(gpa, 0x1010);
	assert_int_equal(guestmem_user_to_gpa(&m, 0x9fff, 1, &gpa), 0);
	assert_true(gpa == 0x100000fff);
	assert_int_equal(guestmem_user_to_gpa(&m, 0x7fff, 2, &gpa), -EFAULT);
	assert_int_equal(guestmem_user_to_gpa(&m, 0x6fff, 1, &gpa), -EFAULT);
	assert_int_equal(guestmem_user_to_gpa(&m, UINT64_MAX, 1, &gpa), -EFAULT);
	assert_true(gpa == 0x100000fff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lookup),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
