/*
 * The network card between a driver in plain memory and a "tap" that is a packet socket: a read or
 * write of it is one packet, as of a real one, which test_vmm_net has.
 */
#include "test/lib/unit.h"
#include "test/lib/vmm_driver.h"
#include "test/lib/vmm_pattern.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/dev/net.h"

enum { RX, TX };
#define RING 256
#define TX_AT (DATA_BASE + 2 * MIB)
#define HDR sizeof(struct virtio_net_hdr_v1)

static struct loop *loop;
static struct virtio_net net;
static struct driver d;
static int host; /* the other side of the tap */
static unsigned changes, rx_posted;
static uint8_t buf[256 * KIB];

static void on_config_changed(struct virtio_transport *t)
{
	changes++;
}

static void attach(void)
{
	struct err err = { 0 };
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv),
			 0);
	assert_ok(virtio_net_attach(&net, sv[1], &err), &err);
	fd_close(&host);
	host = sv[0];
}

static void begin(uint64_t without)
{
	host = -1;
	changes = rx_posted = 0;
	assert_int_equal(loop_new(&loop, NULL), 0);
	virtio_net_init(&net);
	driver_init(&d, &net.dev, RING, virtio_features(&net.dev) & ~without);
	d.transport.config_changed = on_config_changed;
	attach();
}

static void finish(void)
{
	driver_fini(&d);
	virtio_net_fini(&net);
	loop_free(loop);
	fd_close(&host);
}

/* ---- the driver's side ---- */

static void send_frame(const struct virtio_net_hdr_v1 *h, size_t len)
{
	const struct driver_buf b[3] = { { TX_AT, HDR, false },
					 { TX_AT + HDR, (uint32_t)(len / 3), false },
					 { TX_AT + HDR + len / 3, (uint32_t)(len - len / 3),
					   false } };

	memcpy(driver_ptr(&d, TX_AT), h, HDR);
	pattern_fill(driver_ptr(&d, TX_AT + HDR), len, 0, 5);
	driver_add(&d.rings[TX], b, 3);
	driver_kick(&d, TX);
}

static unsigned given_back(unsigned ring)
{
	uint32_t head, len;
	unsigned n = 0;

	while (driver_used(&d.rings[ring], &head, &len))
		n++;
	return n;
}

static void post(unsigned n, uint32_t size)
{
	for (unsigned i = 0; i < n; i++, rx_posted++) {
		struct driver_buf b = { DATA_BASE + rx_posted % RING * 4096, size, true };

		driver_add(&d.rings[RX], &b, 1);
	}
	driver_kick(&d, RX);
}

/* The next packet that the driver got, with its header, in buf. Its length; 0 = none. */
static size_t take(unsigned *ret_buffers)
{
	struct driver_ring *r = &d.rings[RX];
	struct virtio_net_hdr_v1 h;
	uint32_t head, len;
	size_t sum = 0;

	*ret_buffers = 0;
	while (driver_used(r, &head, &len)) {
		assert_true(len <= r->desc[head].len);
		memcpy(buf + sum, driver_ptr(&d, r->desc[head].addr), len);
		sum += len;
		++*ret_buffers;
		memcpy(&h, buf, HDR);
		if (*ret_buffers == h.num_buffers)
			return sum;
	}
	assert_int_equal(*ret_buffers, 0);
	return 0;
}

/* ---- the host's side ---- */

static void host_send(size_t len, unsigned seed)
{
	uint8_t *p = malloc(HDR + len);
	struct virtio_net_hdr_v1 h = { .gso_type = VIRTIO_NET_HDR_GSO_TCPV6, .gso_size = 1400 };

	assert_non_null(p);
	memcpy(p, &h, HDR);
	pattern_fill(p + HDR, len, 0, seed);
	assert_int_equal(send(host, p, HDR + len, 0), HDR + len);
	free(p);
}

/* Stands for the thread that a tap with packets wakes. */
static void tap_ready(void)
{
	driver_kick(&d, RX);
}

