#include "vmm/dev/console.h"

#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"

enum { QUEUE_RX, QUEUE_TX };

#define ROUND_CHAINS 64
#define OUTPUT_MAX (64 * KIB) /* bytes of one chain */

void virtio_console_output(struct virtio_console *con, const struct iovec *iov, unsigned n)
{
	struct iovec part[VIRTQ_CHAIN_MAX];
	ssize_t r;

	if (con->sink < 0 || con->left == 0)
		return;
	n = iov_slice(iov, n, 0, MIN_OF(con->left, OUTPUT_MAX), part, ARRAY_SIZE(part));
	r = writev(con->sink, part, (int)n);
	if (r > 0 && con->left != UINT64_MAX)
		con->left -= (uint64_t)r;
}

static void console_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_console *con = container_of(d, struct virtio_console, dev);
	struct virtq *vq = &d->queues[QUEUE_TX];
	unsigned left = ROUND_CHAINS;
	struct virtq_chain c;

	if (queue != QUEUE_TX)
		return; /* there is no input: the driver's buffers stay where they are */
	virtq_disarm(vq);
	do {
		for (; left > 0 && virtq_pop(vq, &c) > 0; left--) {
			virtio_console_output(con, c.iov, c.n_out);
			virtq_push(vq, c.head, 0);
		}
		if (left == 0) {
			virtio_flush(d, QUEUE_TX);
			if (ev_timer_add(con->loop, &con->again, 0, con->again.cb, con) == 0)
				return;
			left = ROUND_CHAINS;
		}
	} while (virtq_arm(vq));
	virtio_flush(d, QUEUE_TX);
}

static void console_on_again(struct ev_timer *t)
{
	struct virtio_console *con = t->arg;

	console_notify(&con->dev, QUEUE_TX);
}

static void console_stop(struct virtio_dev *d)
{
	struct virtio_console *con = container_of(d, struct virtio_console, dev);

	ev_timer_del(&con->again);
}

static const struct virtio_dev_ops console_ops = {
	.id = VIRTIO_ID_CONSOLE,
	.name = "console",
	.n_queues = 2,
	.queue_max = { CONSOLE_QUEUE_SIZE, CONSOLE_QUEUE_SIZE },
	.stop = console_stop,
	.notify = console_notify,
};

void virtio_console_init(struct virtio_console *c, struct loop *l)
{
	*c = (struct virtio_console){ .dev.ops = &console_ops, .loop = l, .sink = -1 };
	c->again.cb = console_on_again;
}

void virtio_console_set_sink(struct virtio_console *c, int fd)
{
	struct stat st;

	fd_close(&c->sink);
	/* A sink that cannot be made non-blocking could stop the loop: better no output. */
	if (fd >= 0 && (fstat(fd, &st) < 0 || fd_set_nonblock(fd, true) < 0))
		fd_close(&fd);
	c->sink = fd;
	c->left = fd >= 0 && S_ISREG(st.st_mode) ? CONSOLE_FILE_MAX : UINT64_MAX;
}

void virtio_console_fini(struct virtio_console *c)
{
	ev_timer_del(&c->again);
	fd_close(&c->sink);
}
