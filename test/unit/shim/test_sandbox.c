/* The sandbox alone: its states, who is told what and in which order, windows; against a VM that
 * pretends in this program (fake_vm.h). */
#include "test/lib/unit.h"

#include <errno.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/shim/fake_vm.h"
#include "test/lib/shim/sandbox_fixture.h"
#include "test/lib/tmpdir.h"

static char heard[400]; /* the ops that were called, oldest first */

static void hear(const char *what, const char *more)
{
	size_t n = strlen(heard);

	(void)snprintf(heard + n, sizeof(heard) - n, "%s%s%s%s%s", n ? " " : "", what,
		       more ? "(" : "", more ? more : "", more ? ")" : "");
}

static void sandbox_exited(const Agent__ExitEvent *ev, void *arg)
{
	hear("exited", ev->id);
}

static void sandbox_oom(const char *id, void *arg)
{
	hear("oom", id);
}

static void sandbox_ready(void *arg)
{
	hear("ready", NULL);
}

static void sandbox_died(uint32_t status, const char *why, void *arg)
{
	char text[300];

	/* Whoever is told finds the sandbox as it is from now on. */
	assert_int_equal(sb.state, SB_STOPPED);
	assert_null(sb.agent);
	(void)snprintf(text, sizeof(text), "%u:%s", status, why);
	hear("died", text);
}

static void sandbox_ended(void *arg)
{
	hear("ended", NULL);
}

static void sandbox_pids_changed(void *arg)
{
	hear("pids", NULL);
}

static void sandbox_disk_room(const Vmm__DiskRoom *room, void *arg)
{
	hear(room->full ? "full" : "room", NULL);
}

static void sandbox_trouble(const char *what, const struct err *err, void *arg)
{
	hear("trouble", what);
}

static const struct sandbox_ops ops = {
	.exited = sandbox_exited,
	.oom = sandbox_oom,
	.ready = sandbox_ready,
	.died = sandbox_died,
	.ended = sandbox_ended,
	.pids_changed = sandbox_pids_changed,
	.disk_room = sandbox_disk_room,
	.trouble = sandbox_trouble,
};

/* Somebody who waits. */
struct waiter {
	const char *name;
	bool done;
	int code;
	struct err err;
};

static void waiter_on_run(void *arg, int code, const struct err *err)
{
	struct waiter *w = arg;

	assert_false(w->done);
	w->done = true;
	w->code = code;
	w->err = *err;
	hear(w->name, NULL);
}

static void wait_stopped(struct waiter *w)
{
	assert_int_equal(waits_add(&sb.stopped_waits, waiter_on_run, w), 0);
}

static int set_up(void **state)
{
	heard[0] = 0;
	sandbox_fixture_begin(&ops);
	return 0;
}

static int tear_down(void **state)
{
	sandbox_fini(&sb);
	sandbox_fixture_end();
	return 0;
}

static void turn(void)
{
	for (int i = 0; i < 30; i++)
		assert_true(loop_once(loop, 0) >= 0);
}

static void until(enum sandbox_state state, uint64_t ms)
{
	uint64_t end = now_mono_ns() + ms * NS_PER_MS;

	while (sb.state != state && now_mono_ns() < end)
		assert_true(loop_once(loop, 20) >= 0);
	assert_int_equal(sb.state, state);
}

static void start(void)
{
	struct err err = { 0 };

	assert_ok(sandbox_prepare(&sb, NULL, &err), &err);
	assert_ok(sandbox_start(&sb, &err), &err);
	assert_int_equal(sb.state, SB_STARTING);
}

static void up(void)
{
	start();
	turn();
	assert_int_equal(sb.state, SB_READY);
	heard[0] = 0;
}