static void expect_packet(size_t len, unsigned seed, unsigned buffers)
{
	uint8_t *want = malloc(len);
	struct virtio_net_hdr_v1 h;
	unsigned n;

	assert_non_null(want);
	assert_int_equal(take(&n), HDR + len);
	assert_int_equal(n, buffers);
	memcpy(&h, buf, HDR);
	assert_int_equal(h.gso_size, 1400);
	pattern_fill(want, len, 0, seed);
	assert_memory_equal(buf + HDR, want, len);
	free(want);
}

/* ---- tests ---- */

static void test_sent(void **state)
{
	struct virtio_net_hdr_v1 h = { .flags = 1 | 2 | 4,
				       .gso_type =
					       VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
				       .hdr_len = 54,
				       .gso_size = 1448,
				       .csum_start = 34,
				       .csum_offset = 16,
				       .num_buffers = 9 };
	struct virtio_net_hdr_v1 got;
	static uint8_t want[60000];

	begin(0);
	send_frame(&h, sizeof(want));
	assert_int_equal(recv(host, buf, sizeof(buf), 0), HDR + sizeof(want));
	memcpy(&got, buf, HDR);
	h.flags = 1;
	h.num_buffers = 0;
	assert_memory_equal(&got, &h, HDR);
	pattern_fill(want, sizeof(want), 0, 5);
	assert_memory_equal(buf + HDR, want, sizeof(want));
	assert_int_equal(given_back(TX), 1);
	/* Without anything to do for the host, what it needs not know is gone. */
	h = (struct virtio_net_hdr_v1){ .hdr_len = 999, .gso_size = 7, .csum_start = 60000 };
	send_frame(&h, 60);
	assert_int_equal(recv(host, buf, sizeof(buf), 0), HDR + 60);
	memset(&h, 0, HDR);
	assert_memory_equal(buf, &h, HDR);
	assert_int_equal(net.tx_dropped, 0);
	finish();
}

static void expect_dropped(const struct virtio_net_hdr_v1 *h, size_t len)
{
	uint64_t before = net.tx_dropped;

	send_frame(h, len);
	assert_int_equal(recv(host, buf, sizeof(buf), 0), -1);
	assert_int_equal(net.tx_dropped, before + 1);
	assert_int_equal(given_back(TX), 1);
}

static void test_sent_absurd(void **state)
{
	const struct virtio_net_hdr_v1 good = { .flags = 1,
						.gso_type = 1,
						.hdr_len = 54,
						.gso_size = 1448,
						.csum_start = 34,
						.csum_offset = 16 };
	struct virtio_net_hdr_v1 h;

	begin(NET_F_HOST_ECN | NET_F_HOST_USO);
	send_frame(&good, 3000);
	assert_int_equal(recv(host, buf, sizeof(buf), 0), HDR + 3000);
	assert_int_equal(given_back(TX), 1);
#define BAD(field, value)                                                                          \
	do {                                                                                       \
		h = good;                                                                          \
		h.field = (value);                                                                 \
		expect_dropped(&h, 3000);                                                          \
	} while (0)
	BAD(flags, 0);
	BAD(gso_type, 3); /* UFO */
	BAD(gso_type, 5); /* not negotiated */
	BAD(gso_type, 0x81);
	BAD(gso_type, 0x80);
	BAD(gso_type, 2);
	BAD(gso_size, 0);
	BAD(gso_size, NET_GSO_SIZE_MIN - 1);
	BAD(hdr_len, 3001);
	BAD(csum_start, 13);
	BAD(csum_start, 2983);
	BAD(csum_start, UINT16_MAX);
	BAD(csum_offset, UINT16_MAX);
	h = (struct virtio_net_hdr_v1){ 0 };
	expect_dropped(&h, 13); /* no Ethernet header */
	expect_dropped(&h, NET_PACKET_MAX + 1);
	send_frame(&h, NET_PACKET_MAX);
	assert_int_equal(recv(host, buf, sizeof(buf), 0), HDR + NET_PACKET_MAX);
	finish();
	begin(NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_ECN);
	h = good;
	h.gso_type = 0;
	expect_dropped(&h, 3000);
	finish();
}

