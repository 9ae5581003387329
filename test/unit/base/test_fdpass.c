#include "test/lib/aborts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"

static int sv[2];

static int stream(void **state)
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv);
}

static int packets(void **state)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);
}

static int tear_down(void **state)
{
	fd_close(&sv[0]);
	fd_close(&sv[1]);
	return 0;
}

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

/* n descriptors of a pipe that holds one byte, as a message "hello". */
static void send_fds(unsigned n)
{
	int p[2], fds[FDPASS_MAX];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	(void)close(p[1]);
	for (unsigned i = 0; i < n; i++)
		fds[i] = p[0];
	assert_int_equal(fdpass_send(sv[0], "hello", 5, fds, n, 0), 5);
	(void)close(p[0]);
}

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fd_close(&fds[i]);
}

static void arrives(void **state)
{
	int fds[4] = { -7, -7, -7, -7 };
	char data[10], byte;
	size_t n = 1;

	send_fds(2);
	assert_int_equal(fdpass_receive(sv[1], data, sizeof(data), fds, 4, &n, 0), 5);
	assert_memory_equal(data, "hello", 5);
	/* Appended; the first was in use. */
	assert_int_equal(n, 3);
	assert_int_equal(fds[0], -7);
	assert_int_equal(fds[3], -7);
	assert_int_equal(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
	assert_int_equal(read(fds[2], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	close_all(fds + 1, 2);
	/* No descriptor at all. */
	send_fds(0);
	assert_int_equal(fdpass_receive(sv[1], data, sizeof(data), fds, 4, &n, 0), 5);
	assert_int_equal(n, 3);
}

static void holes_are_left_out(void **state)
{
	const int fds[3] = { -1, sv[0], -1 };
	struct iovec iov[2] = { { (char *)"ab", 2 }, { (char *)"cde", 3 } };
	char data[5];
	int got[3];
	size_t n = 0;

	assert_int_equal(fdpass_sendv(sv[0], iov, 2, fds, 3, MSG_DONTWAIT), 5);
	assert_int_equal(fdpass_receive(sv[1], data, 5, got, 3, &n, MSG_DONTWAIT), 5);
	assert_memory_equal(data, "abcde", 5);
	assert_int_equal(n, 1);
	fd_close(&got[0]);
	/* Nothing but holes is a message without descriptors. */
	n = 0;
	assert_int_equal(fdpass_send(sv[0], "z", 1, fds, 1, 0), 1);
	assert_int_equal(fdpass_receive(sv[1], data, 5, got, 3, &n, 0), 1);
	assert_int_equal(n, 0);
}

static void the_end_and_nothing_there(void **state)
{
	char data[5];
	size_t n = 0;
	int fd;

	assert_int_equal(fdpass_receive(sv[1], data, 5, &fd, 1, &n, MSG_DONTWAIT), -EAGAIN);
	fd_close(&sv[0]);
	assert_int_equal(fdpass_receive(sv[1], data, 5, &fd, 1, &n, 0), 0);
	assert_int_equal(fdpass_send(sv[1], "x", 1, NULL, 0, 0), -EPIPE);
	assert_int_equal(fdpass_receive(-1, data, 5, &fd, 1, &n, 0), -EBADF);
	assert_int_equal(fdpass_send(-1, "x", 1, NULL, 0, 0), -EBADF);
	assert_int_equal(n, 0);
}

/* One too many for the room, for the kernel's padding, for the control buffer: none is left
 * open. */
static void too_many(void **state)
{
	unsigned before;
	int fds[FDPASS_MAX];
	char data[5];
	size_t n;

	for (unsigned sent = 2; sent <= FDPASS_MAX; sent++) {
		before = open_files();
		n = 1;
		send_fds(sent);
		assert_int_equal(fdpass_receive(sv[1], data, 5, fds, sent, &n, 0), -EMSGSIZE);
		assert_int_equal(n, 1);
		assert_int_equal(open_files(), before);
	}
	n = 0;
	send_fds(FDPASS_MAX);
	assert_int_equal(fdpass_receive(sv[1], data, 5, fds, FDPASS_MAX, &n, 0), 5);
	assert_int_equal(n, FDPASS_MAX);
	close_all(fds, n);
}

/* A peer of another kind may send more than we ever do. */
static void more_than_the_module_sends(void **state)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(100 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (char *)"x", 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	unsigned before = open_files();
	int all[100], fds[FDPASS_MAX];
	size_t n = 0;
	char byte;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		all[i] = sv[0];
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(all));
	memcpy(CMSG_DATA(c), all, sizeof(all));
	assert_int_equal(sendmsg(sv[0], &m, 0), 1);
	assert_int_equal(fdpass_receive(sv[1], &byte, 1, fds, FDPASS_MAX, &n, 0), -EMSGSIZE);
	assert_int_equal(n, 0);
	assert_int_equal(open_files(), before);
	assert_int_equal(sendmsg(sv[0], &m, 0), 1);
	assert_int_equal(fdpass_receive(sv[1], &byte, 1, NULL, 0, NULL, 0), 1);
	assert_int_equal(open_files(), before);
}

static void not_expected(void **state)
{
	unsigned before = open_files();
	char data[5];

	send_fds(3);
	assert_int_equal(fdpass_receive(sv[1], data, 5, NULL, 0, NULL, 0), 5);
	assert_memory_equal(data, "hello", 5);
	assert_int_equal(open_files(), before);
}

static void a_packet_that_is_cut(void **state)
{
	unsigned before = open_files();
	char data[4];
	size_t n = 0;
	int fd = -1;

	send_fds(1);
	assert_int_equal(fdpass_receive(sv[1], data, 4, &fd, 1, &n, 0), -EMSGSIZE);
	assert_int_equal(n, 0);
	assert_int_equal(open_files(), before);
}

/* Taken for the end: nobody would look for its descriptors. */
static void an_empty_packet(void **state)
{
	const int given = STDERR_FILENO;
	unsigned before = open_files();
	int fds[4] = { -7, -7, -7, -7 };
	char data[5];
	size_t n = 1;

	assert_int_equal(fdpass_send(sv[0], "", 0, &given, 1, 0), 0);
	assert_int_equal(fdpass_receive(sv[1], data, 5, fds, 4, &n, 0), 0);
	assert_int_equal(n, 1);
	assert_int_equal(open_files(), before);
}

static void send_too_many(void *arg)
{
	int fds[FDPASS_MAX + 1] = { 0 };

	(void)!fdpass_send(sv[0], "x", 1, fds, FDPASS_MAX + 1, 0);
}

static void bounds_of_the_caller(void **state)
{
	assert_aborts(send_too_many, NULL, "n_fds <= FDPASS_MAX");
}

#define STREAM(f) cmocka_unit_test_setup_teardown(f, stream, tear_down)
#define PACKETS(f) cmocka_unit_test_setup_teardown(f, packets, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STREAM(arrives),
		PACKETS(arrives),
		STREAM(holes_are_left_out),
		PACKETS(holes_are_left_out),
		STREAM(the_end_and_nothing_there),
		PACKETS(the_end_and_nothing_there),
		STREAM(too_many),
		PACKETS(too_many),
		STREAM(more_than_the_module_sends),
		STREAM(not_expected),
		PACKETS(not_expected),
		PACKETS(a_packet_that_is_cut),
		PACKETS(an_empty_packet),
		STREAM(bounds_of_the_caller),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
