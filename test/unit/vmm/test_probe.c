/*
 * The probe: what each way for its guest to end means, and that it decides on this host, quickly
 * and the same way twice.
 */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/backend/probe.h"

static struct probe_result res;

static const char *judge(const struct probe_verdict *v)
{
	res = (struct probe_result){ 0 };
	probe_judge(v, &res);
	return res.reason;
}

/* The whole guest in `ms`. */
static struct probe_verdict done_in(uint64_t ms)
{
	return (struct probe_verdict){ .stage = PROBE_DONE,
				       .exit_reason = KVM_EXIT_IO,
				       .loop_ns = ms * NS_PER_MS };
}

static void test_usable(void **state)
{
	struct probe_verdict v = done_in(1);

	assert_string_equal(judge(&v), "KVM runs kernel code at 2000 M instructions/s");
	assert_true(res.usable);
	assert_string_equal(res.fix, "");
	/* The slowest that will do: two instructions a turn. */
	v = done_in(199);
	(void)judge(&v);
	assert_true(res.usable);
}

static void test_too_slow(void **state)
{
	struct probe_verdict v = done_in(201);

	assert_text(judge(&v), "at 10.0 M instructions/s, emulated");
	assert_false(res.usable);
	assert_text(res.fix, "nested virtualisation");
	/* Stopped at the deadline, in the loop: what it has done until then counts. */
	v = (struct probe_verdict){ .stage = PROBE_LOOP,
				    .exit_reason = KVM_EXIT_INTR,
				    .turns_left = PROBE_LOOP_TURNS - 100000,
				    .loop_ns = 200 * NS_PER_MS };
	assert_text(judge(&v), "at 1.0 M instructions/s, emulated");
	assert_false(res.usable);
	/* Fast in the loop, but it never came to its end. */
	v = (struct probe_verdict){ .stage = PROBE_INT3,
				    .exit_reason = KVM_EXIT_INTR,
				    .loop_ns = NS_PER_MS };
	(void)judge(&v);
	assert_false(res.usable);
}

static void test_wrong(void **state)
{
	struct probe_verdict v = { .error = EBUSY, .what = "KVM_CREATE_VM" };

	assert_string_equal(judge(&v),
			    "KVM does not start a guest: KVM_CREATE_VM: Device or resource busy");
	assert_false(res.usable);
	assert_text(res.fix, "qemu backend");
	v = (struct probe_verdict){ .stage = PROBE_XSAVE,
				    .exit_reason = KVM_EXIT_INTERNAL_ERROR,
				    .suberror = 1,
				    .loop_ns = NS_PER_MS };
	assert_text(judge(&v), "KVM cannot run XSAVE/XRSTOR in kernel mode (internal error 1)");
	assert_false(res.usable);
	v = (struct probe_verdict){ .stage = PROBE_INT3,
				    .exit_reason = KVM_EXIT_SHUTDOWN,
				    .loop_ns = NS_PER_MS };
	assert_text(judge(&v),
		    "runs the probe guest wrongly: the INT3 instruction ended with exit 8");
	assert_false(res.usable);
	/* The right exit, but not where the guest ends. */
	v = done_in(1);
	v.stage = PROBE_INT3;
	(void)judge(&v);
	assert_false(res.usable);
	/* No time at all is no reason to divide by it. */
	v = done_in(0);
	(void)judge(&v);
	assert_true(res.usable);
}

/* What /dev/kvm itself says decides what the answer can be. */
static void test_this_host(void **state)
{
	cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int error = errno;
	struct probe_result p, again;
	uint64_t start = now_mono_ns(), ms;

	probe_kvm(&p);
	ms = (now_mono_ns() - start) / NS_PER_MS;
	print_message("[ figure   ] probe: %s after %llu ms: %s\n",
		      p.usable ? "usable" : "not usable", (unsigned long long)ms, p.reason);
	assert_true(ms < 2 * PROBE_DEADLINE_MS);
	if (kvm >= 0) {
		/* The probe was at it: nothing of the kind "it is not there". */
		assert_text(p.reason, "KVM");
		assert_null(strstr(p.reason, "/dev/kvm:"));
	} else if (error == EACCES || error == EPERM) {
		assert_string_equal(p.reason, "/dev/kvm: no permission");
	} else {
		assert_string_equal(p.reason, "no /dev/kvm on this host");
	}
	if (kvm < 0)
		assert_false(p.usable);
	assert_int_equal(p.usable, str_starts(p.reason, "KVM runs kernel code at ") &&
					   !strstr(p.reason, "emulated"));
	assert_int_equal(p.usable, p.fix[0] == '\0');
	/* Nothing is left behind by the first that would change the second. */
	probe_kvm(&again);
	assert_int_equal(again.usable, p.usable);
	assert_string_equal(again.fix, p.fix);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usable),
		cmocka_unit_test(test_too_slow),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_this_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