/* A tap that takes no more stops the queue, and nothing is lost or comes twice. */
static void test_tap_full(void **state)
{
	const struct virtio_net_hdr_v1 h = { 0 };
	unsigned sent = 80, got = 0, back;

	begin(0);
	for (unsigned i = 0; i < sent; i++)
		send_frame(&h, 10000 + i);
	back = given_back(TX);
	assert_true(back < sent);
	assert_true(net.tx_full);
	assert_int_equal(net.dev.queues[TX].in_flight, 0);
	while (got < sent) {
		assert_int_equal(recv(host, buf, sizeof(buf), 0), HDR + 10000 + got);
		got++;
		driver_kick(&d, TX); /* it is writable */
		back += given_back(TX);
	}
	assert_int_equal(back, sent);
	assert_false(net.tx_full);
	assert_int_equal(net.tx_dropped, 0);
	finish();
}

static void test_received(void **state)
{
	begin(0);
	post(100, 1600);
	host_send(100, 1);
	host_send(60000, 2); /* the first large one goes through the spill, the next ones not */
	host_send(60001, 3);
	host_send(1588, 4); /* one buffer to the last byte */
	host_send(1589, 5);
	tap_ready();
	expect_packet(100, 1, 1);
	expect_packet(60000, 2, 38);
	expect_packet(60001, 3, 38);
	expect_packet(1588, 4, 1);
	expect_packet(1589, 5, 2);
	assert_int_equal(net.dev.queues[RX].in_flight, 0);
	tap_ready();
	assert_int_equal(given_back(RX), 0);
	/* All the buffers that are left, in order. */
	for (unsigned i = 0; i < 20; i++)
		host_send(200 + i, i);
	tap_ready();
	for (unsigned i = 0; i < 20; i++)
		expect_packet(200 + i, i, 1);
	finish();
}

static void test_no_buffers(void **state)
{
	begin(0);
	host_send(500, 1);
	host_send(5000, 2);
	host_send(300, 3);
	tap_ready();
	assert_int_equal(given_back(RX), 0);
	assert_int_equal(net.thread.fd_events, 0); /* nobody waits for the tap: no spinning */
	post(3, 1600);				   /* the second one starts, and waits */
	expect_packet(500, 1, 1);
	assert_int_equal(given_back(RX), 0);
	assert_int_equal(net.dev.queues[RX].in_flight, 0);
	assert_int_equal(net.thread.fd_events, 0);
	post(1, 1600);
	assert_int_equal(given_back(RX), 0);
	post(3, 1600);
	expect_packet(5000, 2, 4);
	expect_packet(300, 3, 1);
	assert_int_equal(net.rx_dropped, 0);
	assert_int_equal(net.thread.fd_events, POLLIN);
	/* What waits for the buffers of a driver does not go to the next one. */
	host_send(5000, 4);
	host_send(200, 5);
	post(1, 1600);
	assert_true(net.rx.waits > 0);
	virtio_stop(&net.dev);
	virtio_start(&net.dev, net.features);
	post(1, 1600);
	expect_packet(200, 5, 1);
	finish();
}

/* Packets that never fit are dropped, and others go on. */
static void test_tiny_buffers(void **state)
{
	unsigned n;

	begin(0);
	post(200, 64);
	host_send(30000, 1);
	host_send(100, 2);
	tap_ready();
	expect_packet(100, 2, 2);
	assert_int_equal(net.rx_dropped, 1);
	finish();
	begin(0);
	post(3, 5); /* not even a header */
	post(1, 1600);
	host_send(100, 1);
	tap_ready();
	assert_int_equal(net.rx_dropped, 0);
	n = given_back(RX);
	assert_int_equal(n, 4);
	/* A driver that gives one buffer at a time, and too few. */
	host_send(60000, 2);
	host_send(100, 3);
	for (unsigned i = 0; i < 2 * NET_RX_TRIES && net.rx_dropped == 0; i++)
		post(1, 100);
	assert_int_equal(net.rx_dropped, 1);
	expect_packet(100, 3, 2);
	finish();
}

static void test_not_mergeable(void **state)
{
	begin(NET_F_MRG_RXBUF);
	post(3, 1600);
	host_send(1588, 1);
	host_send(1589, 2);
	host_send(60, 3);
	tap_ready();
	expect_packet(1588, 1, 1);
	expect_packet(60, 3, 1);
	assert_int_equal(net.rx_dropped, 1);
	finish();
}

