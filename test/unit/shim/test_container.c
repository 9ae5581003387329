/* Containers and their processes over a VM that pretends: what is asked of monitor and agent, what
 * the owner is told and in which order, and that each request has one answer. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/util.h"
#include "test/lib/shim/fake_vm.h"
#include "test/lib/shim/pod_fixture.h"
#include "test/lib/tmpdir.h"

static void test_life(void **state)
{
	struct how with_scratch = { .out = "", .scratch = scratch };
	struct err err = { 0 };

	create_ok("a", &with_scratch);
	assert_int_equal(fake.mapped, 2);
	create_ok("b", &plain);
	assert_int_equal(fake.mapped, 2); /* the layer is there */
	create_as("c", &with_scratch);
	assert_true(a.n == 1 && a.code == -EBUSY); /* a writable disk has one user */
	assert_text(a.err.msg, "in use by another container");
	assert_int_equal(waits_add(&proc_of("a", "")->waits, answer_on_wait, &w), 0);
	start_ok("a", "");
	start_proc("a", "");
	assert_int_equal(a.code, -EBUSY);
	delete_container("a");
	assert_int_equal(a.code, -EBUSY);
	assert_false(w.n);
	fake_oom("a");
	fake_exit("a", "", 137, true);
	turn();
	assert_true(w.n == 1 && w.code == 0);
	assert_int_equal(proc_of("a", "")->exit_status, 137);
	assert_true(proc_of("a", "")->oom_killed);
	delete_container("a");
	assert_int_equal(a.exit_status, 137);
	assert_null(container_proc(&all, "a", "", &err));
	turn();
	assert_int_equal(fake.unmapped, 1); /* the scratch disk; b has the layer */
	delete_ok("b");
	turn();
	assert_int_equal(fake.unmapped, 2);
	assert_string_equal(heard,
			    "created(a) created(b) started(a) oom(a) exited(a) deleted(a) "
			    "deleted(b)");
	assert_string_equal(fake.asked,
			    "CreateContainer(a) CreateContainer(b) StartContainer(a) "
			    "RemoveContainer(a) RemoveContainer(b)");
}

static void test_names(void **state)
{
	struct err err = { 0 };
	char id[20];

	create_as("../a", &plain);
	assert_int_equal(a.code, -EINVAL);
	create_ok("a", &plain);
	create_as("a", &plain);
	assert_int_equal(a.code, -EEXIST);
	assert_null(container_proc(&all, "b", "", &err));
	assert_null(container_proc(&all, "a", "x", &err));
	assert_text(err.msg, "exec x of container a: not found");
	assert_int_equal(add_exec("a", "x/y"), -EINVAL);
	assert_int_equal(add_exec("a", "x"), 0);
	assert_int_equal(add_exec("a", "x"), -EEXIST);
	for (unsigned i = 1; i < POD_CONTAINERS_MAX; i++) {
		(void)snprintf(id, sizeof(id), "c%u", i);
		create_ok(id, &plain);
	}
	create_as("more", &plain);
	assert_int_equal(a.code, -ENOBUFS);
}

/* The VM is as protected as its most protected container. */
static void test_oom_score(void **state)
{
	const struct how low = { .out = "", .oom_score = 900 };
	const struct how high = { .out = "", .oom_score = -997 };
	const struct how too_high = { .out = "", .oom_score = -1000 };

	assert_int_equal(fake.oom_score, 0);
	create_ok("a", &low);
	assert_int_equal(fake.oom_score, 900);
	create_ok("b", &high);
	assert_int_equal(fake.oom_score, -997);
	delete_ok("b");
	assert_int_equal(fake.oom_score, 900);
	fake.refuse = "CreateContainer";
	create_as("c", &high);
	turn();
	assert_int_equal(a.code, -EINVAL);
	assert_int_equal(fake.oom_score, 900);
	fake.refuse = NULL;
	create_ok("d", &too_high); /* no VM outlives its shim */
	assert_int_equal(fake.oom_score, -997);
}

