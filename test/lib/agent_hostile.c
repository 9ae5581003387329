/* What hostile and unlucky containers do to the guest, to each other, and to what is run in
 * them. */
#include "test/lib/unit.h"
#include "test/lib/agent_requests.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"

#define CAP_SYS_PTRACE_BIT (1ull << 19)
/* A quiet machine takes 50 to 200 ms; a busy one takes a guest's CPU away for some time. */
#define START_MAX_MS 5000

/* /proc/sys without the usual read-only paths: whatever the kernel would start for a container, it
 * would start as the guest's root. */
static void test_helpers(void **state)
{
	struct setup s;
	char *out;

	only_in_vm("it is this host's kernel");
	request_container(
		&s,
		"echo '|/proc/%P/root/bin/busybox touch /proc/%P/root/escaped' "
		">/proc/sys/kernel/core_pattern && echo written\n"
		"ulimit -c unlimited; sleep 1000 & sleep 0.2; kill -SEGV $!; wait $!; sleep 1\n"
		"[ -e /escaped ] && echo escaped\n"
		"for f in /proc/sys/kernel/modprobe /proc/sys/kernel/hotplug "
		"/sys/kernel/uevent_helper; do [ -e $f ] && echo $f; done; echo end");
	s.req.n_readonly_paths = s.req.n_masked_paths = 0;
	out = run_to_end(&s, NULL);
	assert_string_equal(out, "written\nend\n");
	/* Leave it as it was: others dump cores, too. */
	request_container(&s, "echo core >/proc/sys/kernel/core_pattern");
	s.req.n_readonly_paths = s.req.n_masked_paths = 0;
	(void)run_to_end(&s, NULL);
}

/* The pause process is a copy of the agent: its program cannot be written to. */
static void test_own_program(void **state)
{
	struct setup s;
	char *out;

	only_in_vm("it is the test's own program, on a disk of this host");
	request_container(&s, "(echo x >>/proc/1/exe) 2>&1");
	s.req.pid_namespace = AGENT__NAMESPACE_MODE__POD;
	s.caps.bounding = s.caps.effective = s.caps.permitted = DEFAULT_CAPS | CAP_SYS_PTRACE_BIT;
	out = run_to_end(&s, NULL);
	assert_text(out, "Read-only file system");
}

/* Every process that comes is stopped at once, also those that are still on their way to exec. */
static void test_stopped_starts(void **state)
{
	struct setup s;
	unsigned failed = 0;

	/* A long /etc/passwd keeps those that come busy for a while. */
	request_container(&s,
			  "i=0; while [ $((i += 1)) -le 13 ]; do cat /etc/passwd /etc/passwd >/p; "
			  "mv /p /etc/passwd; done; while :; do kill -STOP -1; done");
	s.scratch.first_sector = DISK_SCRATCH(SCRATCHES - 3);
	do_create(&s);
	do_start_ok(s.id);
	for (int i = 0; i < 200 && failed == 0; i++) {
		Agent__StartContainerResponse *r;
		struct exec e;
		char name[16];

		snprintf(name, sizeof(name), "e%d", i);
		request_exec(&e, s.id, name, "exit 0");
		e.user.name = (char *)"4000";
		r = (void *)drive(&drv, "ExecProcess", &e.req);
		if (!r)
			fail_msg("exec: %s", err_text(&drv.err));
		if (r->failure) {
			failed++;
			assert_int_equal(r->failure->error, ETIMEDOUT);
			assert_true(strlen(r->failure->stage) > 0);
			assert_text(r->failure->message, "stopped");
			print_message("[ figure   ] stopped in stage \"%s\"\n", r->failure->stage);
			assert_int_equal(do_kill(s.id, name, SIGKILL, false), -ENOENT);
		} else {
			/* It came through, and may be stopped behind its exec. */
			(void)do_kill(s.id, name, SIGKILL, false);
			(void)drive_exit(&drv, s.id, name);
		}
		start_free(r);
		assert_pings(5000);
	}
	assert_int_equal(failed, 1);
	assert_int_equal(count_pids(s.id), 1);
	stop_idle(&s);
}

