#include "vmm/dev/net.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"

enum { QUEUE_RX, QUEUE_TX };

/* Shown to the driver together: whichever comes first. */
#define ROUND_PACKETS 64
#define ROUND_BYTES (1 * MIB)
#define ETHER_LEN 14
#define GSO_UDP_L4 5 /* Linux 6.2 */

_Static_assert(sizeof(struct virtio_net_hdr_v1) == TAP_HEADER_LEN, "header");

struct net_config { /* 5.1.4, as far as it is offered */
	uint8_t mac[6];
	uint16_t status;
};

/* The tap is of no use any more; the main loop closes it. */
static void net_fail(struct virtio_net *n, int error)
{
	uint64_t one = 1;

	atomic_store(&n->failed, error);
	if (n->failed_fd >= 0 && write(n->failed_fd, &one, sizeof(one)) < 0)
		log_debug("net: an eventfd fails");
}

static bool has_tap(struct virtio_net *n)
{
	return n->tap >= 0 && atomic_load(&n->failed) == 0;
}

/* ---- guest to tap ---- */

/* NULL, or why the driver must not send this. What the host has no use for is cleared. */
static const char *check_gso(uint64_t features, struct virtio_net_hdr_v1 *h, size_t len)
{
	bool ecn = h->gso_type & VIRTIO_NET_HDR_GSO_ECN;
	uint64_t need = ecn ? NET_F_HOST_ECN : 0;

	switch (h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE:
		h->gso_size = h->hdr_len = 0;
		return ecn ? "ECN without segmentation" : NULL;
	case VIRTIO_NET_HDR_GSO_TCPV4:
		need |= NET_F_HOST_TSO4;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		need |= NET_F_HOST_TSO6;
		break;
	case GSO_UDP_L4:
		if (ecn)
			return "ECN without TCP";
		need |= NET_F_HOST_USO;
		break;
	default:
		return "unknown kind of segmentation";
	}
	if ((features & need) != need)
		return "segmentation that was not negotiated";
	if (!(h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return "segmentation without a checksum";
	if (h->gso_size < NET_GSO_SIZE_MIN || h->hdr_len > len)
		return "segments of an absurd size";
	return NULL;
}

static const char *check_header(uint64_t features, struct virtio_net_hdr_v1 *h, size_t len)
{
	h->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM; /* the others are for the device to set */
	h->num_buffers = 0;
	if (!h->flags) {
		h->csum_start = h->csum_offset = 0;
	} else if (!(features & NET_F_CSUM)) {
		return "checksum that was not negotiated";
	} else if (h->csum_start < ETHER_LEN ||
		   (size_t)h->csum_start + h->csum_offset + sizeof(uint16_t) > len) {
		return "checksum outside of the packet";
	}
	return check_gso(features, h, len);
}

static void drop_sent(struct virtio_net *n, const char *why)
{
	n->tx_dropped++;
	log_limited(LOG_DEBUG, "net: a packet of the guest is dropped", "why", why);
}

/* False: the tap is full, and the chain is to be sent later. */
static bool send_packet(struct virtio_net *n, const struct virtq_chain *c)
{
	struct iovec iov[VIRTQ_CHAIN_MAX + 1];
	struct virtio_net_hdr_v1 h;
	const char *why = "wrong length";
	size_t len;
	unsigned k;

	if (!has_tap(n)) {
		n->tx_dropped++;
		return true;
	}
	if (c->out_len >= sizeof(h) + ETHER_LEN && c->out_len <= NET_FRAME_MAX) {
		len = c->out_len - sizeof(h);
		iov_read(c->iov, c->n_out, 0, &h, sizeof(h));
		why = check_header(n->features, &h, len);
	}
	if (why) {
		drop_sent(n, why);
		return true;
	}
	/* The header that was checked, not the guest's, which may have changed. */
	iov[0] = (struct iovec){ .iov_base = &h, .iov_len = sizeof(h) };
	k = iov_slice(c->iov, c->n_out, sizeof(h), len, iov + 1, VIRTQ_CHAIN_MAX);
	if (writev(n->tap, iov, (int)k + 1) >= 0)
		return true;
	if (errno == EAGAIN)
		return false;
	if (errno == EBADFD)
		net_fail(n, errno);
	/* EIO: the interface is down; EINVAL: the host does not like it. */
	drop_sent(n, strerror(errno));
	return true;
}

/* True: there is more. */
static bool tx_round(struct virtio_net *n)
{
	struct virtq *vq = &n->dev.queues[QUEUE_TX];
	struct virtq_chain c;
	unsigned packets = 0;
	size_t bytes = 0;
	bool more;

	n->tx_full = false;
	virtq_disarm(vq);
	do {
		while (packets < ROUND_PACKETS && bytes < ROUND_BYTES &&
		       !io_thread_pausing(&n->thread) && virtq_pop(vq, &c) > 0) {
			if (!send_packet(n, &c)) {
				virtq_unpop(vq);
				n->tx_full = true;
				break;
			}
			virtq_push(vq, c.head, 0);
			bytes += c.out_len;
			packets++;
		}
		more = packets >= ROUND_PACKETS || bytes >= ROUND_BYTES ||
		       io_thread_pausing(&n->thread);
	} while (!more && !n->tx_full && virtq_arm(vq));
	virtio_flush(&n->dev, QUEUE_TX);
	return more && !n->tx_full;
}

/* ---- tap to guest ---- */

static bool mergeable(const struct virtio_net *n)
{
	return n->features & NET_F_MRG_RXBUF;
}

/* Takes buffers until they hold `want` bytes. False: there are no more, or no room to note them. */
static bool rx_take(struct virtio_net *n, size_t want)
{
	struct virtq *vq = &n->dev.queues[QUEUE_RX];
	struct net_rx *x = &n->rx;
	struct virtq_chain c;

	while (x->bytes < want) {
		/* Without mergeable buffers a packet has one chain. */
		if (x->n_chains == (mergeable(n) ? NET_RX_CHAINS : 1) || virtq_pop(vq, &c) == 0)
			return false;
		if (c.in_len < TAP_HEADER_LEN && x->n_chains == 0) {
			virtq_push(vq, c.head, 0); /* of no use */
			if (io_thread_pausing(&n->thread))
				return false;
			continue;
		}
		if (c.in_len < TAP_HEADER_LEN || c.n_in > NET_RX_BUFFERS - x->n_iov) {
			virtq_unpop(vq);
			return false;
		}
		memcpy(x->iov + x->n_iov, c.iov + c.n_out, c.n_in * sizeof(c.iov[0]));
		x->chains[x->n_chains].head = c.head;
		x->chains[x->n_chains].n_iov = c.n_in;
		x->chains[x->n_chains].len = c.in_len;
		x->n_chains++;
		x->n_iov += c.n_in;
		x->bytes += c.in_len;
	}
	return true;
}

static void rx_put_back(struct virtio_net *n)
{
	for (; n->rx.n_chains > 0; n->rx.n_chains--)
		virtq_unpop(&n->dev.queues[QUEUE_RX]);
	n->rx.n_iov = 0;
	n->rx.bytes = 0;
}

/* Gives the first chains back with the packet of `len` bytes that lies in them. */
static void rx_push(struct virtio_net *n, size_t len)
{
	struct net_rx *x = &n->rx;
	unsigned k = 0, iov = 0;
	uint16_t num;
	size_t left = len;

	for (size_t sum = 0; sum < len; k++)
		sum += x->chains[k].len;
	num = (uint16_t)k;
	iov_write(x->iov, x->n_iov, offsetof(struct virtio_net_hdr_v1, num_buffers), &num,
		  sizeof(num));
	for (unsigned i = 0; i < k; i++) {
		size_t part = MIN_OF(left, x->chains[i].len);

		virtq_push(&n->dev.queues[QUEUE_RX], x->chains[i].head, (uint32_t)part);
		left -= part;
		iov += x->chains[i].n_iov;
		x->bytes -= x->chains[i].len;
	}
	x->n_chains -= k;
	x->n_iov -= iov;
	memmove(x->chains, x->chains + k, x->n_chains * sizeof(x->chains[0]));
	memmove(x->iov, x->iov + iov, x->n_iov * sizeof(x->iov[0]));
	x->large = x->large || k > 1;
}

static void rx_drop(struct virtio_net *n, const char *why)
{
	n->rx_dropped++;
	n->rx.waits = 0;
	log_limited(LOG_DEBUG, "net: a packet for the guest is dropped", "why", why);
}

/* A packet of `len` bytes that was read has its first ones in the buffers that were taken, `have`
 * bytes, the others behind them in the spill. */
static void rx_complete(struct virtio_net *n, size_t have, size_t len)
{
	struct net_rx *x = &n->rx;

	if (len > NET_FRAME_MAX) {
		rx_drop(n, "too long");
		return;
	}
	if (len <= have || rx_take(n, len)) {
		if (len > have)
			iov_write(x->iov, x->n_iov, have, x->spill + have, len - have);
		rx_push(n, len);
		return;
	}
	if (!mergeable(n)) {
		rx_drop(n, "it does not fit into the buffer");
		return;
	}
	iov_read(x->iov, x->n_iov, 0, x->spill, have);
	x->waits = len;
	x->tries = 0;
}

/* The packet that waits for buffers. False: it waits still. */
static bool rx_serve_waiting(struct virtio_net *n)
{
	struct net_rx *x = &n->rx;

	if (rx_take(n, x->waits)) {
		iov_write(x->iov, x->n_iov, 0, x->spill, x->waits);
		rx_push(n, x->waits);
		x->waits = 0;
		return true;
	}
	if (x->n_chains == NET_RX_CHAINS || ++x->tries == NET_RX_TRIES)
		rx_drop(n, "the buffers are too small");
	return x->waits == 0;
}

/* Is it only this packet that cannot be had (the host is short of memory for the guest's pages)? */
static bool may_pass(int error, unsigned *failures)
{
	if (error != EFAULT && error != ENOMEM && error != ENOBUFS)
		return false;
	return ++*failures <= NET_RX_FAILURES;
}

/* Reads a packet into the guest's buffers. Its length, or -errno. */
static ssize_t rx_read(struct virtio_net *n)
{
	struct net_rx *x = &n->rx;
	size_t have = x->bytes;
	int k = (int)x->n_iov;
	ssize_t len;

	if (have < NET_SPILL) {
		x->iov[k] =
			(struct iovec){ .iov_base = x->spill + have, .iov_len = NET_SPILL - have };
		k++;
	}
	len = readv(n->tap, x->iov, k);
	if (len < 0)
		return -errno;
	if (len == 0)
		return -EPIPE;
	if (len < TAP_HEADER_LEN)
		rx_drop(n, "no header");
	else
		rx_complete(n, have, (size_t)len);
	return len;
}

/* Packets to the guest while there are any, buffers, and time. True: there is more. */
static bool rx_round(struct virtio_net *n, bool *ret_wait_for_tap)
{
	struct virtq *vq = &n->dev.queues[QUEUE_RX];
	struct net_rx *x = &n->rx;
	unsigned packets = 0;
	size_t bytes = 0;
	ssize_t len;
	bool large = x->large;

	*ret_wait_for_tap = false;
	x->large = false;
	virtq_disarm(vq);
	while (has_tap(n) && virtq_enabled(vq)) {
		if (packets == ROUND_PACKETS || bytes >= ROUND_BYTES ||
		    io_thread_pausing(&n->thread))
			break;
		(void)rx_take(n, large || x->large ? NET_FRAME_MAX : 1);
		if (x->n_chains == 0 || (x->waits > 0 && !rx_serve_waiting(n))) {
			/* The driver kicks when it has given new buffers. */
			if (virtq_arm(vq))
				continue;
			rx_put_back(n);
			virtio_flush(&n->dev, QUEUE_RX);
			return false;
		}
		if (x->n_chains == 0)
			continue; /* the packet that waited has taken them all */
		len = rx_read(n);
		if (len == -EAGAIN || len == -EINTR) {
			*ret_wait_for_tap = true;
			break;
		}
		if (len < 0 && may_pass((int)-len, &x->failures)) {
			rx_drop(n, strerror((int)-len));
			packets++;
			continue;
		}
		if (len < 0) {
			net_fail(n, (int)-len);
			break;
		}
		x->failures = 0;
		packets++;
		bytes += (size_t)len;
	}
	rx_put_back(n);
	virtio_flush(&n->dev, QUEUE_RX);
	return has_tap(n) && virtq_enabled(vq) && !*ret_wait_for_tap;
}

/* ---- the thread ---- */

/* A round. True: there is more. */
static bool net_work(void *arg)
{
	struct virtio_net *n = arg;
	bool more, wait_for_tap = false;

	n->thread.fd_events = 0;
	if (!n->dev.started)
		return false;
	more = tx_round(n);
	more = rx_round(n, &wait_for_tap) || more;
	if (has_tap(n)) {
		n->thread.fd = n->tap;
		n->thread.fd_events =
			(short)((wait_for_tap ? POLLIN : 0) | (n->tx_full ? POLLOUT : 0));
	}
	return more;
}

static void net_notify(struct virtio_dev *d, unsigned queue)
{
	struct virtio_net *n = container_of(d, struct virtio_net, dev);

	if (n->thread.runs) {
		io_thread_wake(&n->thread);
		return;
	}
	while (net_work(n))
		;
}

static void net_hold(struct virtio_dev *d)
{
	io_thread_hold(&container_of(d, struct virtio_net, dev)->thread);
}

static void net_release(struct virtio_dev *d)
{
	io_thread_release(&container_of(d, struct virtio_net, dev)->thread);
}

static bool net_watch(struct virtio_dev *d, unsigned queue, int kick)
{
	struct virtio_net *n = container_of(d, struct virtio_net, dev);

	if (n->thread.runs)
		io_thread_watch(&n->thread, queue, kick);
	return n->thread.runs;
}

/* ---- the link ---- */

/* The tap goes, and what was read from it. Not while the thread works. */
static void drop_tap(struct virtio_net *n)
{
	fd_close(&n->tap);
	atomic_store(&n->failed, 0);
	n->rx.waits = 0;
}

static void set_link(struct virtio_net *n, bool up)
{
	if (atomic_exchange(&n->link, up) != up)
		virtio_config_changed(&n->dev);
}

int virtio_net_attach(struct virtio_net *n, int tap, struct err *err)
{
	if (!n->rx.spill)
		n->rx.spill = malloc(NET_SPILL);
	if (!n->rx.spill)
		return err_nomem(err);
	virtio_hold(&n->dev);
	drop_tap(n);
	n->tap = tap;
	tap_set_offloads(tap, n->features);
	virtio_release(&n->dev);
	set_link(n, true);
	return 0;
}

void virtio_net_detach(struct virtio_net *n)
{
	set_link(n, false);
	virtio_hold(&n->dev);
	drop_tap(n);
	virtio_release(&n->dev);
}

static void net_on_failed(struct ev_io *io, uint32_t events)
{
	struct virtio_net *n = io->arg;
	uint64_t count;
	int error;

	if (read(n->failed_fd, &count, sizeof(count)) < 0)
		return;
	error = atomic_load(&n->failed);
	if (error == 0)
		return; /* another tap has come in the meantime */
	log_warn("the pod's network is gone: its tap fails", "err", strerror(error));
	virtio_net_detach(n);
}

/* ---- the device ---- */

static void net_config_read(const struct virtio_dev *d, size_t off, void *buf, size_t len)
{
	const struct virtio_net *n = container_of(d, const struct virtio_net, dev);
	struct net_config config = {
		.mac = { 2, 0, 0, 0, 0, 1 }, /* locally administered */
		.status = atomic_load(&n->link) ? VIRTIO_NET_S_LINK_UP : 0,
	};

	memcpy(buf, (const uint8_t *)&config + off, len);
}

static void net_start(struct virtio_dev *d, uint64_t features)
{
	struct virtio_net *n = container_of(d, struct virtio_net, dev);

	check(n->rx.n_chains == 0);
	n->features = features;
	n->rx.waits = 0;
	n->rx.large = false;
	if (n->tap >= 0)
		tap_set_offloads(n->tap, features);
}

static const struct virtio_dev_ops net_ops = {
	.id = VIRTIO_ID_NET,
	.name = "net",
	.n_queues = 2,
	.queue_max = { NET_QUEUE_SIZE, NET_QUEUE_SIZE },
	.features = NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_MAC | NET_F_GUEST_TSO4 |
		    NET_F_GUEST_TSO6 | NET_F_GUEST_ECN | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 |
		    NET_F_HOST_ECN | NET_F_MRG_RXBUF | NET_F_STATUS,
	.config_len = sizeof(struct net_config),
	.config_read = net_config_read,
	.start = net_start,
	.notify = net_notify,
	.hold = net_hold,
	.release = net_release,
	.watch = net_watch,
};

void virtio_net_init(struct virtio_net *n)
{
	n->dev = (struct virtio_dev){ .ops = &net_ops };
	if (tap_knows_uso())
		n->dev.features = NET_F_GUEST_USO | NET_F_HOST_USO;
	n->thread = (struct io_thread){ 0 };
	n->tap = n->failed_fd = -1;
	n->features = 0;
	n->tx_full = false;
	n->rx.n_chains = n->rx.n_iov = 0;
	n->rx.bytes = n->rx.waits = 0;
	n->rx.large = false;
	n->rx.spill = NULL;
	n->rx_dropped = n->tx_dropped = 0;
	n->link = false;
	n->failed = 0;
	n->failed_io = (struct ev_io){ 0 };
}

int virtio_net_start(struct virtio_net *n, struct loop *loop, struct err *err)
{
	int r;

	if (n->thread.runs)
		return 0;
	if (n->failed_fd < 0)
		n->failed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->failed_fd < 0)
		return err_errno(err, -errno, "network");
	if (!n->failed_io.loop) {
		r = ev_io_add(loop, &n->failed_io, n->failed_fd, EPOLLIN, net_on_failed, n);
		if (r < 0)
			return err_errno(err, r, "network");
	}
	return io_thread_start(&n->thread, "net", net_work, n, err);
}

void virtio_net_fini(struct virtio_net *n)
{
	io_thread_stop(&n->thread);
	ev_io_del(&n->failed_io);
	fd_close(&n->failed_fd);
	fd_close(&n->tap);
	free(n->rx.spill);
	n->rx.spill = NULL;
}