static void test_life(void **state)
{
	Cri__PodSandboxConfig cfg = CRI__POD_SANDBOX_CONFIG__INIT;
	static struct waiter ready = { .name = "R" }, late = { .name = "L" }, end = { .name = "E" };
	struct err err = { 0 };

	opts.memory_mib = 300;
	opts.vcpus = 2;
	cfg.hostname = (char *)"web";
	assert_int_equal(sandbox_start(&sb, &err), -EBUSY);
	sandbox_when_ready(&sb, waiter_on_run, &late);
	assert_int_equal(late.code, -EBUSY);
	assert_text(late.err.msg, "not started");
	assert_false(sandbox_in_use(&sb));
	assert_ok(sandbox_prepare(&sb, &cfg, &err), &err);
	assert_true(sandbox_in_use(&sb));
	assert_int_equal(sandbox_prepare(&sb, &cfg, &err), -EBUSY);
	assert_int_equal(sandbox_prepare_implicit(&sb, "x", &err), -EBUSY);
	assert_ok(sandbox_start(&sb, &err), &err);
	assert_int_equal(sandbox_start(&sb, &err), -EBUSY);
	assert_int_equal(fake.config.memory_mib, 300);
	assert_int_equal(fake.config.vcpus, 2);
	assert_int_equal(sandbox_pid(&sb), 4242);
	sandbox_when_ready(&sb, waiter_on_run, &ready);
	assert_false(ready.done);
	wait_stopped(&end);
	heard[0] = 0;
	turn();
	assert_string_equal(heard, "ready R");
	assert_int_equal(ready.code, 0);
	assert_string_equal(sb.kernel_release, "6.0-fake");
	assert_string_equal(fake.hostname, "web");
	assert_text(fake.hosts, "127.0.1.1\tweb\n");
	late.done = false;
	sandbox_when_ready(&sb, waiter_on_run, &late);
	assert_int_equal(late.code, 0);
	/* What the agent says goes on to the owner; a gap in it is told. */
	heard[0] = 0;
	fake_exit("c", "", 3, false);
	fake_lose_event();
	fake_oom("d");
	turn();
	assert_string_equal(heard, "exited(c) trouble(events of the agent are missing) oom(d)");
	/* The guest powers off when asked; nobody kills. */
	heard[0] = 0;
	sandbox_stop(&sb);
	assert_int_equal(sb.state, SB_STOPPING);
	sandbox_stop(&sb);
	until(SB_STOPPED, 1000);
	assert_string_equal(heard, "pids died(137:) E ended");
	assert_int_equal(end.code, 0);
	assert_true(fake.end_expected);
	assert_string_equal(fake.killed, "-");
	assert_int_equal(sandbox_exit_status(&sb), 0);
	assert_false(sandbox_in_use(&sb));
	late.done = false;
	sandbox_when_ready(&sb, waiter_on_run, &late);
	assert_int_equal(late.code, -EBUSY);
	assert_text(late.err.msg, "stopped");
	assert_true(sandbox_end(&sb));
	sandbox_stop(&sb); /* nothing more can happen */
	assert_string_equal(fake.asked, "CreateSandbox Shutdown");
}

/* No VM: the error is kept, and whoever waits for the end has it. */
static void test_no_vm(void **state)
{
	static struct waiter end = { .name = "E" };
	struct err err = { 0 };

	fake.start_error = -ENOEXEC;
	assert_ok(sandbox_prepare_implicit(&sb, "h", &err), &err);
	assert_false(sandbox_in_use(&sb)); /* no service leads it */
	wait_stopped(&end);
	assert_int_equal(sandbox_start(&sb, &err), -ENOEXEC);
	assert_string_equal(err.msg, "start the VM: no monitor today");
	assert_int_equal(sb.state, SB_STOPPED);
	assert_string_equal(sb.why, "no monitor today");
	assert_true(end.done);
	assert_int_equal(sandbox_exit_status(&sb), STATUS_VM_DIED);
	assert_int_equal(sandbox_start(&sb, &err), -EBUSY);
}

static void test_guest_refuses(void **state)
{
	static struct waiter ready = { .name = "R" };

	fake.refuse = "CreateSandbox";
	start();
	sandbox_when_ready(&sb, waiter_on_run, &ready);
	until(SB_STOPPED, 1000);
	assert_int_equal(ready.code, -EIO);
	assert_text(ready.err.msg, "start the VM: set-up of the pod in the guest: refused");
	assert_text(fake.killed, "set-up of the pod in the guest: refused");
	assert_int_equal(sandbox_exit_status(&sb), STATUS_VM_DIED);
}

