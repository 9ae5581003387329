/* Streams and the event ring: a listener of AF_UNIX stands for the guest's vsock port. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/events.h"
#include "agent/io/stream.h"
#include "base/util.h"

static struct loop *loop;
static struct stdio sio;
static char dir[] = "/tmp/test_agent_stdio.XXXXXX";
static char addr[64];
static int owner, other;
static struct err err;

static int set_up(void **state)
{
	int fd;

	snprintf(addr, sizeof(addr), "%s/s", dir);
	assert_ok(loop_new(&loop, &err), &err);
	assert_ok(unix_listen(addr, 0600, &fd, &err), &err);
	assert_ok(stdio_init(&sio, loop, fd, false, &err), &err);
	return 0;
}

static int tear_down(void **state)
{
	stdio_fini(&sio);
	loop_free(loop);
	unlink(addr);
	return 0;
}

static void turn(void)
{
	for (int i = 0; i < 50; i++)
		assert_true(loop_once(loop, 0) >= 0);
}

static int open_stream(uint64_t id)
{
	uint8_t b[8];
	int fd;

	assert_ok(unix_connect(addr, &fd, &err), &err);
	for (int i = 0; i < 8; i++)
		b[i] = (uint8_t)(id >> (8 * i));
	assert_int_equal(write_all(fd, b, 8), 0);
	assert_int_equal(fd_set_nonblock(fd, true), 0);
	return fd;
}

/* The container's end of a claimed pipe. */
static int claim(uint64_t id, enum stream_dir dir_of)
{
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_ok(stdio_claim(&sio, &owner, id, dir_of, p[dir_of == STREAM_INPUT ? 1 : 0], false,
			      &err),
		  &err);
	return p[dir_of == STREAM_INPUT ? 0 : 1];
}

static void expect(int fd, const char *want)
{
	char buf[100] = "";

	turn();
	assert_int_equal(read(fd, buf, sizeof(buf) - 1), (int)strlen(want));
	assert_string_equal(buf, want);
}

static bool ended(int fd)
{
	char c;

	turn();
	return read(fd, &c, 1) == 0;
}

static void test_both_orders(void **state)
{
	int host = open_stream(1);
	int host2;
	int in2;
	int in;

	turn();
	assert_int_equal(sio.n_conns, 1);
	in = claim(1, STREAM_OUTPUT);
	assert_int_equal(write(in, "early", 5), 5);
	expect(host, "early");
	assert_int_equal(sio.n_conns, 0);

	in2 = claim(2, STREAM_OUTPUT);
	assert_int_equal(write(in2, "before", 6), 6);
	close(in2); /* the process is gone before the host comes */
	turn();
	host2 = open_stream(2);
	expect(host2, "before");
	assert_true(ended(host2));
	close(host2);
	close(in);
	assert_true(ended(host));
	assert_int_equal(sio.n_streams, 1); /* until the host closes, too */
	close(host);
	turn();
	assert_int_equal(sio.n_streams, 0);
}

static void test_input(void **state)
{
	int host = open_stream(5), out;

	/* Bytes right behind the id belong to the process. */
	assert_int_equal(write(host, "x1", 2), 2);
	turn();
	out = claim(5, STREAM_INPUT);
	assert_int_equal(fd_set_nonblock(out, true), 0);
	expect(out, "x1");
	assert_int_equal(shutdown(host, SHUT_WR), 0);
	assert_true(ended(out));
	assert_true(ended(host));
	assert_int_equal(sio.n_streams, 0);
	close(out);
	close(host);

	/* The process does not read any more: the host learns it. */
	host = open_stream(6);
	out = claim(6, STREAM_INPUT);
	turn();
	close(out);
	assert_true(ended(host));
	close(host);
}

static void test_output_broken(void **state)
{
	int in = claim(7, STREAM_OUTPUT), host = open_stream(7);

	turn();
	/* The host ends its own direction: output goes on. */
	assert_int_equal(shutdown(host, SHUT_WR), 0);
	assert_int_equal(write(in, "more", 4), 4);
	expect(host, "more");
	close(host);
	turn();
	assert_int_equal(write(in, "x", 1), -1);
	assert_int_equal(errno, EPIPE);
	assert_int_equal(sio.n_streams, 0);
	close(in);
}

