#include "base/net/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"

#define ANSWER_MAX (32 * KIB) /* the kernel's own maximum for a part of a dump */

int netlink_open(struct netlink *nl)
{
	const struct timeval wait = { .tv_sec = NETLINK_WAIT_S };
	int one = 1;

	nl->seq = 0;
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (nl->fd < 0)
		return -errno;
	/* An error then comes without the request that it is about. */
	(void)setsockopt(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	if (setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0) {
		int r = -errno;

		netlink_close(nl);
		return r;
	}
	return 0;
}

void netlink_close(struct netlink *nl)
{
	fd_close(&nl->fd);
}

static int send_request(struct netlink *nl, struct nlmsg *m, uint16_t flags)
{
	if (m->full)
		return -ENOBUFS;
	m->head.nlmsg_seq = ++nl->seq;
	m->head.nlmsg_flags = (uint16_t)(m->head.nlmsg_flags | flags);
	return send(nl->fd, m->data, m->len, 0) < 0 ? -errno : 0;
}

/* The number in NLMSG_ERROR, or at the end of a dump. */
static int result_of(const struct nlmsg_view *v)
{
	struct cur c = cur_of(v->body, v->n);
	int error;

	if (!cur_copy(&c, &error, sizeof(error)) || error > 0)
		return -EBADMSG;
	return error;
}

/* One packet. 1 = there is more to come, else the result. */
static int take(struct netlink *nl, const void *data, size_t n, netlink_fn fn, void *arg)
{
	struct cur c = cur_of(data, n);
	struct nlmsg_view v;
	int r;

	while (nlmsg_next(&c, &v)) {
		if (v.seq != nl->seq)
			continue; /* of a request that was given up */
		if (v.flags & NLM_F_DUMP_INTR)
			return -EAGAIN;
		if (v.type == NLMSG_ERROR || v.type == NLMSG_DONE)
			return result_of(&v);
		r = fn && v.type >= NLMSG_MIN_TYPE ? fn(&v, arg) : 0;
		if (r != 0)
			return r;
	}
	return c.bad ? -EBADMSG : 1;
}

static int receive(struct netlink *nl, netlink_fn fn, void *arg)
{
	cleanup_free uint8_t *data = malloc(ANSWER_MAX);
	struct sockaddr_nl from;
	socklen_t len;
	ssize_t n;
	int r = 1;

	if (!data)
		return -ENOMEM;
	while (r == 1) {
		len = sizeof(from);
		n = recvfrom(nl->fd, data, ANSWER_MAX, MSG_TRUNC, (void *)&from, &len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if ((size_t)n > ANSWER_MAX)
			return -EMSGSIZE;
		if (from.nl_pid != 0)
			continue; /* not of the kernel */
		r = take(nl, data, (size_t)n, fn, arg);
	}
	return r;
}

int netlink_do(struct netlink *nl, struct nlmsg *m)
{
	int r = send_request(nl, m, NLM_F_ACK);

	return r < 0 ? r : receive(nl, NULL, NULL);
}

int netlink_dump(struct netlink *nl, struct nlmsg *m, netlink_fn fn, void *arg)
{
	int r = send_request(nl, m, NLM_F_DUMP);

	return r < 0 ? r : receive(nl, fn, arg);
}
