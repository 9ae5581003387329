/*
 * The vsock device between a hostile driver and a host that does anything at any time. The input is
 * a list of actions: one byte what, then what it needs.
 */
#include "test/fuzz/fuzz.h"
#include "test/lib/vmm_driver.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"
#include "vmm/dev/vsock.h"

#define HOSTS 4
#define TX_BASE (DATA_BASE + 2 * MIB)
#define ACTIONS_MAX 400

enum {
	PACKET,
	PACKET_KNOWN,
	RX,
	CONNECT,
	HOST_WRITE,
	HOST_READ,
	HOST_SHUT,
	HOST_CLOSE,
	RESET,
	LOOP
};

static struct loop *loop;

struct world {
	struct virtio_vsock vs;
	struct driver d;
	int hosts[HOSTS];
	unsigned posted;
	uint32_t ports[HOSTS]; /* host ports that the device has used: of its last packets */
	unsigned n_ports;
};

static void look_at_rx(struct world *w)
{
	uint32_t head, len, port;

	while (driver_used(&w->d.rings[0], &head, &len)) {
		fuzz_assert(head < w->d.rings[0].size && len <= 4096);
		memcpy(&port, driver_ptr(&w->d, w->d.rings[0].desc[head].addr + 16), 4);
		w->ports[w->n_ports++ % HOSTS] = port;
	}
	while (driver_used(&w->d.rings[1], &head, &len))
		;
}

static void packet(struct world *w, struct cur *c, bool known)
{
	struct driver_buf b[2] = { { TX_BASE, 44, false }, { TX_BASE + 64, 0, false } };
	uint8_t h[44] = { 0 };
	uint32_t len = cur_le16(c) % 5000;
	size_t n = known ? MIN_OF(cur_left(c), 20u) : MIN_OF(cur_left(c), sizeof(h));
	const uint8_t *bytes = cur_bytes(c, n);

	if (!bytes)
		n = 0;
	if (known) {
		/* Right addresses; the rest is the input's: op, flags, credit. */
		uint64_t cids[2] = { 3, 2 };
		uint32_t ports[2] = { 7, w->ports[n > 0 ? bytes[0] % HOSTS : 0] };
		uint16_t type_op[2] = { 1, (uint16_t)(n > 1 ? bytes[1] % 9 : 5) };
		uint32_t data_len = type_op[1] == 5 ? len : 0;
		memcpy(h, cids, 16);
		memcpy(h + 16, ports, 8);
		memcpy(h + 24, &data_len, 4);
		memcpy(h + 28, type_op, 4);
		if (n > 4)
			memcpy(h + 32, bytes + 4, MIN_OF(n - 4, 12u));
	} else if (n > 0) {
		memcpy(h, bytes, n);
	}
	memcpy(driver_ptr(&w->d, TX_BASE), h, sizeof(h));
	b[1].len = len + 1;
	driver_add(&w->d.rings[1], b, len > 0 ? 2 : 1);
	driver_kick(&w->d, 1);
}

static void connect_one(struct world *w, unsigned i)
{
	int sv[2];

	if (w->hosts[i] >= 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) < 0)
		return;
	if (virtio_vsock_connect(&w->vs, 7, sv[1], NULL) < 0)
		close(sv[1]);
	w->hosts[i] = sv[0];
}

static void act(struct world *w, struct cur *c)
{
	static uint8_t bytes[32768];
	uint8_t a = cur_u8(c);
	unsigned i = (a >> 4) % HOSTS;

	switch (a % 16) {
	case PACKET:
		packet(w, c, false);
		break;
	case RX:
		for (unsigned k = 0; k < 1 + i * 20; k++, w->posted++) {
			struct driver_buf b = { DATA_BASE + w->posted % 256 * 4096,
						i == 3 ? 50 : 4096, true };

			if ((uint16_t)(w->d.rings[0].avail[1] - w->d.rings[0].seen) < 256)
				driver_add(&w->d.rings[0], &b, 1);
		}
		driver_kick(&w->d, 0);
		break;
	case CONNECT:
		connect_one(w, i);
		break;
	case HOST_WRITE:
		if (w->hosts[i] >= 0)
			(void)!send(w->hosts[i], bytes, cur_le16(c) % sizeof(bytes), MSG_NOSIGNAL);
		break;
	case HOST_READ:
		if (w->hosts[i] >= 0)
			(void)!read(w->hosts[i], bytes, sizeof(bytes));
		break;
	case HOST_SHUT:
		if (w->hosts[i] >= 0)
			shutdown(w->hosts[i], a & 0x80 ? SHUT_RD : SHUT_WR);
		break;
	case HOST_CLOSE:
		fd_close(&w->hosts[i]);
		break;
	case RESET:
		virtio_stop(&w->d.dev[0]);
		virtio_start(&w->d.dev[0], 0);
		break;
	case LOOP:
		fuzz_assert(loop_once(loop, 0) >= 0);
		break;
	default:
		packet(w, c, true);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct cur c = cur_of(data, size);
	int sv[2];
	int rounds;

	if (!loop && loop_new(&loop, NULL) < 0)
		return 0;
	memset(&w, 0, sizeof(w));
	virtio_vsock_init(&w.vs, loop, 3);
	driver_init(&w.d, &w.vs.dev, 256, virtio_features(&w.vs.dev));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) < 0)
		return 0;
	virtio_vsock_set_agent(&w.vs, sv[1], NULL, NULL);
	w.hosts[0] = sv[0];
	for (unsigned i = 1; i < HOSTS; i++)
		w.hosts[i] = -1;
	w.ports[0] = VSOCK_AGENT_PORT;
	for (unsigned n = 0; n < ACTIONS_MAX && cur_left(&c) > 0; n++) {
		act(&w, &c);
		look_at_rx(&w);
	}
	/* The host's ends close: it must come to rest, whatever the driver did. */
	for (unsigned i = 0; i < HOSTS; i++)
		fd_close(&w.hosts[i]);
	rounds = 0;
	while (loop_once(loop, 0) > 0)
		fuzz_assert(++rounds < 10000);
	driver_fini(&w.d);
	virtio_vsock_fini(&w.vs);
	fuzz_assert(w.vs.conns.n == 0);
	return 0;
}