/* A stream that nobody reads keeps its bytes and holds up no other one. */
static void test_backpressure(void **state)
{
	static char block[65536];
	int slow_in = claim(10, STREAM_OUTPUT), slow = open_stream(10);
	int in = claim(11, STREAM_OUTPUT), host = open_stream(11);
	size_t sent = 0, got = 0;

	assert_int_equal(fd_set_nonblock(slow_in, true), 0);
	for (int i = 0; i < 100; i++) {
		ssize_t n = write(slow_in, block, sizeof(block));

		sent += n > 0 ? (size_t)n : 0;
		turn();
	}
	assert_true(sent < 100 * sizeof(block)); /* it is full */
	assert_int_equal(write(in, "alive", 5), 5);
	expect(host, "alive");
	/* With nothing to do the loop sleeps: no callback runs. */
	turn();
	assert_int_equal(loop_once(loop, 0), 0);
	close(slow_in);
	turn();
	assert_int_equal(loop_once(loop, 0), 0);
	for (int i = 0; i < 10000 && got < sent; i++) {
		ssize_t n = read(slow, block, sizeof(block));

		got += n > 0 ? (size_t)n : 0;
		turn();
	}
	assert_int_equal(got, sent);
	assert_true(ended(slow));
	close(slow);
	close(host);
	close(in);
}

static void test_refusals(void **state)
{
	int in = claim(20, STREAM_OUTPUT), fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	int a, b, c, d, half, zero;

	assert_int_equal(stdio_claim(&sio, &owner, 20, STREAM_OUTPUT, fd, false, &err), -EEXIST);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(stdio_claim(&sio, &owner, 0, STREAM_OUTPUT, fd, false, &err), -EINVAL);
	a = open_stream(20);
	b = open_stream(20);
	zero = open_stream(0);
	assert_true(ended(b)); /* the id is taken */
	assert_true(ended(zero));
	c = open_stream(21);
	d = open_stream(21);
	assert_true(ended(d));
	/* Half an id, then nothing. */
	assert_ok(unix_connect(addr, &half, &err), &err);
	assert_int_equal(write(half, "abc", 3), 3);
	turn();
	assert_int_equal(sio.n_conns, 2);
	close(half);
	turn();
	assert_int_equal(sio.n_conns, 1);
	stdio_forget(&sio, 21);
	assert_true(ended(c));
	stdio_drop(&sio, &other);
	assert_int_equal(stdio_count(&sio, &owner), 1);
	stdio_drop(&sio, &owner);
	assert_int_equal(stdio_count(&sio, &owner), 0);
	assert_true(ended(a));
	close(a);
	close(b);
	close(c);
	close(d);
	close(zero);
	close(in);
}

static void test_too_many_unclaimed(void **state)
{
	int fds[AGENT_UNCLAIMED_MAX + 1];
	int in;

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = open_stream(1000 + i);
		turn();
	}
	assert_int_equal(sio.n_conns, AGENT_UNCLAIMED_MAX);
	assert_true(ended(fds[0])); /* the oldest gave way */
	in = claim(1000 + AGENT_UNCLAIMED_MAX, STREAM_OUTPUT);
	assert_int_equal(write(in, "new", 3), 3);
	expect(fds[AGENT_UNCLAIMED_MAX], "new");
	close(in);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void test_event_ring(void **state)
{
	struct events e = { 0 };
	struct event ev = { .id = "c" };

	assert_null(events_next(&e, 0));
	for (uint32_t i = 1; i <= 10; i++) {
		ev.pid = i;
		assert_int_equal(events_add(&e, &ev), 0);
	}
	assert_int_equal(events_next(&e, 0)->seq, 1);
	assert_int_equal(events_next(&e, 9)->pid, 10);
	assert_null(events_next(&e, 10));
	for (uint32_t i = 11; i <= 10 + AGENT_EVENTS_KEPT; i++) {
		ev.pid = i;
		assert_int_equal(events_add(&e, &ev), 0);
	}
	/* The oldest that is left; the gap shows in the number. */
	assert_int_equal(events_next(&e, 0)->seq, 11);
	assert_int_equal(events_next(&e, 11)->seq, 12);
	assert_int_equal(events_next(&e, 9 + AGENT_EVENTS_KEPT)->pid, 10 + AGENT_EVENTS_KEPT);
	assert_null(events_next(&e, 10 + AGENT_EVENTS_KEPT));
	events_fini(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_both_orders, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_input, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_output_broken, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_backpressure, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many_unclaimed, set_up, tear_down),
		cmocka_unit_test(test_event_ring),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	(void)!remove_tree(dir, NULL);
	return failed;
}
