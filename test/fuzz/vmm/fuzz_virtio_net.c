/*
 * The network card between a hostile driver and a tap (a packet socket): rings, descriptors and
 * headers made of the input. It is a list of actions: one byte what, then what it needs. The first
 * byte chooses the features.
 */
#include "test/fuzz/fuzz.h"
#include "test/lib/vmm_driver.h"

#include <linux/virtio_net.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"
#include "vmm/dev/net.h"

#define SIZE 16
#define ACTIONS_MAX 300
#define HDR sizeof(struct virtio_net_hdr_v1)

enum { SEND, BUFFERS, RAW_DESC, RAW_AVAIL, RAW_DATA, HOST_SEND, HOST_READ, RESET, TAP, COUNT };

struct world {
	struct virtio_net net;
	struct driver d;
	int host;
	uint64_t features;
};

static void fuzz_attach(struct world *w)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sv) < 0)
		return;
	fuzz_assert(virtio_net_attach(&w->net, sv[1], NULL) == 0);
	fd_close(&w->host);
	w->host = sv[0];
}

/* What comes out of the tap keeps the rules, whatever went in. */
static void host_read(struct world *w)
{
	static uint8_t packet[2 * NET_FRAME_MAX];
	struct virtio_net_hdr_v1 h;
	ssize_t n;

	while (w->host >= 0 && (n = recv(w->host, packet, sizeof(packet), 0)) > 0) {
		fuzz_assert((size_t)n >= HDR + 14 && (size_t)n <= NET_FRAME_MAX);
		memcpy(&h, packet, HDR);
		fuzz_assert(!(h.flags & ~1) && h.num_buffers == 0);
		if (h.flags)
			fuzz_assert((size_t)h.csum_start + h.csum_offset + 2 <= (size_t)n - HDR);
		if (h.gso_type)
			fuzz_assert(h.flags && h.gso_size >= NET_GSO_SIZE_MIN &&
				    h.hdr_len <= (size_t)n - HDR);
	}
}

static void lay(struct world *w, struct cur *c, uint64_t at, size_t room)
{
	size_t len = MIN_OF((size_t)cur_u8(c), room);
	size_t n = MIN_OF(len, cur_left(c));
	const uint8_t *bytes = cur_bytes(c, n);

	if (bytes)
		memcpy(driver_ptr(&w->d, at), bytes, n);
}

static void act(struct world *w, struct cur *c)
{
	static uint8_t bytes[NET_FRAME_MAX + 4096];
	uint8_t a = cur_u8(c);
	struct driver_buf b[2] = { { DATA_BASE, HDR, false }, { DATA_BASE + 64, 0, false } };
	unsigned q = a >> 7;

	switch (a % 16 % COUNT) {
	case SEND:
		lay(w, c, DATA_BASE, 64);
		b[1].len = 1 + cur_le16(c) * (a & 0x40 ? 2u : 1u);
		driver_add(&w->d.rings[1], b, 2);
		break;
	case BUFFERS:
		for (unsigned i = 0; i < 1u + (a >> 4); i++) {
			b[0] = (struct driver_buf){ DATA_BASE + i * 4096, 1 + cur_le16(c), true };
			driver_add(&w->d.rings[0], b, 1);
		}
		break;
	case RAW_DESC:
		lay(w, c, driver_layout(q, SIZE).desc, 16 * SIZE);
		break;
	case RAW_AVAIL:
		lay(w, c, driver_layout(q, SIZE).avail, 6 + 2 * SIZE);
		break;
	case RAW_DATA:
		lay(w, c, DATA_BASE, 4096);
		break;
	case HOST_SEND:
		if (w->host >= 0)
			(void)!send(w->host, bytes,
				    1 + cur_le16(c) * (size_t)(a & 0x40 ? 2 : 1) % sizeof(bytes),
				    MSG_NOSIGNAL);
		break;
	case HOST_READ:
		host_read(w);
		break;
	case RESET:
		virtio_stop(&w->net.dev);
		virtio_start(&w->net.dev, w->features);
		break;
	default:
		if (a & 0x40)
			fuzz_attach(w);
		else if (a & 0x20)
			virtio_net_detach(&w->net);
		else
			fd_close(&w->host);
	}
	driver_kick(&w->d, 0);
	fuzz_assert(w->net.dev.queues[0].in_flight == 0 && w->net.dev.queues[1].in_flight == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct cur c = cur_of(data, size);
	uint8_t choice = cur_u8(&c);

	memset(&w, 0, sizeof(w));
	w.host = -1;
	virtio_net_init(&w.net);
	w.features = virtio_features(&w.net.dev);
	if (choice & 1)
		w.features &= ~NET_F_MRG_RXBUF;
	if (choice & 2)
		w.features &= ~VIRTIO_F_EVENT_IDX;
	if (choice & 4)
		w.features &= ~(NET_F_HOST_ECN | NET_F_HOST_USO);
	if (choice & 8)
		w.features &= ~NET_F_CSUM;
	driver_init(&w.d, &w.net.dev, SIZE, w.features);
	fuzz_attach(&w);
	for (unsigned n = 0; n < ACTIONS_MAX && cur_left(&c) > 0; n++)
		act(&w, &c);
	host_read(&w);
	driver_fini(&w.d);
	virtio_net_fini(&w.net);
	fd_close(&w.host);
	return 0;
}
