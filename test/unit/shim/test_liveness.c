/* Whether a pod lives: who is asked, who may be late, and what ends a VM; and the guest's clock,
 * which goes with it. Against a VM that pretends in this program (fake_vm.h), in short times. */
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/shim/fake_vm.h"
#include "test/lib/shim/sandbox_fixture.h"
#include "test/lib/tmpdir.h"

static const struct liveness_times quick = { .period_ms = 60, .timeout_ms = 40 };

static void on_exited(const Agent__ExitEvent *ev, void *arg)
{
}

static void on_oom(const char *id, void *arg)
{
}

static void on_nothing(void *arg)
{
}

static void on_died(uint32_t status, const char *why, void *arg)
{
}

static void on_disk_room(const Vmm__DiskRoom *room, void *arg)
{
}

static void on_trouble(const char *what, const struct err *err, void *arg)
{
	fail_msg("%s: %s", what, err ? err_text(err) : "");
}

static const struct sandbox_ops ops = {
	.exited = on_exited,
	.oom = on_oom,
	.ready = on_nothing,
	.died = on_died,
	.ended = on_nothing,
	.pids_changed = on_nothing,
	.disk_room = on_disk_room,
	.trouble = on_trouble,
};

static int set_up(void **state)
{
	sandbox_fixture_begin(&ops);
	setup.liveness = &quick;
	return 0;
}

static int tear_down(void **state)
{
	sandbox_fini(&sb);
	sandbox_fixture_end();
	return 0;
}

static void up(void)
{
	struct err err = { 0 };

	assert_ok(sandbox_prepare(&sb, NULL, &err), &err);
	assert_ok(sandbox_start(&sb, &err), &err);
	for (int i = 0; i < 100 && sb.state != SB_READY; i++)
		assert_true(loop_once(loop, 5) >= 0);
	assert_int_equal(sb.state, SB_READY);
}

/* Both are asked, once a period, and live. */
static void test_alive(void **state)
{
	up();
	run_for(650);
	assert_int_equal(sb.state, SB_READY);
	assert_true(fake.pings >= 4 && fake.pings <= 11);
	assert_int_equal(fake.pings, fake.infos);
	assert_string_equal(fake.killed, "-");
	assert_string_equal(fake.asked, "CreateSandbox");
	/* Who is asked to go is not asked whether he lives. */
	sandbox_stop(&sb);
	fake.pings = 0;
	run_for(150);
	assert_int_equal(sb.state, SB_STOPPED);
	assert_int_equal(fake.pings, 0);
}

/* A guest that hangs with no call open. The reason names who, how long, and the guest's words. */
static void test_agent_hangs(void **state)
{
	static const char words[] =
		"[ 1.0] watchdog: BUG: soft lockup - CPU#0 stuck\n"
		"[ 1.1] Kernel panic - not syncing: hung\n";

	up();
	assert_int_equal(write(fake.console, words, sizeof(words) - 1), sizeof(words) - 1);
	fake.hold = "Ping";
	run_for(600);
	assert_int_equal(sb.state, SB_STOPPED);
	assert_string_equal(fake.killed, "agent died: no answer for 0 s");
	assert_text(sb.why, "agent died: no answer for 0 s: guest: Kernel panic");
	assert_int_equal(fake.pings, LIVENESS_LOST_MAX);
}

static void test_monitor_hangs(void **state)
{
	up();
	fake_monitor_deaf(true);
	run_for(600);
	assert_int_equal(sb.state, SB_STOPPED);
	assert_string_equal(fake.killed, "monitor died: no answer for 0 s");
}

/* With KVM the guest hangs with the monitor: that is who is named. */
static void test_both_hang(void **state)
{
	up();
	fake_monitor_deaf(true);
	fake.hold = "Ping";
	run_for(600);
	assert_int_equal(sb.state, SB_STOPPED);
	assert_string_equal(fake.killed, "monitor died: no answer for 0 s");
}

/* Stopped for a while, each of them: fewer lost in a row than it takes. */
static void test_stopped_for_a_while(void **state)
{
	up();
	for (int i = 0; i < 4; i++) {
		fake.hold = "Ping";
		fake_monitor_deaf(true);
		run_for(90);
		fake.hold = NULL;
		fake_monitor_deaf(false);
		while (fake_held())
			fake_answer();
		run_for(120);
	}
	assert_int_equal(sb.state, SB_READY);
	assert_string_equal(fake.killed, "-");
}

