#include "base/fdpass.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/util.h"

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
};

ssize_t fdpass_sendv(int sock, const struct iovec *iov, size_t n_iov, const int *fds, size_t n_fds,
		     int flags)
{
	union control control = { 0 };
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov };
	struct cmsghdr *c = &control.align;
	size_t k = 0;
	ssize_t n;

	check(n_fds <= FDPASS_MAX);
	for (size_t i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			memcpy(CMSG_DATA(c) + k++ * sizeof(int), &fds[i], sizeof(int));
	if (k > 0) {
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(k * sizeof(int));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(k * sizeof(int));
	}
	do {
		n = sendmsg(sock, &m, flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t fdpass_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds, int flags)
{
	const struct iovec iov = { (void *)data, len };

	return fdpass_sendv(sock, &iov, 1, fds, n_fds, flags);
}

/* The descriptors of a message into fds. How many there were; those beyond fds_max are closed. */
static size_t take_fds(struct msghdr *m, int *fds, size_t fds_max)
{
	size_t k = 0;
	int fd;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++, k++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (k < fds_max)
				fds[k] = fd;
			else
				fd_close(&fd);
		}
	}
	return k;
}

ssize_t fdpass_receive(int sock, void *data, size_t size, int *fds, size_t fds_max, size_t *n_fds,
		       int flags)
{
	union control control;
	struct iovec iov = { data, size };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	size_t used = fds_max > 0 ? *n_fds : 0, room = fds_max - used, got;
	bool refused;
	ssize_t n;

	check(used <= fds_max);
	do {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
		n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	got = take_fds(&m, fds_max > 0 ? fds + used : NULL, room);
	refused = (m.msg_flags & MSG_TRUNC) ||
		  (fds_max > 0 && (got > room || (m.msg_flags & MSG_CTRUNC)));
	/* An empty packet is taken for the end, after which nobody looks for descriptors. */
	if (refused || n == 0) {
		for (size_t i = 0; i < MIN_OF(got, room); i++)
			fd_close(&fds[used + i]);
		return refused ? -EMSGSIZE : 0;
	}
	if (fds_max > 0)
		*n_fds = used + got;
	return n;
}