static void start_limited(struct setup *s, const char *cpu_max)
{
	Agent__CreateContainerRequest__CgroupEntry limit =
		AGENT__CREATE_CONTAINER_REQUEST__CGROUP_ENTRY__INIT;
	Agent__CreateContainerRequest__CgroupEntry *list[1] = { &limit };
	uint64_t begin;
	unsigned ms;

	limit.key = (char *)"cpu.max";
	limit.value = (char *)cpu_max;
	s->req.cgroup = list;
	s->req.n_cgroup = 1;
	do_create(s);
	begin = now_mono_ns();
	do_start_ok(s->id);
	ms = (unsigned)((now_mono_ns() - begin) / NS_PER_MS);
	print_message("[ figure   ] start with cpu.max \"%s\": %u ms\n", cpu_max, ms);
	assert_in_range(ms, 0, START_MAX_MS);
}

/* What a container costs before its program runs is not on its own account, and the program finds
 * its limit when it looks first of all (with a limit that lets it come to an end). */
static void test_throttled_start(void **state)
{
	struct setup s;
	int out;

	only_in_vm("the host may have no cpu controller in cgroup v2");
	request_container(&s, "exec sleep 1000");
	start_limited(&s, "1000 100000");
	stop_idle(&s);
	request_container(&s, NULL);
	s.args[0] = (char *)"cat";
	s.args[1] = (char *)"/sys/fs/cgroup/cpu.max";
	s.process.n_args = 2;
	s.stdio.stdout_stream = drv.next_stream++;
	out = drive_stream(&drv, s.stdio.stdout_stream);
	start_limited(&s, "30000 100000");
	assert_string_equal(drive_read_all(out, NULL), "30000 100000\n");
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 0);
	do_remove(s.id);
}

/* 200 busy threads under a hundredth of a CPU: slow is not stuck, and nobody else suffers. */
static void test_starved_start(void **state)
{
	Agent__StartContainerResponse *r;
	struct setup s;
	struct exec e;
	uint64_t begin;

	only_in_vm("the host may have no cpu controller in cgroup v2");
	request_container(
		&s, "i=0; while [ $((i += 1)) -le 200 ]; do while :; do :; done & done; wait");
	start_limited(&s, "1000 100000");
	for (int i = 0; i < 100 && count_pids(s.id) < 50; i++)
		usleep(200000);
	begin = now_mono_ns();
	request_exec(&e, s.id, "probe", "exit 0");
	r = (void *)drive(&drv, "ExecProcess", &e.req);
	if (!r)
		fail_msg("exec: %s",
			 err_text(&drv.err)); /* no answer: the shim would be in the dark */
	print_message("[ figure   ] exec beside %zu busy processes: %s after %llu ms\n",
		      count_pids(s.id), r->failure ? r->failure->message : "runs",
		      (unsigned long long)(now_mono_ns() - begin) / 1000000);
	if (r->failure) {
		assert_int_equal(r->failure->error, ETIMEDOUT);
		assert_true(now_mono_ns() - begin > 40 * NS_PER_S);
	}
	start_free(r);
	assert_pings(2000);
	assert_string_equal(run_script("echo others", NULL), "others\n");
	assert_int_equal(do_kill(s.id, "", SIGKILL, true), 0);
	(void)drive_exit(&drv, s.id, "");
	do_remove(s.id);
}

static const char family[] =
	"trap '' TERM HUP\n"
	"(trap '' TERM HUP; setsid sh -c 'sleep 1000 & sleep 1000; true' &)\n" /* another session */
	"( (setsid setsid sh -c 'while :; do sleep 1000; done' & ) & )\n"      /* forked twice */
	"nohup sleep 1000 >/dev/null 2>&1 &\n"
	"sleep 0.5; echo ready; sleep 1000; true";

static void kill_family(const char *id, size_t before)
{
	struct exec e;
	int out;

	request_exec(&e, id, "family", family);
	e.stdio.stdout_stream = drv.next_stream++;
	out = drive_stream(&drv, e.stdio.stdout_stream);
	do_exec_ok(&e);
	drive_expect(out, "ready");
	assert_true(count_pids(id) >= before + 6);
	assert_int_equal(do_kill(id, "family", SIGKILL, true), 0);
	assert_int_equal(drive_exit(&drv, id, "family")->status, 137);
	assert_int_equal(count_pids(id), before);
	(void)drive_read_all(out, NULL);
}

