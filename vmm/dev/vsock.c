#include "vmm/dev/vsock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT };

#define TYPE_STREAM 1

/* One round on the loop: whichever comes first. */
#define ROUND_PACKETS 64
#define ROUND_BYTES (512 * KIB)
#define FIRST_HOST_PORT (1u << 30)

/* ---- host to guest ---- */

/* The header's own fields, and the chain to the driver. Data lies behind the header already. */
static void put_packet(struct virtio_vsock *v, const struct virtq_chain *chain, struct vsock_hdr *h)
{
	h->src_cid = VSOCK_HOST_CID;
	h->dst_cid = v->guest_cid;
	h->type = TYPE_STREAM;
	iov_write(chain->iov + chain->n_out, chain->n_in, 0, h, sizeof(*h));
	virtq_push(&v->dev.queues[QUEUE_RX], chain->head, (uint32_t)sizeof(*h) + h->len);
}

/* RST for a packet of no connection. */
static void put_reset(struct virtio_vsock *v, const struct virtq_chain *chain)
{
	struct vsock_reset r = v->resets[v->reset_first];
	struct vsock_hdr h = { .src_port = r.host_port,
			       .dst_port = r.guest_port,
			       .op = VSOCK_OP_RST };

	v->reset_first = (v->reset_first + 1) % VSOCK_RESETS_MAX;
	v->n_resets--;
	put_packet(v, chain, &h);
}

static void schedule_round(struct virtio_vsock *v)
{
	if (ev_timer_add(v->loop, &v->again, 0, v->again.cb, v) < 0)
		log_debug("vsock: out of memory for a timer");
}

/* Gives the driver's receive buffers to the connections in turn, one packet each. */
static void rx_pump(struct virtio_vsock *v)
{
	struct virtq *vq = &v->dev.queues[QUEUE_RX];
	bool full = v->n_resets == VSOCK_RESETS_MAX;
	struct virtq_chain chain;
	struct vsock_hdr h;

	virtq_disarm(vq);
	for (unsigned n = 0; v->n_resets > 0 || !TAILQ_EMPTY(&v->conns.ready); n++) {
		if (n == ROUND_PACKETS) {
			schedule_round(v);
			break;
		}
		if (!virtq_pop(vq, &chain)) {
			if (virtq_arm(vq))
				continue;
			break; /* the driver kicks when it has given new buffers */
		}
		if (chain.in_len <= sizeof(h))
			virtq_push(vq, chain.head, 0); /* of no use */
		else if (v->n_resets > 0)
			put_reset(v, &chain);
		else if (vsock_conn_emit(vsock_conns_next(&v->conns), &h, chain.iov + chain.n_out,
					 chain.n_in, chain.in_len))
			put_packet(v, &chain, &h);
		else
			virtq_unpop(vq);
	}
	if (full && v->n_resets < VSOCK_RESETS_MAX)
		schedule_round(v); /* tx_round stopped for that */
	virtio_flush(&v->dev, QUEUE_RX);
}

/* ---- guest to host ---- */

static void refuse(struct virtio_vsock *v, const struct vsock_hdr *h)
{
	unsigned i = (v->reset_first + v->n_resets) % VSOCK_RESETS_MAX;

	if (h->op == VSOCK_OP_RST)
		return;			       /* never an answer to an answer */
	check(v->n_resets < VSOCK_RESETS_MAX); /* tx_round looks before it takes a packet */
	v->resets[i] = (struct vsock_reset){ .host_port = h->dst_port, .guest_port = h->src_port };
	v->n_resets++;
}

/* The guest opens its one connection. */
static void take_request(struct virtio_vsock *v, const struct vsock_hdr *h)
{
	if (h->dst_port != VSOCK_AGENT_PORT || v->agent_fd < 0 ||
	    vsock_conn_accept(&v->conns, h, v->agent_fd) < 0) {
		refuse(v, h);
		return;
	}
	v->agent_fd = -1;
	if (v->agent_connected)
		v->agent_connected(v->arg);
}

static bool well_formed(const struct virtio_vsock *v, const struct vsock_hdr *h,
			uint32_t packet_len)
{
	return h->src_cid == v->guest_cid && h->dst_cid == VSOCK_HOST_CID &&
	       h->type == TYPE_STREAM && h->op != VSOCK_OP_INVALID && h->op < VSOCK_OP_COUNT &&
	       h->len <= VSOCK_PACKET_MAX && h->len <= packet_len - sizeof(*h) &&
	       (h->len == 0 || h->op == VSOCK_OP_RW);
}