/* A Create that fails leaves nothing, wherever it fails. */
static void test_create_fails(void **state)
{
	fake.refuse = "CreateContainer";
	create_as("a", &plain);
	turn();
	assert_true(a.n == 1 && a.code == -EINVAL);
	assert_null(container_find(&all, "a"));
	turn();
	assert_int_equal(fake.unmapped, 1);
	fake.refuse = NULL;
	fake.refuse_map = true;
	create_as("a", &plain);
	turn();
	assert_true(a.n == 1 && a.code == -ENOSPC);
	assert_text(a.err.msg, "map a disk");
	assert_int_equal(all.n, 0);
	turn();
	assert_int_equal(sb.windows.n, 0); /* its sectors are free again */
	fake.refuse_map = false;
	/* The VM dies under it. */
	fake.hold = "CreateContainer";
	create_as("a", &plain);
	turn();
	assert_int_equal(a.n, 0);
	assert_null(container_proc(&all, "a", "", NULL)); /* nobody sees it yet */
	fake_end("guest kernel died or reset");
	turn();
	assert_true(a.n == 1 && a.code == -EIO);
	assert_string_equal(a.err.msg, "guest kernel died or reset");
	assert_int_equal(all.n, 0);
	create_as("a", &plain);
	assert_int_equal(a.code, -EBUSY);
	assert_string_equal(heard, "");
}

/* An exit that overtakes the answer to its start is published after it. */
static void test_early_exit(void **state)
{
	create_ok("a", &plain);
	fake.hold = "StartContainer";
	start_proc("a", "");
	assert_int_equal(waits_add(&proc_of("a", "")->waits, answer_on_wait, &w), 0);
	fake_exit("a", "", 4, false);
	turn();
	assert_true(a.n == 0 && w.n == 0);
	assert_int_equal(proc_of("a", "")->state, PROC_STARTING);
	fake_answer();
	turn();
	assert_true(a.n == 1 && a.code == 0 && w.n == 1);
	assert_string_equal(heard, "created(a) started(a) exited(a)");
	assert_int_equal(proc_of("a", "")->exit_status, 4);
}

/* What the guest says of processes that it was not told to start is not believed. */
static void test_false_exits(void **state)
{
	create_ok("a", &plain);
	assert_int_equal(add_exec("a", "x"), 0);
	fake_exit("a", "", 1, false);
	fake_exit("a", "x", 1, false);
	fake_exit("b", "", 1, false);
	fake_oom("b");
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_CREATED);
	assert_int_equal(proc_of("a", "x")->state, PROC_CREATED);
	start_ok("a", "");
	fake_exit("a", "", 7000, false);
	fake_exit("a", "", 2, false);
	turn();
	assert_int_equal(proc_of("a", "")->exit_status, 255);
	assert_string_equal(heard, "created(a) added(a,x) started(a) exited(a)");
}

/* An exit waits for the output, which waits for its reader's connection. */
static void test_output_first(void **state)
{
	cleanup_free char *log = in_tmpdir("out.log"), *uri = str_fmt("cri-log://%s", log);
	cleanup_free char *text = NULL;
	struct how how = { .out = uri };
	struct err err = { 0 };
	uint64_t out, e;

	create_ok("a", &how);
	out = fake.out;
	e = fake.err;
	start_ok("a", "");
	fake_exit("a", "", 0, false);
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_RUNNING);
	assert_int_equal(write(fake_stream(out), "last words\n", 11), 11);
	fake_stream_close(out);
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_RUNNING); /* stderr is open */
	fake_stream_close(e);
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_STOPPED);
	assert_ok(read_file(log, 4096, &text, NULL, &err), &err);
	assert_text(text, "stdout F last words\n");
}

/* ... but not for ever. */
static void test_output_that_does_not_end(void **state)
{
	cleanup_free char *log = in_tmpdir("mute.log"), *uri = str_fmt("cri-log://%s", log);
	uint64_t end = now_mono_ns() + PROC_DRAIN_NS + 100 * NS_PER_MS;
	struct how how = { .out = uri };

	create_ok("a", &how);
	fake.hold = "StartContainer";
	start_proc("a", "");
	fake_exit("a", "", 0, false);
	/* The answer to its start takes longer than an exit waits for output. */
	while (now_mono_ns() < end)
		assert_true(loop_once(loop, 10) >= 0);
	assert_int_equal(proc_of("a", "")->state, PROC_STARTING);
	fake_answer();
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_RUNNING);
	assert_int_equal(waits_add(&proc_of("a", "")->waits, answer_on_wait, &w), 0);
	end = now_mono_ns() + PROC_DRAIN_NS / 2;
	assert_true(answered(&w, 4000));
	assert_true(now_mono_ns() > end);
	assert_string_equal(heard, "created(a) started(a) exited(a)");
}

