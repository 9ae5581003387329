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

#define HUNG_S 8 /* the host ends a pod after 60 s without an answer to its pings */

/* All that other containers may ask for while a call of `who` waits for the disk. */
static void assert_others_go_on(const struct drive_call *who, const struct setup *idle)
{
	uint64_t end = now_mono_ns() + HUNG_S * NS_PER_S;
	Agent__ListProcessesRequest list = AGENT__LIST_PROCESSES_REQUEST__INIT;
	static int n;
	char name[16];
	struct exec e;

	list.id = (char *)idle->id;
	while (now_mono_ns() < end) {
		assert_pings(2000);
		snprintf(name, sizeof(name), "go%d", n++);
		request_exec(&e, idle->id, name, "exec sleep 1000");
		do_exec_ok(&e);
		assert_int_equal(drive_code(&drv, "ListProcesses", &list), 0);
		assert_int_equal(do_kill(idle->id, name, SIGKILL, true), 0);
		assert_int_equal(drive_exit(&drv, idle->id, name)->status, 128 + SIGKILL);
		snprintf(name, sizeof(name), "say%d", n);
		assert_string_equal(exec_script(idle->id, name, "echo there"), "there\n");
		assert_false(drive_answered(&drv, who));
	}
}

/* What runs in it later it has run before: it needs no disk for that. */
static void start_busy(struct setup *s)
{
	start_idle(s);
	assert_string_equal(exec_script(s->id, "warm", "sleep 0; echo there"), "there\n");
	(void)drive_exit(&drv, s->id, "warm");
}

static int thaw(void **state)
{
	if (drv.hang)
		drv.hang(false);
	return 0;
}

static void only_with_hung_disk(void)
{
	if (drv.hang)
		return;
	print_message("skipped: no loop device for a disk that hangs\n");
	skip();
}

/* The host's disk does not answer: the create that needs it waits, nobody else does, and it goes on
 * with the disk. */
static void test_hung_create(void **state)
{
	struct setup idle, s;
	struct drive_call *create;
	char *out;

	only_with_hung_disk();
	start_busy(&idle);
	request_container(&s, "cat /etc/layer; echo x >/new && cat /new");
	request_disk(&s.scratch, DISK_HUNG, false);
	s.stdio.stdout_stream = drv.next_stream++;
	drv.hang(true);
	create = drive_begin(&drv, "CreateContainer", &s.req);
	assert_others_go_on(create, &idle);
	drv.hang(false);
	if (drive_end(&drv, create) < 0)
		fail_msg("create: %s", err_text(&drv.err));
	do_start_ok(s.id);
	out = drive_read_all(drive_stream(&drv, s.stdio.stdout_stream), NULL);
	assert_string_equal(out, "top\nx\n");
	(void)drive_exit(&drv, s.id, "");
	do_remove(s.id);
	stop_idle(&idle);
}

/* A host that gave up waiting removes what may yet come: nothing is left of it. */
static void test_hung_create_removed(void **state)
{
	Agent__RemoveContainerRequest rm = AGENT__REMOVE_CONTAINER_REQUEST__INIT;
	struct drive_call *create, *remove, *second, *second_rm;
	struct setup idle, s, other;

	only_with_hung_disk();
	start_busy(&idle);
	request_container(&s, "true");
	request_disk(&s.scratch, DISK_HUNG, false);
	rm.id = s.id;
	drv.hang(true);
	create = drive_begin(&drv, "CreateContainer", &s.req);
	/* It waits for a disk of the first one. */
	request_container(&other, "true");
	request_disk(&other.scratch, DISK_HUNG, false);
	second = drive_begin(&drv, "CreateContainer", &other.req);
	remove = drive_begin(&drv, "RemoveContainer", &rm);
	assert_others_go_on(remove, &idle);
	assert_false(drive_answered(&drv, second));
	rm.id = other.id;
	second_rm = drive_begin(&drv, "RemoveContainer", &rm);
	assert_int_equal(drive_end(&drv, second_rm), 0);
	assert_int_equal(drive_end(&drv, second), -ECANCELED);
	drv.hang(false);
	assert_int_equal(drive_end(&drv, create), 0);
	assert_int_equal(drive_end(&drv, remove), 0);
	do_create(&s);
	do_remove(s.id);
	stop_idle(&idle);
}

/* The same for a removal: what the container wrote goes to the disk first, and a file that is gone
 * only with the last reference to its root. */
static void test_hung_removal(void **state)
{
	Agent__RemoveContainerRequest rm = AGENT__REMOVE_CONTAINER_REQUEST__INIT;
	struct drive_call *remove;
	struct setup idle, s;
	int out;

	only_with_hung_disk();
	start_busy(&idle);
	request_container(&s,
			  "dd if=/dev/zero of=/a bs=64k count=16 2>/dev/null; exec 5</a; rm /a;"
			  "dd if=/dev/zero of=/b bs=64k count=16 2>/dev/null; echo full;"
			  "exec sleep 1000");
	request_disk(&s.scratch, DISK_HUNG, false);
	s.stdio.stdout_stream = drv.next_stream++;
	out = drive_stream(&drv, s.stdio.stdout_stream);
	do_create(&s);
	do_start_ok(s.id);
	drive_expect(out, "full");
	close(out);
	drv.hang(true);
	assert_int_equal(do_kill(s.id, "", SIGKILL, false), 0);
	(void)drive_exit(&drv, s.id, "");
	rm.id = s.id;
	remove = drive_begin(&drv, "RemoveContainer", &rm);
	assert_others_go_on(remove, &idle);
	drv.hang(false);
	assert_int_equal(drive_end(&drv, remove), 0);
	stop_idle(&idle);
}

int agent_guest(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_many_containers),
		cmocka_unit_test(test_disk_room),
		cmocka_unit_test_teardown(test_hung_create, thaw),
		cmocka_unit_test_teardown(test_hung_create_removed, thaw),
		cmocka_unit_test_teardown(test_hung_removal, thaw),
	};

	return _cmocka_run_group_tests(name, tests, ARRAY_SIZE(tests), NULL, NULL);
}
