/* The shim's own logic against a monitor and an agent that pretend (fake_vmm.c): the states of
 * processes, exits and their order, failures, and what is left after the VM died. The programs are
 * beside this one: fake_vmm, and ../bin/containerd-shim-husk-v2. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/shim/shim_client.h"

#define STOPPED TASK__STATUS__STOPPED
#define RUNNING TASK__STATUS__RUNNING
#define CREATED TASK__STATUS__CREATED

static char *here, *dir, *layer, *scratch;

static int set_up(void **state)
{
	struct err e = { 0 };

	if (program_dir(&here, &e) < 0)
		return -1;
	dir = test_dir("shim-fake");
	layer = str_fmt("%s/layer", dir);
	scratch = str_fmt("%s/scratch", dir);
	return write_file_atomic(layer, "x", 1, 0600, false, &e) < 0 ||
	       write_file_atomic(scratch, "x", 1, 0600, false, &e) < 0;
}

static int tear_down(void **state)
{
	struct err e = { 0 };

	free(here);
	free(layer);
	free(scratch);
	return getenv("KEEP") ? 0 : remove_tree(dir, &e);
}

static void start_shim(struct pod *p, const char *id)
{
	Shim__Options o = SHIM__OPTIONS__INIT;
	char *shim = str_fmt("%s/../bin/containerd-shim-husk-v2", here);
	char *log = str_fmt("%s/shim.log", dir);

	o.vmm_path = str_fmt("%s/fake_vmm", here);
	o.log_file = log;
	pod_start(p, shim, dir, id, &o);
	free(o.vmm_path);
	free(shim);
	free(log);
}

static void up(struct pod *p, const char *id)
{
	start_shim(p, id);
	assert_int_equal(create_sandbox(p, "h"), 0);
	assert_int_equal(sandbox_call(p, "StartSandbox", NULL), 0);
	pod_read_pids(p);
	assert_true(p->shim > 0 && p->vmm > 0);
}

static void down(struct pod *p)
{
	assert_int_equal(sandbox_call(p, "StopSandbox", NULL), 0);
	assert_true(process_gone(p->vmm, 1000));
	assert_int_equal(sandbox_call(p, "ShutdownSandbox", NULL), 0);
	assert_true(process_gone(p->shim, 2000));
	assert_int_equal(access(p->address + strlen("unix://"), F_OK), -1);
	pod_fini(p);
}

static int create_log(struct pod *p, const char *id, const char *args, const char *uri)
{
	const char *layers[] = { layer, NULL };
	char *b = make_bundle(p, id, args, NULL);
	int r = task_create(p, id, b, uri, uri, layers, NULL, NULL);

	free(b);
	return r;
}

static int create(struct pod *p, const char *id, const char *args)
{
	return create_log(p, id, args, "");
}

static void test_life(void **state)
{
	char *log = str_fmt("%s/c.log", dir), *uri = str_fmt("cri-log://%s", log), *text;
	struct pod p;

	up(&p, "life");
	assert_int_equal(create_log(&p, "c", "[\"run\",\"3\"]", uri), 0);
	assert_int_equal(task_state(&p, "c", ""), CREATED);
	assert_int_equal(create(&p, "c", "[\"run\"]"), -EEXIST);
	assert_int_equal(task_start(&p, "c", "", NULL), 0);
	assert_int_equal(task_wait(&p, "c", ""), 3);
	text = read_all(log);
	assert_non_null(strstr(text, "stdout F out\n"));
	assert_non_null(strstr(text, "stderr F err\n"));
	assert_int_equal(task_state(&p, "c", ""), STOPPED);
	assert_int_equal(task_wait(&p, "c", ""), 3);
	assert_int_equal(task_kill(&p, "c", "", 9), -ENOENT);
	assert_int_equal(task_exec(&p, "c", "x", false, "", "", "", "[\"run\"]"), -EBUSY);
	assert_int_equal(task_delete(&p, "c", ""), 0);
	assert_int_equal(task_delete(&p, "c", ""), -ENOENT);
	down(&p);
	free(text);
	free(log);
	free(uri);
}

/* An exit that overtakes the answer to the start is told after it. */
static void test_early_exit(void **state)
{
	struct answer w = { 0 };
	struct pod p;

	up(&p, "early");
	assert_int_equal(create(&p, "c", "[\"early\",\"5\"]"), 0);
	task_wait_start(&p, "c", "", &w);
	assert_int_equal(task_start(&p, "c", "", NULL), 0);
	assert_true(answer_wait(&p, &w, 3000));
	assert_int_equal(task_wait(&p, "c", ""), 5);
	answer_clear(&w);
	down(&p);
}