/* Nothing of an exec is left when all of it is killed, and nothing else is touched. */
static void test_exec_family(void **state)
{
	struct setup s;
	struct exec other;

	start_idle(&s);
	request_exec(&other, s.id, "other", "sleep 1000; true");
	do_exec_ok(&other);
	for (int i = 0; i < 100 && count_pids(s.id) < 4; i++)
		usleep(50000);
	kill_family(s.id, 4);
	assert_string_equal(exec_script(s.id, "see", "cat /proc/self/cgroup | grep ^0:"), "0::/\n");
	(void)drive_exit(&drv, s.id, "see");
	stop_idle(&s);
}

/* The next exec comes while the one before is being killed: it has nothing to do with that, though
 * the kernel gives it the numbers that have just become free. */
static void test_exec_after_kill(void **state)
{
	Agent__SignalProcessRequest kill = AGENT__SIGNAL_PROCESS_REQUEST__INIT;
	char killed[16], next[16];
	struct setup s;
	struct exec one, two;
	int r1, r2;

	start_idle(&s);
	for (int i = 0; i < 10; i++) {
		snprintf(killed, sizeof(killed), "killed%d", i);
		snprintf(next, sizeof(next), "next%d", i);
		request_exec(&one, s.id, killed, "sleep 1000 & sleep 1000 & sleep 1000");
		do_exec_ok(&one);
		usleep(20000);
		request_exec(&two, s.id, next, "exit 7");
		kill.id = s.id;
		kill.exec_id = killed;
		kill.signal = SIGKILL;
		kill.all = true;
		drive_two(&drv, "SignalProcess", &kill, &r1, "ExecProcess", &two.req, &r2);
		assert_int_equal(r1, 0);
		assert_int_equal(r2, 0);
		assert_int_equal(drive_exit(&drv, s.id, killed)->status, 128 + SIGKILL);
		assert_int_equal(drive_exit(&drv, s.id, next)->status, 7);
	}
	stop_idle(&s);
}

/* Runs a container that makes cgroups, until it says `word`. Its output. */
static int run_owner_of_cgroups(struct setup *s, const char *word)
{
	int out;

	s->req.privileged = true;
	s->req.n_masked_paths = s->req.n_readonly_paths = 0;
	s->mount[4].n_options = s->mount[5].n_options = 3; /* without "ro" */
	s->stdio.stdout_stream = drv.next_stream++;
	out = drive_stream(&drv, s->stdio.stdout_stream);
	do_create(s);
	do_start_ok(s->id);
	drive_expect(out, word);
	return out;
}

/* A container that runs containers: its cgroup cannot hold processes any more. */
static void test_nested_cgroups(void **state)
{
	struct setup s;
	int out;

	only_in_vm("the host may have no controller in cgroup v2");
	request_container(&s,
			  "set -e; cd /sys/fs/cgroup; mkdir init; echo 1 >init/cgroup.procs\n"
			  "echo +memory >cgroup.subtree_control; echo nested; exec sleep 1000");
	s.caps.bounding = s.caps.effective = s.caps.permitted = ALL_CAPS;
	out = run_owner_of_cgroups(&s, "nested");
	assert_string_equal(exec_script(s.id, "probe", "grep ^0: /proc/self/cgroup; hostname"),
			    "0::/init\nseed\n");
	assert_int_equal(drive_exit(&drv, s.id, "probe")->status, 0);
	kill_family(s.id, 1);
	assert_int_equal(do_kill(s.id, "", SIGKILL, false), 0);
	(void)drive_exit(&drv, s.id, "");
	close(out);
	do_remove(s.id);
}

