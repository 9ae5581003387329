/* The child's report over its socket. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/proc/report.h"
#include "base/fdpass.h"
#include "base/util.h"

static int sv[2];

static int set_up(void **state)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);
}

static int tear_down(void **state)
{
	fd_close(&sv[0]);
	fd_close(&sv[1]);
	return 0;
}

static void test_failure(void **state)
{
	struct report out = { .kind = REPORT_FAILED, .error = ENOENT, .stage = "exec" }, in;
	int fd;

	assert_int_equal(report_receive(sv[0], &in, &fd), -EAGAIN);
	snprintf(out.text, sizeof(out.text), "\"nothing\": no such file");
	assert_int_equal(report_send(sv[1], &out, -1), 0);
	assert_int_equal(report_receive(sv[0], &in, &fd), 1);
	assert_int_equal(fd, -1);
	assert_int_equal(in.kind, REPORT_FAILED);
	assert_int_equal(in.error, ENOENT);
	assert_string_equal(in.stage, "exec");
	assert_string_equal(in.text, "\"nothing\": no such file");
	fd_close(&sv[1]); /* as exec does */
	assert_int_equal(report_receive(sv[0], &in, &fd), 0);
}

/* The child goes on when it is told to, and not when the agent is gone. */
static void test_go(void **state)
{
	struct report in;
	int fd;

	assert_int_equal(report_let_go(sv[0]), 0);
	assert_int_equal(report_wait_go(sv[1]), 0);
	assert_int_equal(report_receive(sv[0], &in, &fd), -EAGAIN);
	fd_close(&sv[0]);
	assert_int_equal(report_wait_go(sv[1]), -EPIPE);
	assert_int_equal(report_let_go(sv[1]), -EPIPE);
}

static void test_descriptor(void **state)
{
	struct report out = { .kind = REPORT_TTY }, in;
	int fd, given = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct stat a, b;

	assert_int_equal(report_send(sv[1], &out, given), 0);
	assert_int_equal(report_receive(sv[0], &in, &fd), 1);
	assert_int_equal(in.kind, REPORT_TTY);
	assert_true(fd >= 0 && fd != given);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fstat(fd, &a), 0);
	assert_int_equal(fstat(given, &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	close(fd);
	close(given);
}

/* Packets of another size say nothing, and texts end inside. */
static void test_wrong(void **state)
{
	struct report out = { .kind = REPORT_FAILED, .error = 5 }, in;
	int fd;

	assert_int_equal(send(sv[1], &out, 20, 0), 20);
	assert_int_equal(report_receive(sv[0], &in, &fd), 1);
	assert_int_equal(in.kind, 0);
	memset(out.stage, 's', sizeof(out.stage));
	memset(out.text, 't', sizeof(out.text));
	assert_int_equal(report_send(sv[1], &out, -1), 0);
	assert_int_equal(report_receive(sv[0], &in, &fd), 1);
	assert_int_equal(strnlen(in.stage, sizeof(in.stage)), sizeof(in.stage) - 1);
	assert_int_equal(strnlen(in.text, sizeof(in.text)), sizeof(in.text) - 1);
}

/* More than a report: refused, and nothing of it is kept. */
static void test_too_much(void **state)
{
	struct report out[2] = { { .kind = REPORT_TTY } }, in;
	const int given[2] = { sv[0], sv[1] };
	int fd;

	assert_int_equal(fdpass_send(sv[1], out, sizeof(out), given, 1, 0), sizeof(out));
	assert_int_equal(report_receive(sv[0], &in, &fd), -EMSGSIZE);
	assert_int_equal(fd, -1);
	assert_int_equal(fdpass_send(sv[1], out, sizeof(out[0]), given, 2, 0), sizeof(out[0]));
	assert_int_equal(report_receive(sv[0], &in, &fd), -EMSGSIZE);
	assert_int_equal(fd, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_failure, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_go, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_descriptor, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_much, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
