/* What a guest gives to all that run in it: its clocks, its kernel's parameters. Only in a VM. */
#include "test/lib/unit.h"
#include "test/lib/agent_requests.h"

#include <stdlib.h>

#include "base/util.h"

static int64_t guest_realtime(void)
{
	char *out = run_script("date +%s", NULL);

	return strtoll(out, NULL, 10);
}

static int64_t guest_uptime_ms(void)
{
	char *out = run_script("cut -d' ' -f1 /proc/uptime", NULL);

	return (int64_t)(strtod(out, NULL) * 1000);
}

/* The wall clock goes where the host says, forth and back; the monotonic one only forth. */
static void test_clock(void **state)
{
	static const int64_t days[] = { 300, 1, 1000, 500 };
	Agent__SetClockRequest req = AGENT__SET_CLOCK_REQUEST__INIT;
	int64_t up = 0, now, diff;

	for (size_t i = 0; i < ARRAY_SIZE(days); i++) {
		req.realtime_ns = days[i] * 86400 * (int64_t)NS_PER_S;
		assert_int_equal(drive_code(&drv, "SetClock", &req), 0);
		diff = guest_realtime() - days[i] * 86400;
		assert_in_range(diff, 0, 20);
		now = guest_uptime_ms();
		assert_true(now >= up);
		up = now;
	}
	/* Little is not worth a jump: the clock does not go back by it. */
	req.realtime_ns = now_real_ns();
	assert_int_equal(drive_code(&drv, "SetClock", &req), 0);
	now = guest_realtime();
	req.realtime_ns = now_real_ns() - 300 * (int64_t)NS_PER_MS;
	assert_int_equal(drive_code(&drv, "SetClock", &req), 0);
	assert_true(guest_realtime() >= now);
	diff = guest_realtime();
	assert_in_range(now_real_ns() / (int64_t)NS_PER_S + 1 - diff, 0, 20);
}

/* Kernel parameters and limits as on a node, in a guest of 512 MiB; the rights that kubelet calls
 * safe. */
static void test_defaults(void **state)
{
	struct setup s;
	char *out;

	out = run_script(
		"cd /proc/sys; for f in fs/inotify/max_user_watches "
		"fs/inotify/max_user_instances kernel/threads-max kernel/pid_max "
		"net/core/somaxconn net/ipv4/ip_unprivileged_port_start; do "
		"echo $(cat $f); done; ulimit -u; ulimit -i;"
		"[ $(cat fs/file-max) -ge 1000000 ] && echo files",
		NULL);
	assert_string_equal(out,
			    "1048576\n8192\n4194304\n4194304\n4096\n0\nunlimited\n127000\n"
			    "files\n");
	request_container(&s,
			  "cat /proc/sys/net/ipv4/ping_group_range;"
			  "nc -l -p 80 >/dev/null & sleep 0.3; kill -0 $! && echo port 80");
	s.user.uid = s.user.gid = 1000;
	s.caps.bounding = s.caps.effective = s.caps.permitted = 0;
	assert_string_equal(run_to_end(&s, NULL), "0\t2147483647\nport 80\n");
}

int agent_guest(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_defaults),
	};

	return _cmocka_run_group_tests(name, tests, ARRAY_SIZE(tests), NULL, NULL);
}