static void test_too_long(void **state)
{
	begin(0);
	post(200, 4096);
	host_send(NET_PACKET_MAX, 1);
	host_send(NET_PACKET_MAX + 1, 2);
	tap_ready();
	host_send(NET_PACKET_MAX + 5000, 3);
	host_send(NET_PACKET_MAX, 4);
	tap_ready();
	expect_packet(NET_PACKET_MAX, 1, 17);
	expect_packet(NET_PACKET_MAX, 4, 17);
	assert_int_equal(net.rx_dropped, 2);
	finish();
}

/* A driver that breaks the ring is left alone, and the tap, too. */
static void test_broken_ring(void **state)
{
	begin(0);
	driver_avail(&d.rings[RX], 9999);
	driver_avail(&d.rings[TX], 9999);
	host_send(100, 1);
	driver_kick(&d, RX);
	driver_kick(&d, TX);
	assert_true(net.dev.queues[RX].broken && net.dev.queues[TX].broken);
	assert_int_equal(net.thread.fd_events, 0);
	finish();
}

static uint16_t status(void)
{
	uint16_t s;

	net.dev.ops->config_read(&net.dev, 6, &s, sizeof(s));
	return s;
}

static void test_link(void **state)
{
	const struct virtio_net_hdr_v1 h = { 0 };

	begin(0);
	assert_int_equal(status(), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(changes, 1);
	attach(); /* another one */
	assert_int_equal(changes, 1);
	post(4, 1600);
	host_send(100, 1);
	tap_ready();
	expect_packet(100, 1, 1);
	virtio_net_detach(&net);
	virtio_net_detach(&net);
	assert_int_equal(status(), 0);
	assert_int_equal(changes, 2);
	assert_int_equal(recv(host, buf, sizeof(buf), 0), 0); /* closed */
	/* The guest may send on; nothing stays in its queue. */
	for (unsigned i = 0; i < 50; i++)
		send_frame(&h, 100);
	assert_int_equal(given_back(TX), 50);
	attach();
	send_frame(&h, 100);
	assert_int_equal(recv(host, buf, sizeof(buf), 0), HDR + 100);
	assert_int_equal(changes, 3);
	finish();
}

static void wait_for(bool (*come)(void))
{
	for (int i = 0; i < 500 && !come(); i++)
		assert_true(loop_once(loop, 10) >= 0);
	assert_true(come());
}

static bool link_is_down(void)
{
	return status() == 0;
}

static bool something_came(void)
{
	return d.rings[RX].used[1] != d.rings[RX].seen;
}

static bool something_sent(void)
{
	struct pollfd p = { .fd = host, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* The thread: packets without a kick, kicks, and a tap that dies under it. */
static void test_thread(void **state)
{
	const struct virtio_net_hdr_v1 h = { 0 };
	struct err err = { 0 };

	begin(0);
	assert_ok(virtio_net_start(&net, loop, &err), &err);
	assert_ok(virtio_net_start(&net, loop, &err), &err);
	post(8, 1600);
	host_send(700, 1);
	wait_for(something_came);
	expect_packet(700, 1, 1);
	send_frame(&h, 900);
	wait_for(something_sent);
	assert_int_equal(recv(host, buf, sizeof(buf), 0), HDR + 900);
	fd_close(&host);
	wait_for(link_is_down);
	assert_int_equal(net.tap, -1);
	assert_int_equal(changes, 2);
	attach();
	host_send(701, 2);
	wait_for(something_came);
	expect_packet(701, 2, 1);
	finish();
}

static void test_not_a_tap(void **state)
{
	struct err err = { 0 };
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(tap_prepare(p[0], &err), -EINVAL);
	assert_text(err.msg, "tap");
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sent),	      cmocka_unit_test(test_sent_absurd),
		cmocka_unit_test(test_tap_full),      cmocka_unit_test(test_received),
		cmocka_unit_test(test_no_buffers),    cmocka_unit_test(test_tiny_buffers),
		cmocka_unit_test(test_not_mergeable), cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_broken_ring),   cmocka_unit_test(test_link),
		cmocka_unit_test(test_thread),	      cmocka_unit_test(test_not_a_tap),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
