#include "image/worker/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/worker/worker.h"

#define READ_MAX (16 * KIB)

void channel_init(struct channel *c)
{
	*c = (struct channel){ 0 };
	buf_init(&c->in, WORKER_MAX_LINE + READ_MAX);
}

void channel_fini(struct channel *c)
{
	buf_fini(&c->in);
	for (size_t k = 0; k < c->n_fds; k++)
		fd_close(&c->fds[k]);
}

int channel_receive(struct channel *c, bool wait, struct err *err)
{
	union {
		char space[CMSG_SPACE(CHANNEL_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	uint8_t *p;
	struct iovec iov = { .iov_len = READ_MAX };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n;

	if (buf_reserve(&c->in, iov.iov_len, &p) < 0)
		return err_set(err, -EPROTO, "command too long");
	iov.iov_base = p;
	n = recvmsg(CHANNEL_FD, &m, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : err_errno(err, -errno, "receive");
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		size_t k = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		if (c->n_fds + k > CHANNEL_MAX_FDS)
			return err_set(err, -EPROTO, "too many descriptors");
		memcpy(c->fds + c->n_fds, CMSG_DATA(h), k * sizeof(int));
		c->n_fds += k;
	}
	c->eof = n == 0;
	buf_commit(&c->in, (size_t)n);
	return 0;
}

int channel_line(struct channel *c, char **ret, struct err *err)
{
	const char *line = (const char *)buf_data(&c->in);
	size_t have = buf_len(&c->in);
	const char *nl = have ? memchr(line, '\n', have) : NULL;

	*ret = NULL;
	if (!nl)
		return 0;
	*ret = strndup(line, (size_t)(nl - line));
	buf_consume(&c->in, (size_t)(nl - line) + 1);
	return *ret ? 0 : err_set(err, -ENOMEM, "no memory");
}

int channel_take_fd(struct channel *c)
{
	int fd;

	if (!c->n_fds)
		return -1;
	fd = c->fds[0];
	memmove(c->fds, c->fds + 1, --c->n_fds * sizeof(c->fds[0]));
	return fd;
}

void channel_send(struct channel *c, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	if (!text || write_all(CHANNEL_FD, text, strlen(text)) < 0 ||
	    write_all(CHANNEL_FD, "\n", 1) < 0)
		c->broken = true;
	free(text);
	json_decref(j);
}

void channel_send_error(struct channel *c, uint32_t id, int code, bool again, const struct err *err)
{
	json_t *j = json_pack("{s:s, s:i, s:i, s:s, s:b}", "event", "error", "id", (int)id, "errno",
			      code, "text", err_text(err), "again", again);

	if (!j) /* not UTF-8: something that a stranger said */
		j = json_pack("{s:s, s:i, s:i, s:s, s:b}", "event", "error", "id", (int)id, "errno",
			      code, "text", strerror(-code), "again", again);
	channel_send(c, j);
}

void channel_send_document(struct channel *c, uint32_t id, const void *data, size_t len,
			   const char *media_type)
{
	json_t *j = json_pack("{s:s, s:i, s:I, s:s}", "event", "document", "id", (int)id, "length",
			      (json_int_t)len, "media_type", media_type);

	if (!j)
		j = json_pack("{s:s, s:i, s:I, s:s}", "event", "document", "id", (int)id, "length",
			      (json_int_t)len, "media_type", "");
	channel_send(c, j);
	if (write_all(CHANNEL_FD, data, len) < 0)
		c->broken = true;
}
