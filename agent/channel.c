#include "agent/channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "base/limits.h"
#include "base/util.h"

#define BACKLOG 128
#define CONNECT_TIMEOUT_S 30 /* the kernel's own 2 s are short for an overloaded host */

static int vsock(int *ret_fd)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int channel_listen(int *ret_fd)
{
	const struct sockaddr_vm addr = { .svm_family = AF_VSOCK,
					  .svm_cid = VMADDR_CID_ANY,
					  .svm_port = VSOCK_STREAM_PORT };
	cleanup_fd int fd = -1;
	int r = vsock(&fd);

	if (r < 0)
		return r;
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

int channel_connect(int *ret_fd)
{
	const struct sockaddr_vm addr = { .svm_family = AF_VSOCK,
					  .svm_cid = VMADDR_CID_HOST,
					  .svm_port = VSOCK_AGENT_PORT };
	const struct timeval timeout = { .tv_sec = CONNECT_TIMEOUT_S };
	cleanup_fd int fd = -1;
	int r = vsock(&fd);

	if (r < 0)
		return r;
	if (setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, sizeof(timeout)) < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 && errno != EINPROGRESS)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

int channel_result(int fd)
{
	int e = 0;
	socklen_t len = sizeof(e);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
		return -errno;
	return -e;
}
