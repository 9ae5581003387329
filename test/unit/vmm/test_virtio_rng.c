/* Random bytes for the guest, and no more of them than it may have in a while. */
#include "test/lib/unit.h"
#include "test/lib/vmm_driver.h"

#include "base/util.h"
#include "vmm/dev/rng.h"

static struct loop *loop;
static struct virtio_rng rng;
static struct driver d;

static unsigned used(void)
{
	uint32_t head, len;
	unsigned n = 0;

	while (driver_used(&d.rings[0], &head, &len)) {
		assert_int_equal(len, 32);
		n++;
	}
	return n;
}

static void test_rate(void **state)
{
	const struct driver_buf b = { DATA_BASE, 32, true };
	uint64_t end = now_mono_ns() + 5 * RNG_PERIOD_NS;
	unsigned n = 0;

	assert_int_equal(loop_new(&loop, NULL), 0);
	virtio_rng_init(&rng, loop);
	driver_init(&d, &rng.dev, 8, virtio_features(&rng.dev) & ~VIRTIO_F_EVENT_IDX);
	/* As fast as a driver can: it gets what is due, and the rest later without another kick. */
	while (now_mono_ns() < end) {
		driver_add(&d.rings[0], &b, 1);
		driver_kick(&d, 0);
		if (used() == 0)
			break;
		n++;
	}
	assert_int_equal(n, RNG_REQUESTS);
	assert_true(now_mono_ns() < end);
	assert_true(loop_once(loop, 1000) > 0);
	assert_int_equal(used(), 1);
	driver_add(&d.rings[0], &b, 1);
	driver_kick(&d, 0);
	assert_int_equal(used(), 1);
	driver_fini(&d);
	virtio_rng_fini(&rng);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
