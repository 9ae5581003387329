/* What a guest gives to all that run in it: its clocks, its kernel's parameters. Only in a VM. */
#include "test/lib/unit.h"
#include "test/lib/agent_requests.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
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

/* A pod of as many containers as there may be, each with two layers of its own: beyond the 255
 * partitions that a kernel gives a disk without our patch. */
static void test_many_containers(void **state)
{
	struct setup s;
	char *out, id[16];
	int n = MIN_OF(MORE_DISKS / 2, (int)POD_CONTAINERS_MAX);

	for (int i = 0; i < (int)POD_CONTAINERS_MAX; i++) {
		request_container(&s, "exec sleep 1000");
		snprintf(id, sizeof(id), "many%d", i);
		s.req.id = id;
		s.rootfs.upper = NULL;
		s.req.n_mounts = 0;
		s.req.n_masked_paths = s.req.n_readonly_paths = 0;
		request_disk(&s.base, DISK_MORE(2 * (i % n)), true);
		request_disk(&s.top, DISK_MORE(2 * (i % n) + 1), true);
		do_create(&s);
		if (i % 16 == 0 || i == (int)POD_CONTAINERS_MAX - 1)
			do_start_ok(id);
	}
	request_container(&s, "true");
	assert_int_equal(drive_code(&drv, "CreateContainer", &s.req), -EINVAL);
	for (int i = 0; i < (int)POD_CONTAINERS_MAX; i++) {
		snprintf(id, sizeof(id), "many%d", i);
		if (i % 16 == 0 || i == (int)POD_CONTAINERS_MAX - 1) {
			assert_int_equal(do_kill(id, "", SIGKILL, false), 0);
			(void)drive_exit(&drv, id, "");
		}
		do_remove(id);
	}
	out = run_script("echo room", NULL);
	assert_string_equal(out, "room\n");
}

static void set_disk_room(bool full)
{
	Agent__SetDiskRoomRequest req = AGENT__SET_DISK_ROOM_REQUEST__INIT;

	req.full = full;
	if (drive_code(&drv, "SetDiskRoom", &req) < 0)
		fail_msg("SetDiskRoom: %s", err_text(&drv.err));
}

/* A host without room is a disk that is full for its containers, root or not; what was written
 * before goes out, and when there is room they go on as if nothing had been. */
static void test_disk_room(void **state)
{
	struct setup s, late;
	char *out;

	start_idle(&s);
	out = exec_script(s.id, "a", "dd if=/dev/zero of=/old bs=64k count=16 2>&1 && echo old");
	assert_text(out, "old");
	set_disk_room(true);
	set_disk_room(true);
	out = exec_script(
		s.id, "b",
		"exec 2>&1; dd if=/dev/zero of=/new bs=64k count=16; echo $?; "
		"dd if=/dev/zero of=/old bs=64k count=8 conv=notrunc,fsync && echo over; "
		"sync && echo synced; cat /old | wc -c; df -k / | awk 'END { print $4 }'");
	assert_text(out, "No space left on device");
	assert_text(out, "\n1\n");
	assert_text(out, "over\n");
	assert_text(out, "synced\n1048576\n0\n");
	assert_null(strstr(out, "nput/output"));
	/* A container that is to write cannot come. */
	request_container(&late, "true");
	assert_int_equal(drive_code(&drv, "CreateContainer", &late.req),
			 -ENOBUFS); /* the code of the RPC */
	assert_text(err_text(&drv.err), "no space left on the host");
	set_disk_room(false);
	out = exec_script(
		s.id, "c",
		"exec 2>&1; dd if=/dev/zero of=/new bs=64k count=32 conv=fsync && echo new; "
		"df -k / | awk 'END { print ($4 > 0) }'");
	assert_text(out, "new\n1\n");
	do_create(&late);
	do_start_ok(late.id);
	(void)drive_exit(&drv, late.id, "");
	do_remove(late.id);
	stop_idle(&s);
}

int agent_guest(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_many_containers),
		cmocka_unit_test(test_disk_room),
	};

	return _cmocka_run_group_tests(name, tests, ARRAY_SIZE(tests), NULL, NULL);
}
