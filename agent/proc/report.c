#include "agent/proc/report.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fdpass.h"

int report_send(int sock, const struct report *rep, int fd)
{
	ssize_t n = fdpass_send(sock, rep, sizeof(*rep), &fd, 1, 0);

	return n < 0 ? (int)n : 0;
}

int report_let_go(int sock)
{
	const char go = 'g';
	ssize_t n = fdpass_send(sock, &go, sizeof(go), NULL, 0, MSG_DONTWAIT);

	return n < 0 ? (int)n : 0;
}

int report_wait_go(int sock)
{
	char go;
	ssize_t n = fdpass_receive(sock, &go, sizeof(go), NULL, 0, NULL, 0);

	if (n < 0)
		return (int)n;
	return n == 0 ? -EPIPE : 0;
}

int report_receive(int sock, struct report *ret, int *ret_fd)
{
	size_t n_fds = 0;
	ssize_t n;

	*ret_fd = -1;
	n = fdpass_receive(sock, ret, sizeof(*ret), ret_fd, 1, &n_fds, MSG_DONTWAIT);
	if (n <= 0)
		return (int)n;
	if ((size_t)n != sizeof(*ret))
		memset(ret, 0, sizeof(*ret));
	ret->stage[sizeof(ret->stage) - 1] = '\0';
	ret->text[sizeof(ret->text) - 1] = '\0';
	return 1;
}
