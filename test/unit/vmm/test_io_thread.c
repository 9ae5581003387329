/* The thread for disks: work that hangs holds up nobody who only asks, and a hold waits for it. */
#include "test/lib/unit.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/io_thread.h"

static struct io_thread t;
static atomic_int rounds, left, in_work;
static int gate[2]; /* work waits for a byte, unless `open` */
static atomic_bool open_gate;
static atomic_int wait_fd; /* the work waits for it and reads a byte a round; 0 = for nothing */

static bool io_work(void *arg)
{
	char c;

	assert_ptr_equal(arg, &gate);
	atomic_store(&in_work, 1);
	if (!atomic_load(&open_gate))
		assert_int_equal(read(gate[0], &c, 1), 1);
	if (t.fd_events)
		assert_int_equal(read(t.fd, &c, 1), 1);
	t.fd = atomic_load(&wait_fd);
	t.fd_events = t.fd > 0 ? POLLIN : 0;
	atomic_fetch_add(&rounds, 1);
	atomic_store(&in_work, 0);
	return atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) > 0;
}

static bool becomes(atomic_int *n, int want)
{
	for (int i = 0; i < 20000; i++) {
		if (atomic_load(n) == want)
			return true;
		(void)usleep(1000);
	}
	return false;
}

/* Its value once it does not change any more. */
static int settled(atomic_int *n)
{
	int was;

	do {
		was = atomic_load(n);
		(void)usleep(50000);
	} while (atomic_load(n) != was);
	return was;
}

static void *io_hold(void *arg)
{
	io_thread_hold(&t);
	atomic_store((atomic_int *)arg, 1);
	return NULL;
}

static void test_io_thread(void **state)
{
	int kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), data[2], n;
	static atomic_int held;
	struct err err = { 0 };
	pthread_t holder;
	uint64_t one = 1;

	io_thread_stop(&t); /* of one that was not started */
	io_thread_hold(&t);
	io_thread_release(&t);
	assert_int_equal(pipe(gate), 0);
	assert_ok(io_thread_start(&t, "test", io_work, gate, &err), &err);
	assert_true(becomes(&in_work, 1));
	/* It hangs: whoever wakes it does not. A hold waits, in another thread here. */
	io_thread_wake(&t);
	io_thread_wake(&t);
	assert_int_equal(pthread_create(&holder, NULL, io_hold, &held), 0);
	(void)usleep(20000);
	assert_int_equal(atomic_load(&held), 0);
	assert_true(io_thread_pausing(&t));
	atomic_store(&open_gate, true);
	assert_int_equal(write(gate[1], "x", 1), 1);
	assert_true(becomes(&held, 1));
	assert_int_equal(pthread_join(holder, NULL), 0);
	assert_int_equal(atomic_load(&rounds), 1);
	io_thread_watch(&t, 0, kick);
	io_thread_release(&t);
	assert_false(io_thread_pausing(&t));
	/* Kicks, and work that says there is more. */
	n = settled(&rounds);
	atomic_store(&left, 5);
	assert_int_equal(write(kick, &one, sizeof(one)), sizeof(one));
	assert_true(becomes(&rounds, n + 6));
	/* Idle: it sleeps. */
	assert_int_equal(settled(&rounds), n + 6);
	/* Any of its kicks. */
	io_thread_hold(&t);
	io_thread_watch(&t, 0, -1);
	io_thread_watch(&t, IO_THREAD_KICKS_MAX - 1, kick);
	io_thread_release(&t);
	assert_true(becomes(&rounds, n + 7));
	assert_int_equal(write(kick, &one, sizeof(one)), sizeof(one));
	assert_true(becomes(&rounds, n + 8));
	/* What the work waits for, while it does. */
	assert_int_equal(pipe(data), 0);
	assert_int_equal(write(data[1], "xy", 2), 2);
	atomic_store(&wait_fd, data[0]);
	io_thread_wake(&t);
	assert_true(becomes(&rounds, n + 11));
	assert_int_equal(settled(&rounds), n + 11);
	io_thread_stop(&t);
	io_thread_stop(&t);
	assert_int_equal(close(kick), 0);
	close(data[0]);
	close(data[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_io_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