/* What a write would wait for is no file for output: the shim would stand still. */
static void test_output_waits(void **state)
{
	cleanup_free char *fifo = in_tmpdir("output"), *uri = str_fmt("file://%s", fifo);
	struct how how = { .out = uri };

	(void)unlink(fifo);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	create_as("a", &how);
	assert_true(a.n == 1 && a.code < 0);
	how.out = "file:///dev/ptmx";
	create_as("a", &how);
	assert_true(a.n == 1 && a.code == -EINVAL);
	assert_text(a.err.msg, "is not a regular file");
	/* Neither with a reader that does not read. */
	assert_true(open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC) >= 0);
	how.out = uri;
	create_as("a", &how);
	assert_true(a.n == 1 && a.code == -EINVAL);
	how.out = "file:///dev/null";
	create_ok("a", &how);
}

/* Output that cannot be written is told once for each stream, until it can be again. */
static void test_output_lost(void **state)
{
	struct how how = { .out = "file:///dev/full" };

	create_ok("a", &how);
	start_ok("a", "");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(write(fake_stream(fake.out), "x", 1), 1);
		turn();
	}
	assert_string_equal(heard, "created(a) started(a) lost(a)");
}

static void test_execs(void **state)
{
	struct err err = { 0 };

	create_ok("a", &plain);
	assert_int_equal(add_exec("a", "x"), 0);
	start_proc("a", "x");
	assert_int_equal(a.code, -EBUSY);
	assert_text(a.err.msg, "the container does not run");
	start_ok("a", "");
	start_ok("a", "x");
	assert_int_equal(container_delete_exec(proc_of("a", "x"), &err), -EBUSY);
	assert_int_equal(add_exec("a", "y"), 0);
	start_ok("a", "y");
	/* The first process's exit is published after those of its execs. */
	fake_exit("a", "", 9, false);
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_RUNNING);
	assert_int_equal(add_exec("a", "z"), -EBUSY);
	fake_exit("a", "x", 1, false);
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_RUNNING);
	fake_exit("a", "y", 2, false);
	turn();
	assert_int_equal(proc_of("a", "")->state, PROC_STOPPED);
	assert_string_equal(heard,
			    "created(a) added(a,x) started(a) started(a,x) added(a,y) "
			    "started(a,y) exited(a,x) exited(a,y) exited(a)");
	assert_ok(container_delete_exec(proc_of("a", "x"), &err), &err);
	assert_null(container_proc(&all, "a", "x", NULL));
	delete_ok("a");
	assert_null(strstr(fake.asked, "SignalAll")); /* the end of its pid 1 was the end of all */
}

/* Those that nobody asks for: one that runs, one that starts, a new one, one that has ended. */
static void test_execs_dropped(void **state)
{
	create_ok("a", &plain);
	start_ok("a", "");
	assert_int_equal(add_exec("a", "ended"), 0);
	start_ok("a", "ended");
	fake_exit("a", "ended", 0, false);
	turn();
	assert_int_equal(add_exec("a", "runs"), 0);
	start_ok("a", "runs");
	assert_int_equal(add_exec("a", "never"), 0);
	assert_int_equal(add_exec("a", "starts"), 0);
	fake.hold = "ExecProcess";
	start_proc("a", "starts");
	turn();
	container_drop_execs(container_find(&all, "a"));
	container_drop_execs(container_find(&all, "a")); /* again */
	turn();
	assert_null(container_proc(&all, "a", "ended", NULL));
	assert_null(container_proc(&all, "a", "never", NULL));
	assert_text(fake.asked, "SignalAll(a,runs)");
	assert_null(strstr(fake.asked, "SignalAll(a,starts)"));
	fake.hold = NULL;
	fake_answer();
	turn();
	assert_text(fake.asked, "SignalAll(a,starts)");
	fake_exit("a", "runs", 137, false);
	fake_exit("a", "starts", 137, false);
	turn();
	turn();
	assert_null(container_proc(&all, "a", "runs", NULL));
	assert_null(container_proc(&all, "a", "starts", NULL));
	assert_int_equal(container_find(&all, "a")->n_execs, 0);
	fake_exit("a", "", 0, false);
	turn();
	delete_ok("a");
}

