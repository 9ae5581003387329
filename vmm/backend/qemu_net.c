#include "vmm/backend/qemu_net.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define BACKLOG 4

/* ---- the link ---- */

static void qemu_net_on_qmp(struct ev_io *io, uint32_t events)
{
	char waste[4 * KIB];
	ssize_t n = recv(io->fd, waste, sizeof(waste), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		ev_io_del(io); /* QEMU's exit tells */
}

static void say(struct qemu_net *n, const char *text)
{
	/* Commands are few and short: a socket without room is one that QEMU does not read. */
	if (send(n->qmp, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_warn("QEMU does not hear of the network's link", "err", strerror(errno));
}

static void qemu_net_tell_link(void *arg)
{
	struct qemu_net *n = arg;
	uint16_t status = 0;

	n->dev->ops->config_read(n->dev, offsetof(struct virtio_net_config, status), &status,
				 sizeof(status));
	say(n,
	    status & VIRTIO_NET_S_LINK_UP
		    ? "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"eth0\",\"up\":true}}\n"
		    : "{\"execute\":\"set_link\",\"arguments\":{\"name\":\"eth0\",\"up\":false}}"
		      "\n");
}

/* ---- the connection ---- */

static bool is_peer(const struct qemu_net *n, int fd)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) == 0 && u.pid == n->pid;
}

/* QEMU waits in here while it starts: its main loop, and with it the guest, come later. */
static void qemu_net_on_connect(struct ev_io *io, uint32_t events)
{
	struct qemu_net *n = io->arg;
	struct err err = { 0 };
	int fd = accept4(n->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (!is_peer(n, fd)) {
		log_limited(LOG_WARN, "somebody else wanted to be QEMU");
		fd_close(&fd);
		return;
	}
	ev_io_del(&n->listener_io);
	fd_close(&n->listener);
	if (vhost_user_init(&n->vhost, n->loop, n->dev, fd, n->failed, n->arg, &err) < 0) {
		n->failed(n->arg, err_text(&err));
		return;
	}
	n->vhost.own_config = false;
	n->vhost.config_changed = qemu_net_tell_link;
	n->vhost.config_arg = n;
	say(n, "{\"execute\":\"qmp_capabilities\"}\n");
	qemu_net_tell_link(n);
}

static int listen_for_qemu(struct qemu_net *n, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char id[65];
	socklen_t len;
	int r = random_id(id);

	if (r < 0)
		return err_errno(err, r, "random name");
	snprintf(n->name, sizeof(n->name), "husk-vmm-%.24s", id);
	memcpy(a.sun_path + 1, n->name, strlen(n->name)); /* the first byte 0: not in a directory */
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(n->name));
	n->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (n->listener < 0 || bind(n->listener, (void *)&a, len) < 0 ||
	    listen(n->listener, BACKLOG) < 0)
		return err_errno(err, -errno, "socket for QEMU's network");
	r = ev_io_add(n->loop, &n->listener_io, n->listener, EPOLLIN, qemu_net_on_connect, n);
	return r < 0 ? err_errno(err, r, "socket for QEMU's network") : 0;
}

int qemu_net_init(struct qemu_net *n, struct loop *loop, struct virtio_dev *dev,
		  void (*failed)(void *arg, const char *why), void *arg, int *ret_qmp,
		  struct err *err)
{
	uint8_t mac[6];
	int sv[2], r;

	*n = (struct qemu_net){ .loop = loop, .dev = dev, .failed = failed, .arg = arg };
	n->listener = n->qmp = -1;
	if (!dev)
		return err_set(err, -ENODEV, "a device is missing");
	dev->ops->config_read(dev, offsetof(struct virtio_net_config, mac), mac, sizeof(mac));
	snprintf(n->mac, sizeof(n->mac), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		 mac[3], mac[4], mac[5]);
	r = listen_for_qemu(n, err);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return err_errno(err, -errno, "socketpair");
	n->qmp = sv[0];
	*ret_qmp = sv[1];
	r = ev_io_add(loop, &n->qmp_io, n->qmp, EPOLLIN, qemu_net_on_qmp, n);
	return r < 0 ? err_errno(err, r, "watch QEMU's control socket") : 0;
}

void qemu_net_set_peer(struct qemu_net *n, pid_t pid)
{
	n->pid = pid;
}

void qemu_net_fini(struct qemu_net *n)
{
	if (!n->loop)
		return;
	vhost_user_fini(&n->vhost);
	ev_io_del(&n->listener_io);
	ev_io_del(&n->qmp_io);
	fd_close(&n->listener);
	fd_close(&n->qmp);
}