/* Output that does not end holds the exit back, but not for ever. */
static void test_mute(void **state)
{
	char *uri = str_fmt("cri-log://%s/mute.log", dir);
	struct pod p;
	uint64_t t;

	up(&p, "mute");
	assert_int_equal(create_log(&p, "c", "[\"mute\",\"1\"]", uri), 0);
	assert_int_equal(task_start(&p, "c", "", NULL), 0);
	t = now_mono_ns();
	assert_int_equal(task_state(&p, "c", ""), RUNNING);
	assert_int_equal(task_wait(&p, "c", ""), 1);
	assert_in_range((now_mono_ns() - t) / NS_PER_MS, 1500, 4000);
	assert_int_equal(task_delete(&p, "c", ""), 0);
	down(&p);
	free(uri);
}

static void test_exec(void **state)
{
	char *o = str_fmt("%s/o", dir), *e = str_fmt("%s/e", dir);
	struct answer a = { 0 };
	struct sink out, err;
	struct pod p;

	up(&p, "exec");
	assert_int_equal(create(&p, "c", "[\"sleep\"]"), 0);
	assert_int_equal(task_exec(&p, "c", "x", false, "", "", "", "[\"run\"]"), 0);
	assert_int_equal(task_start(&p, "c", "x", NULL), -EBUSY); /* the container does not run */
	assert_int_equal(task_start(&p, "c", "", NULL), 0);
	assert_int_equal(task_exec(&p, "c", "x", false, "", "", "", "[\"run\"]"), -EEXIST);
	assert_int_equal(task_delete(&p, "c", "x"), 0);
	assert_int_equal(task_state(&p, "c", "x"), -ENOENT);
	assert_int_equal(task_exec(&p, "c", "../x", false, "", "", "", "[\"run\"]"), -EINVAL);
	assert_int_equal(task_exec(&p, "c", "x", false, "", "", "", "[]"), -EINVAL);
	for (int i = 0; i < 300; i++) { /* more than there may be at once */
		assert_int_equal(task_exec(&p, "c", "y", false, "", "", "", "[\"run\"]"), 0);
		assert_int_equal(task_start(&p, "c", "y", NULL), 0);
		assert_int_equal(task_wait(&p, "c", "y"), 0);
		assert_int_equal(task_delete(&p, "c", "y"), 0);
	}
	sink_open(&p, &out, o);
	sink_open(&p, &err, e);
	assert_int_equal(task_exec(&p, "c", "x", false, "", o, e, "[\"run\",\"9\"]"), 0);
	assert_int_equal(task_start(&p, "c", "x", NULL), 0);
	assert_int_equal(task_wait(&p, "c", "x"), 9);
	assert_true(sink_wait_eof(&p, &out, 2000) && sink_wait_eof(&p, &err, 2000));
	assert_string_equal(out.text, "out\n");
	assert_string_equal(err.text, "err\n");
	assert_int_equal(task_delete(&p, "c", "x"), 0);
	assert_int_equal(task_exec(&p, "c", "x", false, "", o, e, "[\"noexec\"]"), 0);
	assert_int_equal(task_start(&p, "c", "x", &a), -EPERM);
	assert_true(a.start_error && a.start_error->exit_code == 126);
	assert_int_equal(a.start_error->error, EACCES);
	assert_int_equal(task_wait(&p, "c", "x"), 126);
	assert_true(sink_wait_eof(&p, &out, 100));
	/* The first process takes the others along. */
	assert_int_equal(task_exec(&p, "c", "z", false, "", "", "", "[\"sleep\"]"), 0);
	assert_int_equal(task_start(&p, "c", "z", NULL), 0);
	assert_int_equal(task_delete(&p, "c", "z"), -EBUSY);
	assert_int_equal(task_delete(&p, "c", ""), -EBUSY);
	assert_int_equal(task_kill(&p, "c", "", 15), 0);
	assert_int_equal(task_wait(&p, "c", ""), 143);
	assert_int_equal(task_wait(&p, "c", "z"), 143);
	assert_int_equal(task_delete(&p, "c", ""), 0);
	answer_clear(&a);
	sink_close(&out);
	sink_close(&err);
	down(&p);
	free(o);
	free(e);
}

