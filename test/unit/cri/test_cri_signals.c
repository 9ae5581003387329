/* Names and numbers of signals, as images and CRI write them. */
#include "test/lib/unit.h"

#include <errno.h>

#include "base/util.h"
#include "cri/rpc/signals.h"

static void signals(void **state)
{
	static const struct {
		const char *s;
		int n;
	} good[] = { { "SIGTERM", 15 },	 { "term", 15 },    { "9", 9 },
		     { "SIGRTMIN", 34 }, { "RTMIN+3", 37 }, { "SIGRTMAX-1", 63 },
		     { "SIGRTMAX", 64 }, { "64", 64 },	    { "SIGUSR2", 12 },
		     { "sigint", 2 } };
	static const char *const bad[] = { "",	      "SIG",	"0",	   "65",
					   "-1",      "NOPE",	"RTMIN-1", "RTMIN+31",
					   "RTMAX+1", "RTMIN+", "15 ",	   "SIGSIGTERM" };
	int n;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(signal_parse(good[i].s, &n), 0);
		assert_int_equal(n, good[i].n);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(signal_parse(bad[i], &n), -EINVAL);
	assert_int_equal(signal_of_cri(CRI__SIGNAL__SIGNAL_SIGTERM), 15);
	assert_int_equal(signal_of_cri(CRI__SIGNAL__SIGNAL_SIGXFSZ), 25);
	assert_int_equal(signal_of_cri(CRI__SIGNAL__SIGNAL_SIGRTMAX), 64);
	assert_int_equal(signal_of_cri(0), 0);
	assert_int_equal(signal_of_cri(1000), 0);
	for (int i = 1; i <= 64; i++) {
		Cri__Signal s = signal_to_cri(i);
		if (i != 32 && i != 33) /* the C library's own */
			assert_int_equal(signal_of_cri(s), i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