/* Nothing but the boot was asked of the guest; the VM goes with its reason. */
static void test_no_network(void **state)
{
	static struct waiter ready = { .name = "R" };
	struct err err = { 0 };

	assert_int_equal(sandbox_prepare(&sb, NULL, &err), 0);
	assert_int_equal(sandbox_set_netns(&sb, "/nonexistent", &err), 0);
	assert_int_equal(sandbox_start(&sb, &err), 0);
	sandbox_when_ready(&sb, waiter_on_run, &ready);
	until(SB_STOPPED, 5000);
	assert_int_equal(ready.code, -EIO);
	assert_text(ready.err.msg, "start the VM: the pod's network: /nonexistent: No such file");
	assert_string_equal(fake.asked, "CreateSandbox");
	assert_text(fake.killed, "the pod's network");
}

/* The thread is waited for, and tells nobody any more. */
static void test_end_beside_network(void **state)
{
	struct err err = { 0 };

	assert_int_equal(sandbox_prepare(&sb, NULL, &err), 0);
	assert_int_equal(sandbox_set_netns(&sb, "/nonexistent", &err), 0);
	assert_int_equal(sandbox_start(&sb, &err), 0);
	assert_false(sandbox_end(&sb));
	until(SB_STOPPED, 5000);
	turn();
	assert_string_equal(sb.why, "");
}

static void test_vm_dies(void **state)
{
	static struct waiter end = { .name = "E" };

	up();
	wait_stopped(&end);
	fake_end("guest kernel died or reset");
	turn();
	assert_string_equal(heard, "pids died(255:guest kernel died or reset) E ended");
	assert_int_equal(sandbox_exit_status(&sb), STATUS_VM_DIED);
	assert_null(sandbox_ctl(&sb));
}

/* The guest's own words are part of the reason, and stay to be read. */
static void test_guest_panics(void **state)
{
	static const char text[] =
		"[    0.1] WARNING: early\n"
		"[    1.5] Kernel panic - not syncing: \x1b[31mI am done\r\n"
		"[    1.5] CPU: 0 PID: 1 Comm: vminitd\n";
	static const char why[] =
		"guest reset: guest: Kernel panic - not syncing: \\x1b[31mI am done";
	cleanup_free char *file = NULL;
	struct err err = { 0 };

	up();
	assert_int_equal(write(fake.console, text, sizeof(text) - 1), sizeof(text) - 1);
	fake_end("guest reset");
	until(SB_STOPPED, 1000);
	assert_string_equal(sb.why, why);
	assert_text(heard, why);
	assert_string_equal(console_path(sb.console), console);
	assert_text(console_tail(sb.console, 1000), "WARNING: early\n");
	assert_ok(read_file(console, 4096, &file, NULL, &err), &err);
	assert_text(file, "I am done\n[    1.5] CPU: 0");
}

/* No file for it: the pod comes up all the same. */
static void test_no_console(void **state)
{
	setup.console = "/no/such/directory/console.log";
	start();
	assert_text(heard, "trouble(no console)");
	turn();
	assert_int_equal(sb.state, SB_READY);
	assert_int_equal(fake.config.console_fd, -1);
	fake_end("guest reset");
	until(SB_STOPPED, 1000);
	assert_string_equal(sb.why, "guest reset");
}

/* A VM that ends while it comes up. */
static void test_dies_early(void **state)
{
	static struct waiter ready = { .name = "R" };

	fake.hold = "CreateSandbox";
	start();
	sandbox_when_ready(&sb, waiter_on_run, &ready);
	turn();
	assert_false(ready.done);
	heard[0] = 0;
	fake_end("no kernel");
	turn();
	assert_string_equal(heard, "pids died(255:no kernel) R ended");
	assert_text(ready.err.msg, "start the VM: no kernel");
}

/* Before the first call to the agent is sent: the monitor's words count here, too. */
static void test_boot_fails_at_once(void **state)
{
	static struct waiter ready = { .name = "R" };

	fake.no_channel = true;
	start();
	sandbox_when_ready(&sb, waiter_on_run, &ready);
	turn();
	assert_false(ready.done);
	fake_end("monitor failed: no kernel");
	until(SB_STOPPED, 1000);
	assert_string_equal(sb.why, "monitor failed: no kernel");
	assert_string_equal(fake.killed, "-");
	assert_text(ready.err.msg, "start the VM: monitor failed: no kernel");
}