static void test_failures(void **state)
{
	cleanup_free char *record = NULL, *pids = NULL;
	const char *layers[] = { layer, NULL };
	struct answer a = { 0 };
	struct pod p;
	char *b;

	up(&p, "failures");
	/* The monitor says that the shim is its QEMU: nobody kills that for it. */
	record = str_fmt("%s/husk.pids", p.bundle);
	assert_int_equal(read_file(record, 4096, &pids, NULL, NULL), 0);
	assert_non_null(strstr(pids, "vmm "));
	assert_null(strstr(pids, "qemu "));
	assert_int_equal(create(&p, "n", "[\"nosuch\"]"), 0);
	assert_int_equal(task_start(&p, "n", "", &a), -ENOENT);
	assert_non_null(strstr(a.msg, "\"nosuch\": No such file"));
	assert_int_equal(task_state(&p, "n", ""), STOPPED);
	assert_int_equal(task_wait(&p, "n", ""), 127);
	assert_int_equal(task_delete(&p, "n", ""), 0);
	/* A container that the agent refuses leaves nothing: its scratch disk is free again. */
	b = make_bundle(&p, "b", "[\"badfs\"]", NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(task_create(&p, "b", b, "", "", layers, scratch, NULL), -EINVAL);
	free(b);
	b = make_bundle(&p, "b", "[\"run\"]", NULL);
	assert_int_equal(task_create(&p, "b", b, "", "", layers, scratch, NULL), 0);
	assert_int_equal(task_create(&p, "b2", b, "", "", layers, scratch, NULL), -EBUSY);
	assert_int_equal(task_kill(&p, "b", "", 1), -EBUSY);
	assert_int_equal(task_kill(&p, "b", "", 9), 0);
	assert_int_equal(task_wait(&p, "b", ""), 137);
	assert_int_equal(task_delete(&p, "b", ""), 0);
	run_for(&p, 50); /* unmapped */
	assert_int_equal(task_create(&p, "b2", b, "", "", layers, scratch, NULL), 0);
	free(b);
	answer_clear(&a);
	down(&p);
}

/* The VM ends in one of many ways while containers run, are created and are started. */
static void vm_ends(const char *id, const char *how, const char *why)
{
	Shim__ExitInfoRequest req = SHIM__EXIT_INFO_REQUEST__INIT;
	struct answer w = { 0 }, sw = { 0 }, a = { 0 };
	Sandbox__WaitSandboxRequest wait_req = SANDBOX__WAIT_SANDBOX_REQUEST__INIT;
	struct pod p;

	up(&p, id);
	wait_req.sandbox_id = p.id;
	call_start(&p, &sandbox__sandbox__descriptor, "WaitSandbox", &wait_req.base, &sw);
	assert_int_equal(create(&p, "a", "[\"sleep\"]"), 0);
	assert_int_equal(create(&p, "b", "[\"sleep\"]"), 0);
	assert_int_equal(create(&p, "c", how), 0);
	assert_int_equal(task_start(&p, "a", "", NULL), 0);
	task_wait_start(&p, "a", "", &w);
	assert_false(answer_wait(&p, &w, 50));
	if (str_eq(how, "[\"silent\"]")) {
		TaskV2__StartRequest sr = TASK_V2__START_REQUEST__INIT;

		sr.id = (char *)"c";
		call_start(&p, &task_v2__task__descriptor, "Start", &sr.base, &a);
		assert_false(answer_wait(&p, &a, 100));
		assert_int_equal(kill(p.vmm, SIGKILL), 0);
		assert_true(answer_wait(&p, &a, 3000) && a.code < 0);
	} else {
		(void)task_start(&p, "c", "", NULL);
	}
	assert_true(answer_wait(&p, &w, 5000));
	assert_int_equal(task_wait(&p, "a", ""), 255);
	assert_int_equal(task_wait(&p, "b", ""), 255);
	assert_int_equal(task_wait(&p, "c", ""), 255);
	req.id = (char *)"a";
	call(&p, &shim__shim__descriptor, "ExitInfo", &req.base, &a);
	assert_int_equal(a.code, 0);
	assert_string_equal(((Shim__ExitInfoResponse *)a.resp)->sandbox_died, why);
	assert_true(answer_wait(&p, &sw, 1000) && sw.code == 0);
	assert_int_equal(sandbox_call(&p, "SandboxStatus", &a), 0);
	assert_string_equal(((Sandbox__SandboxStatusResponse *)a.resp)->state, "SANDBOX_NOTREADY");
	assert_int_equal(create(&p, "d", "[\"run\"]"), -EBUSY);
	assert_int_equal(task_start(&p, "b", "", NULL), -EBUSY);
	assert_int_equal(task_delete(&p, "a", ""), 0);
	assert_int_equal(task_delete(&p, "b", ""), 0);
	answer_clear(&a);
	answer_clear(&w);
	answer_clear(&sw);
	down(&p);
}

static void test_monitor_dies(void **state)
{
	vm_ends("dies", "[\"die\"]", "monitor died: exit status 9");
	vm_ends("killed", "[\"silent\"]", "monitor died: signal 9");
}

static void test_vm_ends(void **state)
{
	vm_ends("ends", "[\"end\"]",
		"guest kernel died or reset: reset: guest: Kernel panic - not syncing: fake");
}

static void test_agent_dies(void **state)
{
	vm_ends("hangup", "[\"hangup\"]", "agent died: the agent's channel ended");
}

static void test_sandbox(void **state)
{
	struct answer a = { 0 };
	struct pod p;

	/* The steps in a wrong order. */
	start_shim(&p, "order");
	assert_int_equal(sandbox_call(&p, "StartSandbox", NULL), -ENOENT);
	assert_int_equal(create_sandbox(&p, "h"), 0);
	assert_int_equal(create_sandbox(&p, "h"), -EEXIST);
	assert_int_equal(create(&p, "c", "[\"run\"]"), -EBUSY);
	assert_int_equal(sandbox_call(&p, "StartSandbox", NULL), 0);
	assert_int_equal(sandbox_call(&p, "StartSandbox", NULL), -EBUSY);
	assert_int_equal(sandbox_call(&p, "PingSandbox", NULL), 0);
	assert_int_equal(sandbox_call(&p, "Platform", NULL), 0);
	assert_int_equal(sandbox_call(&p, "SandboxMetrics", NULL), -ENOSYS);
	assert_int_equal(create(&p, "c", "[\"sleep\"]"), 0);
	assert_int_equal(task_start(&p, "c", "", NULL), 0);
	pod_read_pids(&p);
	assert_int_equal(sandbox_call(&p, "StopSandbox", NULL), 0);
	assert_int_equal(task_wait(&p, "c", ""), 137); /* it was asked for */
	assert_int_equal(sandbox_call(&p, "WaitSandbox", NULL), 0);
	/* Whoever asked may go; the next one finds everything. */
	pod_disconnect(&p);
	pod_connect(&p);
	assert_int_equal(task_state(&p, "c", ""), STOPPED);
	down(&p);
	/* The guest refuses: nothing of the VM is left. */
	start_shim(&p, "refused");
	assert_int_equal(create_sandbox(&p, "bad"), 0);
	assert_true(sandbox_call(&p, "StartSandbox", &a) < 0);
	assert_non_null(strstr(a.msg, "bad host name"));
	pod_read_pids(&p);
	assert_int_equal(p.vmm, 0);
	assert_int_equal(sandbox_call(&p, "SandboxStatus", NULL), 0);
	down(&p);
	/* ShutdownSandbox alone ends all of it. */
	up(&p, "abrupt");
	assert_int_equal(create(&p, "c", "[\"sleep\"]"), 0);
	assert_int_equal(task_start(&p, "c", "", NULL), 0);
	assert_int_equal(sandbox_call(&p, "ShutdownSandbox", NULL), 0);
	assert_true(process_gone(p.vmm, 2000) && process_gone(p.shim, 2000));
	answer_clear(&a);
	pod_fini(&p);
}

/* A task without a sandbox service brings the VM with it, and Shutdown ends it. */
static void test_task_alone(void **state)
{
	TaskV2__ShutdownRequest req = TASK_V2__SHUTDOWN_REQUEST__INIT;
	struct answer a = { 0 };
	struct pod p;

	start_shim(&p, "alone");
	assert_int_equal(create(&p, "alone", "[\"run\",\"2\"]"), 0);
	assert_int_equal(task_start(&p, "alone", "", NULL), 0);
	assert_int_equal(task_wait(&p, "alone", ""), 2);
	pod_read_pids(&p);
	call(&p, &task_v2__task__descriptor, "Shutdown", &req.base, &a);
	assert_int_equal(a.code, 0); /* not yet: the task is still there */
	assert_int_equal(task_delete(&p, "alone", ""), 0);
	call(&p, &task_v2__task__descriptor, "Shutdown", &req.base, &a);
	assert_int_equal(a.code, 0);
	assert_true(process_gone(p.vmm, 2000) && process_gone(p.shim, 2000));
	answer_clear(&a);
	pod_fini(&p);
}

/* A sandbox that is stopped before it was started is waited for like any other. */
static void test_never_started(void **state)
{
	Sandbox__WaitSandboxRequest req = SANDBOX__WAIT_SANDBOX_REQUEST__INIT;
	struct answer w = { 0 };
	struct pod p;

	start_shim(&p, "never");
	assert_int_equal(create_sandbox(&p, "h"), 0);
	req.sandbox_id = p.id;
	call_start(&p, &sandbox__sandbox__descriptor, "WaitSandbox", &req.base, &w);
	assert_false(answer_wait(&p, &w, 50));
	assert_int_equal(sandbox_call(&p, "StopSandbox", NULL), 0);
	assert_true(answer_wait(&p, &w, 1000) && w.code == 0);
	answer_clear(&w);
	pod_read_pids(&p);
	down(&p);
}

/* A second start for the same pod gives the same shim. */
static void test_start_twice(void **state)
{
	struct pod p, q;

	start_shim(&p, "twice");
	start_shim(&q, "twice");
	assert_string_equal(p.address, q.address);
	assert_int_equal(create_sandbox(&p, "h"), 0);
	assert_int_equal(create_sandbox(&q, "h"), -EEXIST);
	pod_fini(&q);
	pod_read_pids(&p);
	down(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),	    cmocka_unit_test(test_early_exit),
		cmocka_unit_test(test_mute),	    cmocka_unit_test(test_exec),
		cmocka_unit_test(test_failures),    cmocka_unit_test(test_monitor_dies),
		cmocka_unit_test(test_vm_ends),	    cmocka_unit_test(test_agent_dies),
		cmocka_unit_test(test_sandbox),	    cmocka_unit_test(test_task_alone),
		cmocka_unit_test(test_start_twice), cmocka_unit_test(test_never_started),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