static void take_packet(struct virtio_vsock *v, const struct virtq_chain *chain)
{
	struct vsock_conn *c;
	struct vsock_hdr h;

	if (iov_read(chain->iov, chain->n_out, 0, &h, sizeof(h)) != sizeof(h))
		return; /* not even ports to answer to */
	c = vsock_conn_find(&v->conns, h.dst_port, h.src_port);
	if (!well_formed(v, &h, chain->out_len)) {
		if (c && h.src_cid == v->guest_cid)
			vsock_conn_reset(c);
		else
			refuse(v, &h);
	} else if (c) {
		vsock_conn_take(c, &h, chain->iov, chain->n_out);
	} else if (h.op == VSOCK_OP_REQUEST) {
		take_request(v, &h);
	} else {
		refuse(v, &h);
	}
}

/* Serves the driver's send queue for one round. */
static void tx_round(struct virtio_vsock *v)
{
	struct virtq *vq = &v->dev.queues[QUEUE_TX];
	struct virtq_chain chain;
	unsigned n = 0;
	size_t bytes = 0;

	virtq_disarm(vq);
	do {
		while (n < ROUND_PACKETS && bytes < ROUND_BYTES && v->n_resets < VSOCK_RESETS_MAX &&
		       virtq_pop(vq, &chain)) {
			take_packet(v, &chain);
			virtq_push(vq, chain.head, 0);
			bytes += chain.out_len;
			n++;
		}
		if (n == ROUND_PACKETS || bytes >= ROUND_BYTES) {
			schedule_round(v);
			break;
		}
		/* A driver that does not take its RSTs is not served until it does: the rx kick. */
		if (v->n_resets == VSOCK_RESETS_MAX)
			break;
	} while (virtq_arm(vq));
	virtio_flush(&v->dev, QUEUE_TX);
}

/* ---- entry points ---- */

static void serve_queues(struct virtio_vsock *v)
{
	tx_round(v);
	rx_pump(v);
	vsock_conns_reap(&v->conns);
}

static void vsock_notify(struct virtio_dev *d, unsigned queue)
{
	/* A kick of either queue can unblock the other: credit for rx, room for RSTs for tx. */
	if (queue != QUEUE_EVENT)
		serve_queues(container_of(d, struct virtio_vsock, dev));
}

static void vsock_on_again(struct ev_timer *t)
{
	serve_queues(t->arg);
}

static void vsock_pump(struct vsock_conns *t)
{
	rx_pump(container_of(t, struct virtio_vsock, conns));
}

int virtio_vsock_connect(struct virtio_vsock *v, uint32_t guest_port, int fd, struct err *err)
{
	int type = 0, r;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return err_set(err, -EINVAL, "not a stream socket");
	do {
		v->next_port++;
		if (v->next_port < FIRST_HOST_PORT || v->next_port == UINT32_MAX)
			v->next_port = FIRST_HOST_PORT;
	} while (vsock_conn_find(&v->conns, v->next_port, guest_port));
	r = vsock_conn_open(&v->conns, v->next_port, guest_port, fd);
	if (r == -ENOBUFS)
		err_set(err, r, "more than %u vsock connections", VSOCK_CONNS_MAX);
	else if (r < 0)
		err_errno(err, r, "vsock connection");
	rx_pump(v);
	vsock_conns_reap(&v->conns);
	return r;
}

void virtio_vsock_set_agent(struct virtio_vsock *v, int fd, void (*agent_connected)(void *arg),
			    void *arg)
{
	fd_close(&v->agent_fd);
	v->agent_fd = fd;
	v->agent_connected = agent_connected;
	v->arg = arg;
}

/* flush: bytes for the host that were accepted are still written. */
static void close_all(struct virtio_vsock *v, bool flush)
{
	vsock_conns_close(&v->conns, flush);
	v->n_resets = 0;
	ev_timer_del(&v->again);
}

static void vsock_stop(struct virtio_dev *d)
{
	close_all(container_of(d, struct virtio_vsock, dev), true);
}

static void vsock_config_read(const struct virtio_dev *d, size_t off, void *buf, size_t len)
{
	const struct virtio_vsock *v = container_of(d, const struct virtio_vsock, dev);

	memcpy(buf, (const uint8_t *)&v->guest_cid + off, len);
}

static const struct virtio_dev_ops vsock_ops = {
	.id = VIRTIO_ID_VSOCK,
	.name = "vsock",
	.n_queues = 3,
	.queue_max = { VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE, 16 },
	.config_len = sizeof(uint64_t),
	.config_read = vsock_config_read,
	.stop = vsock_stop,
	.notify = vsock_notify,
};

void virtio_vsock_init(struct virtio_vsock *v, struct loop *l, uint64_t guest_cid)
{
	*v = (struct virtio_vsock){
		.dev.ops = &vsock_ops, .loop = l, .guest_cid = guest_cid, .agent_fd = -1
	};
	v->again.cb = vsock_on_again;
	v->again.arg = v;
	vsock_conns_init(&v->conns, l, vsock_pump);
}

void virtio_vsock_fini(struct virtio_vsock *v)
{
	close_all(v, false);
	fd_close(&v->agent_fd);
}
