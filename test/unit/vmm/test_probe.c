/* The probe decides quickly, whatever this host's KVM is, and says why. */
#include "test/lib/unit.h"

#include <unistd.h>

#include "base/util.h"
#include "vmm/backend/probe.h"

static void test_decides(void **state)
{
	struct probe_result p;
	uint64_t start = now_mono_ns();
	probe_kvm(&p);
	uint64_t ms = (now_mono_ns() - start) / NS_PER_MS;

	print_message("[ figure   ] probe: %s after %llu ms: %s\n",
		      p.usable ? "usable" : "not usable", (unsigned long long)ms, p.reason);
	assert_true(ms < 500);
	assert_true(p.reason[0] != '\0');
	if (p.usable)
		assert_string_equal(p.fix, "");
	else
		assert_true(p.fix[0] != '\0');
	if (access("/dev/kvm", F_OK) < 0)
		assert_text(p.reason, "no /dev/kvm");
}

/* The same answer again: nothing is left behind by the first. */
static void test_again(void **state)
{
	struct probe_result a, b;
	probe_kvm(&a);
	probe_kvm(&b);
	assert_int_equal(a.usable, b.usable);
	assert_string_equal(a.fix, b.fix);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decides),
		cmocka_unit_test(test_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