/* Without pids of its own a container is not over with its first process; the rest is ended. */
static void test_shared_pids(void **state)
{
	struct how how = { .out = "", .shared_pids = true };

	create_ok("a", &how);
	start_ok("a", "");
	fake_exit("a", "", 0, false);
	turn();
	assert_text(fake.asked, "StartContainer(a) SignalAll(a,)");
}

static void start_fails(const char *stage, int error, int code, uint32_t exit_code)
{
	w = (struct answer){ 0 };
	create_ok("f", &plain);
	assert_int_equal(waits_add(&proc_of("f", "")->waits, answer_on_wait, &w), 0);
	fake.hold = "StartContainer";
	start_proc("f", "");
	fake_answer_failure(stage, error);
	turn();
	assert_true(a.n == 1 && w.n == 1);
	assert_int_equal(a.code, code);
	assert_int_equal(a.exit_code, exit_code);
	assert_text(a.err.msg, "start \"prog\": ");
	assert_text(a.err.msg, strerror(error));
	assert_int_equal(proc_of("f", "")->exit_status, exit_code);
	delete_ok("f");
	fake.hold = NULL;
}

static void test_start_fails(void **state)
{
	start_fails("exec", ENOENT, -ENOENT, 127);
	start_fails("exec", EACCES, -EACCES, 126);
	start_fails("exec", ENOEXEC, -EIO, 126);
	start_fails("cwd", ENOENT, -EIO, 128);
	assert_null(strstr(heard, "exited")); /* what never ran has no exit */
	assert_null(strstr(heard, "started"));
	create_ok("a", &plain);
	fake.refuse = "StartContainer";
	start_proc("a", "");
	assert_true(a.n == 1 && a.code == -EINVAL && a.exit_code == 0);
	assert_int_equal(proc_of("a", "")->exit_status, 128);
	start_proc("a", "");
	assert_int_equal(a.code, -EBUSY);
}

/* The VM dies: what runs, what is created, what is being started. */
static void test_vm_dies(void **state)
{
	create_ok("a", &plain);
	start_ok("a", "");
	create_ok("b", &plain);
	create_ok("c", &plain);
	assert_int_equal(waits_add(&proc_of("a", "")->waits, answer_on_wait, &w), 0);
	fake.hold = "StartContainer";
	start_proc("c", "");
	assert_int_equal(a.n, 0);
	fake_hang_up(); /* the guest is gone; the monitor says so a moment later */
	turn();
	assert_int_equal(a.n, 0);
	fake_end("guest kernel died or reset");
	turn();
	assert_true(a.n == 1 && w.n == 1);
	assert_int_equal(a.code, -EIO);
	assert_string_equal(a.err.msg, "start \"prog\": guest kernel died or reset");
	for (const char *const *id = (const char *const[]){ "a", "b", "c", NULL }; *id; id++) {
		assert_int_equal(proc_of(*id, "")->state, PROC_STOPPED);
		assert_int_equal(proc_of(*id, "")->exit_status, STATUS_VM_DIED);
		assert_string_equal(proc_of(*id, "")->sandbox_died, "guest kernel died or reset");
		delete_ok(*id);
	}
	assert_text(heard, "exited(a)");
	assert_null(strstr(heard, "exited(c)"));
	assert_null(strstr(fake.asked, "RemoveContainer"));
}

/* It was asked for: the processes were killed, nothing died. */
static void test_stopped(void **state)
{
	create_ok("a", &plain);
	start_ok("a", "");
	sandbox_stop(&sb);
	turn();
	assert_int_equal(proc_of("a", "")->exit_status, STATUS_KILLED);
	assert_null(proc_of("a", "")->sandbox_died);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, pod_set_up, pod_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_life),	 TEST(test_names),
		TEST(test_create_fails), TEST(test_oom_score),
		TEST(test_early_exit),	 TEST(test_false_exits),
		TEST(test_output_first), TEST(test_output_that_does_not_end),
		TEST(test_output_lost),	 TEST(test_output_waits),
		TEST(test_execs),	 TEST(test_execs_dropped),
		TEST(test_shared_pids),	 TEST(test_start_fails),
		TEST(test_vm_dies),	 TEST(test_stopped),
	};

	return cmocka_run_group_tests(tests, pod_set_up_files, pod_tear_down_files);
}