/* The shim itself was stopped, or starved, or the host slept: all time was over at once. */
static void test_shim_stopped(void **state)
{
	up();
	for (int i = 0; i < 5; i++) {
		run_for(70); /* asked */
		(void)usleep(300 * 1000);
	}
	run_for(100);
	assert_int_equal(sb.state, SB_READY);
	assert_string_equal(fake.killed, "-");
}

/* Work that takes long: the call fails, the pod lives, and a late answer harms nobody. */
static int late_code;

static void on_late(const struct ttrpc_result *res, void *arg)
{
	late_code = res->code;
}

static void on_unmapped(int code, const struct err *err, const Vmm__Packet *p, void *arg)
{
	late_code = code;
}

static void test_work_is_late(void **state)
{
	up();
	late_code = 1;
	fake.hold = "Ping";
	assert_int_equal(agent_ping(sb.agent, 20, on_late, NULL), 0);
	run_for(50);
	assert_int_equal(late_code, -ETIMEDOUT);
	fake.hold = NULL;
	while (fake_held())
		fake_answer();
	run_for(200);
	assert_int_equal(sb.state, SB_READY);
	/* The monitor: one request is given up, later ones are answered in their order. */
	fake_monitor_deaf(true);
	late_code = 1;
	assert_int_equal(vmctl_ping(sandbox_ctl(&sb), 20, on_unmapped, NULL), 0);
	run_for(35);
	assert_int_equal(late_code, -ETIMEDOUT);
	late_code = 1;
	assert_int_equal(vmctl_unmap(sandbox_ctl(&sb), 8, on_unmapped, NULL), 0);
	run_for(40);
	assert_int_equal(late_code, 1);
	fake_monitor_deaf(false);
	run_for(100);
	assert_int_equal(late_code, -ENOENT); /* its own answer, not that of the one before */
	assert_int_equal(sb.state, SB_READY);
}

/* The guest's clock is set when the pod is up and with each beat; a time that arrived late is sent
 * again, and a guest that is always late costs a bounded number of calls. */
static void test_clock(void **state)
{
	unsigned n;

	up();
	run_for(20);
	assert_int_equal(fake.clocks, 1);
	assert_true(llabs(fake.clock_ns - now_real_ns()) < (long long)NS_PER_S);
	run_for(200);
	assert_true(fake.clocks >= 2 && fake.clocks <= fake.pings + 1);
	fake.hold = "SetClock";
	n = fake.clocks;
	run_for(400);
	assert_int_equal(fake.clocks, n + 1); /* one at a time */
	fake.hold = NULL;
	fake.clock_ns = 0;
	fake_answer();
	run_for(30);
	assert_true(llabs(fake.clock_ns - now_real_ns()) < (long long)NS_PER_S);
}

/* The kernel's notice that the host's clock was set leads to a set at once. (An eventfd stands for
 * the timer: no test steps the clock of the machine it runs on; test/e2e does where it may.) */
static void test_clock_is_set(void **state)
{
	static const struct liveness_times never = { .period_ms = 1000000, .timeout_ms = 1000 };
	cleanup_fd int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t one = 1;
	void (*cb)(struct ev_io *, uint32_t);

	setup.liveness = &never;
	up();
	run_for(20);
	assert_int_equal(fake.clocks, 1);
	cb = sb.clock.io.cb;
	cb(&sb.clock.io, EPOLLIN); /* nothing was to be read after all */
	run_for(20);
	assert_int_equal(fake.clocks, 1);
	assert_int_equal(dup2(event, sb.clock.fd), sb.clock.fd);
	assert_int_equal(write(event, &one, sizeof(one)), sizeof(one));
	cb(&sb.clock.io, EPOLLIN);
	run_for(20);
	assert_int_equal(fake.clocks, 2);
}

/* A guest that could not be told of the host's disk is told with the next beat. */
static void test_disk_room_again(void **state)
{
	up();
	fake.refuse = "SetDiskRoom";
	fake_disk_room(true);
	run_for(200);
	assert_true(fake.rooms >= 2 && fake.rooms <= fake.pings + 2);
	fake.refuse = NULL;
	run_for(100);
	fake.rooms = 0;
	run_for(200);
	assert_int_equal(fake.rooms, 0);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_alive),
		TEST(test_agent_hangs),
		TEST(test_monitor_hangs),
		TEST(test_both_hang),
		TEST(test_stopped_for_a_while),
		TEST(test_shim_stopped),
		TEST(test_work_is_late),
		TEST(test_clock),
		TEST(test_clock_is_set),
		TEST(test_disk_room_again),
	};

	return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