/* The same, and the monitor says nothing. */
static void test_boot_fails_silently(void **state)
{
	fake.no_channel = true;
	start();
	until(SB_STOPPED, 2000);
	assert_string_equal(sb.why, "agent died: the agent's channel ended");
}

/* The agent's end alone says little: the VM's own reason counts if it comes soon. */
static void test_agent_lost(void **state)
{
	up();
	fake_hang_up();
	turn();
	assert_string_equal(fake.killed, "-");
	fake_end("guest kernel died or reset");
	until(SB_STOPPED, 1000);
	assert_string_equal(sb.why, "guest kernel died or reset");
	assert_string_equal(fake.killed, "-");
}

static void test_agent_lost_alone(void **state)
{
	uint64_t before = now_mono_ns();

	up();
	fake_hang_up();
	until(SB_STOPPED, 2000);
	assert_true(now_mono_ns() - before >= SANDBOX_LOST_NS);
	assert_string_equal(sb.why, "agent died: the agent's channel ended");
}

static void test_never_started(void **state)
{
	static struct waiter end = { .name = "E" };
	struct err err = { 0 };

	assert_ok(sandbox_prepare(&sb, NULL, &err), &err);
	wait_stopped(&end);
	sandbox_stop(&sb);
	assert_true(end.done && sb.state == SB_STOPPED && sb.exited_at > 0);
	assert_string_equal(heard, "E");
	assert_int_equal(sandbox_start(&sb, &err), -EBUSY);
}

/* A guest that ignores the request to power off, and one that is not up yet. */
static void test_force(void **state)
{
	uint64_t before;

	fake.no_shutdown = true;
	up();
	before = now_mono_ns();
	sandbox_stop(&sb);
	turn();
	fake_hang_up(); /* an agent that goes is what was asked for */
	until(SB_STOPPED, 4000);
	assert_true(now_mono_ns() - before >= SANDBOX_STOP_NS);
	assert_string_equal(fake.killed, "");
	assert_string_equal(heard, "pids died(137:) ended");
}

static void test_stop_starting(void **state)
{
	static struct waiter ready = { .name = "R" };

	fake.hold = "CreateSandbox";
	start();
	sandbox_when_ready(&sb, waiter_on_run, &ready);
	sandbox_stop(&sb);
	until(SB_STOPPED, 500);
	assert_int_equal(ready.code, -EIO);
	assert_text(ready.err.msg, "stopped");
	assert_int_equal(sandbox_exit_status(&sb), 0);
}

static void test_end(void **state)
{
	assert_true(sandbox_end(&sb)); /* of nothing */
	assert_int_equal(sb.state, SB_STOPPED);
	sandbox_fini(&sb);
	sandbox_init(&sb, loop, &setup, &ops, NULL);
	up();
	assert_false(sandbox_end(&sb));
	assert_false(sandbox_end(&sb));
	until(SB_STOPPED, 500);
	assert_string_equal(heard, "pids died(137:) ended");
	assert_text(fake.asked, "CreateSandbox");
	assert_null(strstr(fake.asked, "Shutdown")); /* by force */
}

/* The owner goes while everything runs: waiters learn it, the owner is told nothing. */
static void test_fini(void **state)
{
	static struct waiter end = { .name = "E" }, ready = { .name = "R" };

	fake.hold = "CreateSandbox";
	start();
	turn();
	sandbox_when_ready(&sb, waiter_on_run, &ready);
	wait_stopped(&end);
	heard[0] = 0;
	sandbox_fini(&sb);
	assert_string_equal(heard, "R E");
	assert_int_equal(ready.code, -ECANCELED);
	assert_int_equal(end.code, -ECANCELED);
	sandbox_init(&sb, loop, &setup, &ops, NULL);
}

static uint64_t get_any(ino_t ino, bool readonly)
{
	uint64_t first, sectors;
	struct err err = { 0 };
	bool map;

	assert_ok(windows_get(&sb.windows, 1, ino, 4096, readonly, &first, &sectors, &map, &err),
		  &err);
	if (map) /* as a Create does */
		assert_int_equal(sandbox_map_window(&sb, first, 0, NULL, NULL), 0);
	return first;
}

