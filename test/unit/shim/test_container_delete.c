/* Delete of a container: what a slow reader has not read yet, and what is left when it fails. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "test/lib/shim/fake_vm.h"
#include "test/lib/shim/pod_fixture.h"
#include "test/lib/tmpdir.h"

/* A stopped container whose output waits for the reader of a FIFO: *ret_fd, non-blocking. */
static void make_backlog(int *ret_fd)
{
	cleanup_free char *fifo = in_tmpdir("fifo");
	static char many[512 * KIB];
	struct how how = { .out = fifo };
	int guest, size = 4096;

	(void)unlink(fifo);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	*ret_fd = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(*ret_fd >= 0);
	create_ok("a", &how);
	start_ok("a", "");
	guest = fake_stream(fake.out);
	assert_int_equal(setsockopt(guest, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	memset(many, 'x', sizeof(many));
	for (int i = 0; i < 20; i++) {
		(void)!send(guest, many, sizeof(many), MSG_DONTWAIT | MSG_NOSIGNAL);
		turn();
	}
	assert_true(stdio_backlog(proc_of("a", "")->io));
	assert_int_equal(waits_add(&proc_of("a", "")->waits, answer_on_wait, &w), 0);
	fake_exit("a", "", 0, false);
	assert_true(answered(&w, 4000)); /* PROC_DRAIN_NS: nobody reads */
}

/* Reads what is there until the request is answered. Bytes read. */
static size_t read_until(int fd, struct answer *to, uint64_t ms)
{
	static char buf[64 * KIB];
	uint64_t end = now_mono_ns() + ms * NS_PER_MS;
	size_t sum = 0;
	ssize_t n;

	while (!to->n && now_mono_ns() < end) {
		while ((n = read(fd, buf, sizeof(buf))) > 0)
			sum += (size_t)n;
		assert_true(loop_once(loop, 1) >= 0);
	}
	return sum;
}

/* Everything the guest had is delivered before the container goes. */
static void test_delete_drains(void **state)
{
	cleanup_fd int fd = -1;
	uint64_t before;

	make_backlog(&fd);
	fake_stream_close(fake.out);
	fake_stream_close(fake.err);
	delete_container("a");
	assert_int_equal(a.n, 0);
	assert_null(container_proc(&all, "a", "", NULL)); /* it is on its way out */
	before = now_mono_ns();
	assert_true(read_until(fd, &a, 5000) > 64 * KIB);
	assert_true(a.n == 1 && a.code == 0);
	assert_true(now_mono_ns() - before < DELETE_DRAIN_NS / 2);
	assert_int_equal(all.n, 0);
}

/* A grandchild holds the output open: the reader has what is there, and that is enough. */
static void test_delete_flushes(void **state)
{
	cleanup_fd int fd = -1;
	uint64_t before;

	make_backlog(&fd);
	delete_container("a");
	assert_int_equal(a.n, 0);
	before = now_mono_ns();
	(void)read_until(fd, &a, 5000);
	assert_true(a.n == 1 && a.code == 0);
	assert_true(now_mono_ns() - before < DELETE_DRAIN_NS / 2);
	assert_true(now_mono_ns() - before >= DELETE_QUIET_NS);
}

/* Nobody reads; and the shim ends meanwhile. */
static void test_delete_and_end(void **state)
{
	cleanup_fd int fd = -1;

	make_backlog(&fd);
	delete_container("a");
	assert_int_equal(a.n, 0);
	sandbox_fini(&sb);
	containers_fini(&all);
	assert_true(a.n == 1 && a.code == -ECANCELED);
}

/* An agent that does not remove it keeps it, and it can be tried again. */
static void test_delete_refused(void **state)
{
	create_ok("a", &plain);
	fake.refuse = "RemoveContainer";
	delete_container("a");
	assert_true(a.n == 1 && a.code == -EINVAL);
	fake.refuse = NULL;
	delete_ok("a");
	assert_string_equal(heard, "created(a) deleted(a)");
}

/* The scratch disk is the host's again, whatever the guest answers. */
static void test_delete_takes_scratch(void **state)
{
	const struct how with_scratch = { .out = "", .scratch = scratch };

	create_ok("a", &with_scratch);
	assert_int_equal(fake.mapped, 2);
	fake.refuse = "RemoveContainer";
	delete_container("a");
	assert_int_equal(a.code, -EINVAL);
	turn();
	assert_int_equal(fake.unmapped, 1);
	delete_container("a");
	turn();
	assert_int_equal(fake.unmapped, 1);
	fake.refuse = NULL;
	delete_ok("a");
	turn();
	assert_int_equal(fake.unmapped, 2);
	assert_int_equal(sb.windows.n, 0);
	/* It never says that it let go. The layer is used again, no disk is mapped twice. */
	fake.keep_disks = true;
	for (unsigned i = 0; i < 20; i++) {
		create_ok("a", &with_scratch);
		assert_int_equal(fake.mapped, 4 + i);
		delete_ok("a");
		turn();
		assert_int_equal(fake.unmapped, 3 + i);
	}
	assert_int_equal(fake.unmap_missed, 0);
}

/* The guest is late with a Create: that fails, and what comes of it is removed. */
static void test_create_late(void **state)
{
	const struct how with_scratch = { .out = "", .scratch = scratch };

	fake.hold = "CreateContainer";
	create_as("a", &with_scratch);
	turn();
	fake.hold = "RemoveContainer";
	fake_answer_error(-ETIMEDOUT, "late");
	turn();
	assert_true(a.n == 1 && a.code == -ETIMEDOUT);
	assert_string_equal(fake.asked, "CreateContainer(a) RemoveContainer(a)");
	assert_int_equal(fake.unmapped, 0);
	fake_answer_error(-ENOENT, "not yet");
	turn();
	assert_int_equal(fake.unmapped, 1); /* the host's file */
	assert_int_equal(sb.windows.n, 2);
	assert_int_equal(all.n, 0);
	fake.hold = NULL;
	create_ok("a", &with_scratch);
	delete_ok("a");
	assert_string_equal(fake.killed, "-");
	/* The same, but it says what it has removed; and the VM goes meanwhile. */
	fake.hold = "CreateContainer";
	create_as("b", &with_scratch);
	turn();
	fake.hold = NULL;
	fake_answer_error(-ETIMEDOUT, "late");
	turn();
	assert_true(a.n == 1 && a.code == -ETIMEDOUT);
	assert_int_equal(all.n, 0);
	fake.hold = "CreateContainer";
	create_as("c", &with_scratch);
	turn();
	fake.hold = "RemoveContainer";
	fake_answer_error(-ETIMEDOUT, "late");
	turn();
	fake_end("gone");
	turn();
	assert_int_equal(all.n, 0);
}

/* A start that is late fails alone; what starts after all is killed. */
static void test_start_late(void **state)
{
	create_ok("a", &plain);
	create_ok("b", &plain);
	start_ok("b", "");
	assert_int_equal(add_exec("b", "x"), 0);
	fake.hold = "StartContainer";
	start_proc("a", "");
	fake.hold = "ExecProcess";
	turn();
	fake_answer_error(-ETIMEDOUT, "late");
	turn();
	assert_true(a.n == 1 && a.code == -ETIMEDOUT);
	assert_int_equal(proc_of("a", "")->state, PROC_STOPPED);
	start_proc("b", "x");
	turn();
	fake_answer_error(-ETIMEDOUT, "late");
	turn();
	assert_true(a.n == 1 && a.code == -ETIMEDOUT);
	assert_text(fake.asked, "SignalAll(a,) ");
	assert_text(fake.asked, "SignalProcess(b,x)");
	assert_int_equal(proc_of("b", "")->state, PROC_RUNNING);
	assert_int_equal(sb.state, SB_READY);
	fake.hold = NULL;
	delete_ok("a");
}

/* What cannot die because the host has no room for its writes loses its disk, and then it can. */
static void test_killed_on_full_disk(void **state)
{
	struct how how = { .out = "", .scratch = scratch };

	create_ok("a", &how);
	start_ok("a", "");
	container_killed(container_find(&all, "a"));
	run_for(KILLED_ROOM_NS / NS_PER_MS + 100);
	assert_int_equal(fake.unmapped, 0);
	fake_disk_room(true);
	container_killed(container_find(&all, "a"));
	turn();
	assert_int_equal(fake.unmapped, 0);
	trouble_due = "a killed container waits for room";
	run_for(KILLED_ROOM_NS / NS_PER_MS * 2 / 3);
	container_killed(container_find(&all, "a"));
	run_for(KILLED_ROOM_NS / NS_PER_MS / 3 + 100);
	trouble_due = NULL;
	assert_int_equal(fake.unmapped, 1);
	fake_exit("a", "", 137, false);
	turn();
	delete_ok("a");
	assert_int_equal(fake.unmap_missed, 0);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, pod_set_up, pod_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_delete_drains),	 TEST(test_delete_flushes),
		TEST(test_delete_and_end),	 TEST(test_delete_refused),
		TEST(test_delete_takes_scratch), TEST(test_create_late),
		TEST(test_start_late),		 TEST(test_killed_on_full_disk),
	};

	return cmocka_run_group_tests(tests, pod_set_up_files, pod_tear_down_files);
}