/* As many cgroups as a container likes: whoever asks for its processes waits, the loop does not. */
static void test_many_cgroups(void **state)
{
	Agent__ListProcessesRequest list = AGENT__LIST_PROCESSES_REQUEST__INIT;
	struct drive_call *call;
	struct setup s;
	uint64_t begin, pinged;
	int out;

	request_container(&s,
			  "cd /sys/fs/cgroup && mkdir $(seq 2000) && echo made; exec sleep 1000");
	out = run_owner_of_cgroups(&s, "made");
	close(out);
	list.id = s.id;
	begin = now_mono_ns();
	call = drive_begin(&drv, "ListProcesses", &list);
	assert_pings(5000);
	pinged = now_mono_ns();
	/* The one that was asked later is answered first. */
	assert_false(drive_answered(&drv, call));
	assert_int_equal(drive_end(&drv, call), 0);
	print_message(
		"[ figure   ] the processes of 2000 cgroups: %llu ms, ping beside it: %llu ms\n",
		(unsigned long long)(now_mono_ns() - begin) / 1000000,
		(unsigned long long)(pinged - begin) / 1000000);
	assert_int_equal(count_pids(s.id), 1);
	assert_int_equal(do_kill(s.id, "", SIGKILL, false), 0);
	(void)drive_exit(&drv, s.id, "");
	do_remove(s.id);
}

/* Each container has a session keyring of its own. */
static void test_keyrings(void **state)
{
	static const char script[] =
		"awk '$8 == \"keyring\" && $9 == \"_ses:\" { print $1 }' /proc/keys";
	char *first, *second, *rest;
	unsigned fresh = 0;

	only_in_vm("this host's /proc/keys may show anything");
	first = strdup(run_script(script, NULL));
	second = run_script(script, NULL);
	/* Those of earlier containers may be on their way out still; each has one more. */
	for (char *id = strtok_r(second, "\n", &rest); id; id = strtok_r(NULL, "\n", &rest))
		fresh += !strstr(first, id);
	assert_int_equal(fresh, 1);
	free(first);
}

/* A signal to all reaches all, and those alone. */
static void test_signal_to_all(void **state)
{
	struct setup s, other;

	start_idle(&other);
	request_container(&s,
			  "trap 'exit 9' USR1; for i in 1 2 3 4 5; do sleep 1000 & done; "
			  "while :; do wait; done");
	do_create(&s);
	do_start_ok(s.id);
	for (int i = 0; i < 100 && count_pids(s.id) < 6; i++)
		usleep(50000);
	assert_int_equal(do_kill(s.id, "", SIGUSR1, true), 0);
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 9);
	assert_int_equal(count_pids(other.id), 2);
	stop_idle(&other);
	do_remove(s.id);
}

/* A disk that is thrown away is not written back first. */
static void test_discard(void **state)
{
	Agent__RemoveContainerRequest rm = AGENT__REMOVE_CONTAINER_REQUEST__INIT;
	struct setup s;
	uint64_t begin;
	unsigned status;

	only_in_vm("the kernel's messages are this host's");
	request_container(&s, "dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null");
	s.scratch.first_sector = DISK_SCRATCH(SCRATCHES - 1); /* nobody uses it after this */
	do_create(&s);
	do_start_ok(s.id);
	assert_int_equal(drive_exit(&drv, s.id, "")->status, 0);
	rm.id = s.id;
	rm.discard = true;
	begin = now_mono_ns();
	assert_int_equal(drive_code(&drv, "RemoveContainer", &rm), 0);
	print_message("[ figure   ] removal with 8 MiB dropped: %llu us\n",
		      (unsigned long long)(now_mono_ns() - begin) / 1000);
	(void)run_script("true", &status);
	assert_int_equal(status, 0);
}

int agent_hostile(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_helpers),		cmocka_unit_test(test_own_program),
		cmocka_unit_test(test_stopped_starts),	cmocka_unit_test(test_throttled_start),
		cmocka_unit_test(test_starved_start),	cmocka_unit_test(test_exec_family),
		cmocka_unit_test(test_exec_after_kill), cmocka_unit_test(test_nested_cgroups),
		cmocka_unit_test(test_keyrings),	cmocka_unit_test(test_many_cgroups),
		cmocka_unit_test(test_signal_to_all),	cmocka_unit_test(test_discard),
	};

	return _cmocka_run_group_tests(name, tests, ARRAY_SIZE(tests), NULL, NULL);
}