static uint64_t get_window(ino_t ino)
{
	return get_any(ino, true);
}

static void test_windows(void **state)
{
	uint64_t a, b;

	up();
	a = get_window(1);
	assert_int_equal(get_window(1), a);
	turn();
	assert_int_equal(fake.mapped, 1);
	sandbox_put_window(&sb, a, true);
	turn();
	assert_int_equal(fake.unmapped, 0); /* somebody uses it */
	sandbox_put_window(&sb, a, true);
	assert_non_null(windows_find(&sb.windows, a)); /* not before the monitor let go */
	turn();
	assert_int_equal(fake.unmapped, 1);
	assert_null(windows_find(&sb.windows, a));
	/* The guest still has it: its sectors are not given to another one. */
	b = get_window(2);
	turn();
	sandbox_put_window(&sb, b, false);
	turn();
	assert_int_equal(fake.unmapped, 1);
	assert_true(get_window(3) != b);
	assert_int_equal(get_window(2), b); /* there it is still */
	turn();
	assert_int_equal(fake.mapped, 3);
	/* A writable file is the host's again whatever the guest says; its sectors are not. */
	a = get_any(5, false);
	turn();
	sandbox_put_window(&sb, a, false);
	turn();
	assert_int_equal(fake.unmapped, 2);
	assert_non_null(windows_find(&sb.windows, a));
	assert_true(get_any(5, false) != a);
	a = get_any(6, false);
	sandbox_revoke_window(&sb, a); /* while it has users */
	turn();
	assert_int_equal(fake.unmapped, 3);
	sandbox_put_window(&sb, a, true);
	assert_null(windows_find(&sb.windows, a));
	/* What the monitor could not map is not unmapped. */
	fake.refuse_map = true;
	a = get_window(7);
	turn();
	fake.refuse_map = false;
	sandbox_put_window(&sb, a, true);
	turn();
	assert_int_equal(fake.unmap_missed, 0);
	assert_null(windows_find(&sb.windows, a));
	/* A monitor that does not let go. */
	a = get_window(4);
	turn();
	fake.refuse_unmap = true;
	sandbox_put_window(&sb, a, true);
	turn();
	assert_string_equal(heard, "trouble(a disk stays mapped)");
	assert_non_null(windows_find(&sb.windows, a));
}

/* The guest is told once each way, one call at a time, and the last word counts. */
static void test_disk_room(void **state)
{
	start();
	fake_disk_room(true);
	turn(); /* before it was there to be told */
	assert_int_equal(sb.state, SB_READY);
	assert_true(fake.rooms == 1 && fake.disk_full);
	assert_text(heard, "full");
	heard[0] = 0;
	fake_disk_room(true);
	turn();
	assert_int_equal(fake.rooms, 1);
	fake.hold = "SetDiskRoom";
	for (int i = 0; i < 5; i++) {
		fake_disk_room(i % 2);
		turn();
	}
	assert_true(fake.rooms == 2 && !fake.disk_full);
	fake_disk_room(true);
	fake.hold = NULL;
	fake_answer();
	turn();
	assert_true(fake.rooms == 3 && fake.disk_full);
	assert_string_equal(heard, "room full room full room full");
	/* While it ends there is nothing more to say. */
	fake.no_shutdown = true;
	sandbox_stop(&sb);
	fake_disk_room(false);
	turn();
	assert_int_equal(fake.rooms, 3);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_life),
		TEST(test_no_vm),
		TEST(test_guest_refuses),
		TEST(test_no_network),
		TEST(test_end_beside_network),
		TEST(test_vm_dies),
		TEST(test_dies_early),
		TEST(test_agent_lost),
		TEST(test_agent_lost_alone),
		TEST(test_never_started),
		TEST(test_force),
		TEST(test_stop_starting),
		TEST(test_end),
		TEST(test_fini),
		TEST(test_windows),
		TEST(test_boot_fails_at_once),
		TEST(test_boot_fails_silently),
		TEST(test_guest_panics),
		TEST(test_no_console),
		TEST(test_disk_room),
	};

	return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
