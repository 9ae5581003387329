#include "image/layer/unpack_pipe.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/check.h"

#define MARK_NEXT 0u
#define MARK_END UINT32_MAX

/* ---- the decoder's end ---- */

static int write_frame(int fd, uint32_t number, const void *data, size_t len)
{
	struct iovec v[2] = { { &number, sizeof(number) }, { (void *)data, len } };
	size_t left = sizeof(number) + len;

	while (left) {
		ssize_t n = writev(fd, v, 2);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		left -= (size_t)n;
		for (int k = 0; k < 2; k++) {
			size_t done = MIN_OF((size_t)n, v[k].iov_len);

			v[k].iov_base = (char *)v[k].iov_base + done;
			v[k].iov_len -= done;
			n -= (ssize_t)done;
		}
	}
	return 0;
}

int unpack_pipe_write(int fd, const void *data, size_t len)
{
	check(len != MARK_NEXT && len < MARK_END);
	return write_frame(fd, (uint32_t)len, data, len);
}

int unpack_pipe_write_end(int fd, bool last)
{
	return write_frame(fd, last ? MARK_END : MARK_NEXT, NULL, 0);
}

/* ---- the builder's end ---- */

void unpack_pipe_init(struct unpack_pipe *p, ssize_t (*read)(void *arg, void *buf, size_t n),
		      void *arg)
{
	p->read = read;
	p->arg = arg;
	p->left = 0;
	p->layer_ended = p->ended = false;
}

ssize_t unpack_pipe_read_fd(void *arg, void *buf, size_t n)
{
	for (;;) {
		ssize_t r = read(*(const int *)arg, buf, n);

		if (r >= 0 || errno != EINTR)
			return r < 0 ? -errno : r;
	}
}

static int read_number(struct unpack_pipe *p)
{
	uint32_t number;
	size_t got = 0;

	while (got < sizeof(number)) {
		ssize_t n = p->read(p->arg, (char *)&number + got, sizeof(number) - got);

		if (n <= 0)
			return n < 0 ? (int)n : -EPIPE;
		got += (size_t)n;
	}
	p->ended = number == MARK_END;
	p->layer_ended = p->ended || number == MARK_NEXT;
	p->left = p->layer_ended ? 0 : number;
	return 0;
}

ssize_t unpack_pipe_read(struct unpack_pipe *p, const void **ret)
{
	ssize_t n;
	int r = p->left || p->layer_ended ? 0 : read_number(p);

	if (r < 0)
		return r;
	if (p->layer_ended)
		return 0;
	n = p->read(p->arg, p->buf, MIN_OF(p->left, (uint32_t)sizeof(p->buf)));
	if (n <= 0)
		return n < 0 ? n : -EPIPE;
	p->left -= (uint32_t)n;
	*ret = p->buf;
	return n;
}

bool unpack_pipe_next(struct unpack_pipe *p)
{
	check(p->layer_ended);
	if (!p->ended)
		p->layer_ended = false;
	return !p->ended;
}
