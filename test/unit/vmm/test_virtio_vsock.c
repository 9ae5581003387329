#include "test/lib/unit.h"
#include "test/lib/vmm_driver.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/dev/vsock.h"

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { RECEIVE = 1, SEND = 2 };
enum { RX, TX };

#define CID 3
#define GUEST_PORT 5000
#define RX_BUF 4096
#define RX_BASE DATA_BASE
#define TX_BASE (DATA_BASE + 2 * MIB)
#define BUF (256 * 1024)

static struct loop *loop;
static struct virtio_vsock vs;
static struct driver d;
static unsigned n_connected, rx_posted;
static int agent; /* our end of the agent channel */
static uint8_t data[64 * 1024];

static void on_connected(void *arg)
{
	n_connected++;
}

static void rounds(void)
{
	while (loop_once(loop, 0) > 0)
		;
}

static int setup(void **state)
{
	int sv[2];

	n_connected = rx_posted = 0;
	assert_int_equal(loop_new(&loop, NULL), 0);
	virtio_vsock_init(&vs, loop, CID);
	driver_init(&d, &vs.dev, 256, virtio_features(&vs.dev));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	virtio_vsock_set_agent(&vs, sv[1], on_connected, NULL);
	agent = sv[0];
	return 0;
}

static int teardown(void **state)
{
	driver_fini(&d);
	virtio_vsock_fini(&vs);
	loop_free(loop);
	fd_close(&agent);
	return 0;
}

static void post_rx(unsigned n)
{
	for (unsigned i = 0; i < n; i++, rx_posted++) {
		struct driver_buf b = { RX_BASE + (rx_posted % 256) * RX_BUF, RX_BUF, true };

		driver_add(&d.rings[RX], &b, 1);
	}
	driver_kick(&d, RX);
}

/* The next packet from the device; its data in `data`. False: none. */
static bool receive(struct packet *p)
{
	uint32_t head, len;
	const uint8_t *at;

	rounds();
	if (!driver_used(&d.rings[RX], &head, &len))
		return false;
	at = driver_ptr(&d, d.rings[RX].desc[head].addr);
	assert_in_range(len, sizeof(*p), RX_BUF);
	memcpy(p, at, sizeof(*p));
	assert_int_equal(p->len, len - sizeof(*p));
	memcpy(data, at + sizeof(*p), p->len);
	assert_int_equal(p->src_cid, 2);
	assert_int_equal(p->dst_cid, CID);
	return true;
}

static struct packet expect(uint16_t op)
{
	struct packet p = { 0 };

	if (!receive(&p))
		fail_msg("no packet, wanted op %d", op);
	assert_int_equal(p.op, op);
	return p;
}

static void expect_none(void)
{
	struct packet p;

	if (receive(&p))
		fail_msg("unexpected packet, op %d", p.op);
}

static struct packet make(uint16_t op, uint32_t host_port, uint32_t guest_port)
{
	return (struct packet){ .src_cid = CID,
				.dst_cid = 2,
				.src_port = guest_port,
				.dst_port = host_port,
				.type = 1,
				.op = op,
				.buf_alloc = BUF };
}

static void transmit(const struct packet *p, const void *payload, uint32_t len)
{
	struct driver_buf b[2] = { { TX_BASE, sizeof(*p), false }, { TX_BASE + 4096, len, false } };
	uint32_t head, used;

	memcpy(driver_ptr(&d, TX_BASE), p, sizeof(*p));
	if (len)
		memcpy(driver_ptr(&d, TX_BASE + 4096), payload, len);
	driver_add(&d.rings[TX], b, len ? 2 : 1);
	driver_kick(&d, TX);
	while (driver_used(&d.rings[TX], &head, &used))
		;
	rounds();
}

static void op(uint16_t o, uint32_t host_port, uint32_t flags)
{
	struct packet p = make(o, host_port, GUEST_PORT);

	p.flags = flags;
	transmit(&p, NULL, 0);
}

static void rw(uint32_t host_port, const void *payload, uint32_t len)
{
	struct packet p = make(RW, host_port, GUEST_PORT);

	p.len = len;
	transmit(&p, payload, len);
}

/* A connection of the host to GUEST_PORT, accepted. Its host port; our end in *ret_fd. */
static uint32_t connected(int *ret_fd, uint32_t buf_alloc)
{
	int sv[2];
	struct packet p;
	struct packet q;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
	post_rx(8);
	assert_int_equal(virtio_vsock_connect(&vs, GUEST_PORT, sv[1], NULL), 0);
	q = expect(REQUEST);
	assert_int_equal(q.dst_port, GUEST_PORT);
	assert_int_equal(q.buf_alloc, VSOCK_BUF_ALLOC);
	p = make(RESPONSE, q.src_port, GUEST_PORT);
	p.buf_alloc = buf_alloc;
	transmit(&p, NULL, 0);
	*ret_fd = sv[0];
	return q.src_port;
}

static void expect_eof(int fd)
{
	char b;

	rounds();
	assert_int_equal(read(fd, &b, 1), 0);
}

static void test_agent(void **state)
{
	char b[8];
	struct packet p;

	assert_int_equal(write(agent, "before", 6), 6); /* waits until the guest comes */
	post_rx(8);
	op(REQUEST, 1025, 0);
	expect(RST);
	op(REQUEST, 1024, 0);
	expect(RESPONSE);
	assert_int_equal(n_connected, 1);
	p = expect(RW);
	assert_int_equal(p.src_port, 1024);
	assert_memory_equal(data, "before", 6);
	rw(1024, "hello", 5);
	assert_int_equal(read(agent, b, sizeof(b)), 5);
	/* There is only one. */
	p = make(REQUEST, 1024, GUEST_PORT + 1);
	transmit(&p, NULL, 0);
	p = expect(RST);
	assert_int_equal(p.dst_port, GUEST_PORT + 1);
	assert_int_equal(n_connected, 1);
	/* Asking again on the same ports is against the rules. */
	op(REQUEST, 1024, 0);
	expect(RST);
	expect_eof(agent);
}

static void test_connect(void **state)
{
	int fd;
	char b[8];
	uint32_t port = connected(&fd, BUF);

	assert_true(port >= 1u << 30);
	assert_int_equal(write(fd, "abc", 3), 3);
	expect(RW);
	assert_memory_equal(data, "abc", 3);
	rw(port, "defg", 4);
	assert_int_equal(read(fd, b, sizeof(b)), 4);
	op(RST, port, 0);
	expect_eof(fd);
	expect_none();
	op(RW, port, 0);
	expect(RST); /* it is unknown now */
	close(fd);
}

static void test_refused(void **state)
{
	struct packet p;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(virtio_vsock_connect(&vs, 9, STDERR_FILENO, NULL), -EINVAL);
	post_rx(2);
	assert_int_equal(virtio_vsock_connect(&vs, 9, sv[1], NULL), 0);
	p = make(RST, expect(REQUEST).src_port, 9);
	transmit(&p, NULL, 0);
	expect_eof(sv[0]);
	assert_int_equal(vs.conns.n, 0);
	close(sv[0]);
}

/* The guest's credit is kept to, also across 2^32. */
static void test_credit_of_guest(void **state)
{
	int fd;
	struct packet p;
	uint32_t port = connected(&fd, 100);

	assert_int_equal(write(fd, data, 250), 250);
	assert_int_equal(expect(RW).len, 100);
	expect_none();
	p = make(CREDIT_UPDATE, port, GUEST_PORT);
	p.buf_alloc = 100;
	p.fwd_cnt = 60;
	transmit(&p, NULL, 0);
	assert_int_equal(expect(RW).len, 60);
	expect_none();
	p.fwd_cnt = 161; /* nonsense: more than was sent. Nothing is sent for it */
	transmit(&p, NULL, 0);
	expect_none();
	p.fwd_cnt = 160;
	transmit(&p, NULL, 0);
	assert_int_equal(expect(RW).len, 90);
	shutdown(fd, SHUT_WR);
	p.fwd_cnt = 250;
	transmit(&p, NULL, 0);
	assert_int_equal(expect(SHUTDOWN).flags, SEND);
	close(fd);
}

/* What the host does not read is kept up to the credit, then the guest has broken a rule. */
static void test_credit_of_host(void **state)
{
	static uint8_t got[65536];
	int fd;
	size_t sent = 0, seen = 0;
	struct packet p;
	uint32_t port = connected(&fd, BUF), told = 0;
	bool reset;

	memset(data, 'x', sizeof(data));
	post_rx(64);
	/* As a driver that keeps to the rules. */
	for (;;) {
		uint32_t n;

		while (receive(&p)) {
			assert_int_equal(p.op, CREDIT_UPDATE);
			told = p.fwd_cnt;
		}
		n = MIN_OF(VSOCK_BUF_ALLOC - ((uint32_t)sent - told), 60000u);
		if (n == 0)
			break;
		rw(port, data, n);
		sent += n;
	}
	assert_true(sent >= VSOCK_BUF_ALLOC);
	/* All of it arrives. */
	for (ssize_t n; (n = read(fd, got, sizeof(got))) > 0; rounds())
		seen += (size_t)n;
	assert_int_equal(seen, sent);
	assert_int_equal(expect(CREDIT_UPDATE).op, CREDIT_UPDATE);
	while (receive(&p))
		told = p.fwd_cnt;
	assert_true((uint32_t)sent - told < VSOCK_BUF_ALLOC / 4);
	op(CREDIT_REQUEST, port, 0);
	assert_int_equal(expect(CREDIT_UPDATE).fwd_cnt, sent);
	/* One that does not. */
	for (int i = 0; i < 20; i++)
		rw(port, data, 60000);
	reset = false;
	while (receive(&p))
		reset = reset || p.op == RST;
	assert_true(reset);
	close(fd);
}

static void test_half_close(void **state)
{
	int fd;
	char b[8];
	uint32_t port = connected(&fd, BUF);

	/* The guest ends its direction; ours goes on. */
	rw(port, "last", 4);
	op(SHUTDOWN, port, SEND);
	assert_int_equal(read(fd, b, sizeof(b)), 4);
	expect_eof(fd);
	assert_int_equal(write(fd, "more", 4), 4);
	assert_int_equal(expect(RW).len, 4);
	/* Now the other one. */
	op(SHUTDOWN, port, RECEIVE);
	expect(RST);
	assert_int_equal(vs.conns.n, 0);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	close(fd);

	/* The guest does not read any more: the host's writes fail, its reads go on. */
	port = connected(&fd, BUF);
	op(SHUTDOWN, port, RECEIVE);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	rw(port, "data", 4);
	assert_int_equal(read(fd, b, sizeof(b)), 4);
	rw(port, "", 0);
	op(SHUTDOWN, port, SEND);
	expect(RST);
	close(fd);

	/* The host ends its direction, then closes. */
	port = connected(&fd, BUF);
	shutdown(fd, SHUT_WR);
	assert_int_equal(expect(SHUTDOWN).flags, SEND);
	rw(port, "still", 5);
	assert_int_equal(read(fd, b, sizeof(b)), 5);
	close(fd);
	assert_int_equal(expect(SHUTDOWN).flags, SEND | RECEIVE);
	rw(port, "into the void", 13);
	expect_none();
	op(RST, port, 0);
	assert_int_equal(vs.conns.n, 0);

	/* Data after the end of its own direction. */
	port = connected(&fd, BUF);
	op(SHUTDOWN, port, SEND);
	rw(port, "oops", 4);
	expect(RST);
	close(fd);
}

/* The host writes and closes at once: the guest gets every byte first. */
static void test_host_closes(void **state)
{
	int fd;
	size_t seen = 0;
	struct packet p;
	uint32_t port = connected(&fd, BUF);

	assert_int_equal(write(fd, data, 50000), 50000);
	close(fd);
	while (receive(&p) || rx_posted < 100) {
		if (p.op == RW)
			seen += p.len;
		else if (p.op == SHUTDOWN)
			break;
		post_rx(1);
	}
	assert_int_equal(seen, 50000);
	assert_int_equal(p.flags, SEND | RECEIVE);
	op(RST, port, 0);
	assert_int_equal(vs.conns.n, 0);
}

/* The guest writes and closes at once, and the host reads late. */
static void test_guest_closes(void **state)
{
	int fd;
	static uint8_t got[65536];
	size_t sent = 0, seen = 0;
	uint32_t port = connected(&fd, BUF);
	struct packet p;

	while (sent < VSOCK_BUF_ALLOC - 60000) {
		rw(port, data, 60000);
		sent += 60000;
	}
	op(SHUTDOWN, port, SEND | RECEIVE);
	while (receive(&p) && p.op != RST)
		;
	assert_int_equal(p.op, RST);
	op(RST, port, 0); /* late, and harmless */
	for (ssize_t n; (n = read(fd, got, sizeof(got))) != 0; rounds()) {
		assert_true(n > 0);
		seen += (size_t)n;
	}
	assert_int_equal(seen, sent);
	rounds();
	assert_int_equal(vs.conns.n, 0);
	close(fd);
}

static void test_hostile(void **state)
{
	int fd;
	struct packet p;
	uint32_t port;
	struct driver_buf b = { TX_BASE, 43, false };

#define BREAKS(change)                                                                             \
	do {                                                                                       \
		port = connected(&fd, BUF);                                                        \
		p = make(RW, port, GUEST_PORT);                                                    \
		change;                                                                            \
		transmit(&p, data, 10);                                                            \
		expect(RST);                                                                       \
		expect_eof(fd);                                                                    \
		close(fd);                                                                         \
		assert_int_equal(vs.conns.n, 0);                                                   \
	} while (0)
	BREAKS(p.len = 11);
	BREAKS(p.len = UINT32_MAX);
	BREAKS(p.len = VSOCK_PACKET_MAX + 1);
	BREAKS(p.type = 2);
	BREAKS(p.op = 0);
	BREAKS(p.op = 8);
	BREAKS(p.op = 0xffff);
	BREAKS(p.op = SHUTDOWN; p.len = 5);
	BREAKS(p.op = RESPONSE);
	BREAKS(p.op = REQUEST);
	BREAKS(p.dst_cid = 1);
	/* Another's address: answered, and no connection is touched. */
	port = connected(&fd, BUF);
	p = make(RW, port, GUEST_PORT);
	p.src_cid = 4;
	transmit(&p, NULL, 0);
	expect(RST);
	assert_int_equal(vs.conns.n, 1);
	/* Too short for a header. */
	driver_add(&d.rings[TX], &b, 1);
	driver_kick(&d, TX);
	expect_none();
	/* RST for nothing: no answer. */
	op(RST, 77, 0);
	expect_none();
	assert_int_equal(write(fd, "ok", 2), 2);
	expect(RW);
	close(fd);
}

/* A driver that takes no answers is not served for ever; one that comes back loses nothing. */
static void test_resets_pile_up(void **state)
{
	struct packet p = make(RW, 0, 0);
	struct driver_buf b = { TX_BASE, sizeof(p), false };
	uint32_t head, len;
	unsigned done = 0, resets = 0;

	memcpy(driver_ptr(&d, TX_BASE), &p, sizeof(p));
	for (int i = 0; i < 250; i++)
		driver_add(&d.rings[TX], &b, 1);
	driver_kick(&d, TX);
	rounds();
	while (driver_used(&d.rings[TX], &head, &len))
		done++;
	assert_int_equal(done, VSOCK_RESETS_MAX);
	post_rx(250);
	rounds();
	while (receive(&p))
		resets += p.op == RST;
	while (driver_used(&d.rings[TX], &head, &len))
		done++;
	assert_int_equal(done, 250);
	assert_int_equal(resets, 250);
}

/* Hosts that do not read, on ever more connections: the guest is told to send less, and what is
 * kept for all of them together has an end. */
static void test_kept(void **state)
{
	int fds[200], small = 4096, sv[2], n = 0;
	uint32_t told = VSOCK_BUF_ALLOC, port = 0;
	bool reset = false;
	struct packet p;

	post_rx(32);
	for (; n < 200 && !reset; n++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
		assert_int_equal(setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
				 0);
		fds[n] = sv[0];
		assert_int_equal(virtio_vsock_connect(&vs, GUEST_PORT, sv[1], NULL), 0);
		for (; receive(&p); post_rx(1)) {
			if (p.op == REQUEST) {
				port = p.src_port;
				told = p.buf_alloc;
			}
		}
		p = make(RESPONSE, port, GUEST_PORT);
		transmit(&p, NULL, 0);
		/* A guest that does not care what it was told. */
		for (int i = 0; i < 4; i++)
			rw(port, data, 60000);
		for (; receive(&p); post_rx(1))
			reset = reset || p.op == RST;
		assert_true(vs.conns.kept <= VSOCK_KEPT_MAX + VSOCK_PACKET_MAX);
	}
	assert_true(reset);
	assert_true(n > 100);
	assert_int_equal(told, VSOCK_BUF_ALLOC_SHORT);
	for (int i = 0; i < n; i++)
		close(fds[i]);
	rounds();
	assert_int_equal(vs.conns.kept, 0);
}

/* All of a pod with many containers wait for a slow disk of the host: a guest that keeps to what it
 * was told loses no connection. */
static void test_kept_of_honest_guest(void **state)
{
	enum { N = 200 };
	int fds[N], small = 4096, sv[2];
	uint32_t told[N], port[N];
	struct packet p;

	post_rx(32);
	for (int i = 0; i < N; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
		assert_int_equal(setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)),
				 0);
		fds[i] = sv[0];
		assert_int_equal(virtio_vsock_connect(&vs, GUEST_PORT, sv[1], NULL), 0);
		p = expect(REQUEST);
		post_rx(1);
		port[i] = p.src_port;
		told[i] = p.buf_alloc;
		p = make(RESPONSE, port[i], GUEST_PORT);
		transmit(&p, NULL, 0);
	}
	for (int i = 0; i < N; i++) {
		for (uint32_t sent = 0, n; sent < told[i]; sent += n) {
			n = MIN_OF(told[i] - sent, 60000u);
			rw(port[i], data, n);
		}
		for (; receive(&p); post_rx(1))
			assert_int_not_equal(p.op, RST);
	}
	assert_true(vs.conns.kept > 64u * (VSOCK_BUF_ALLOC - 2 * (unsigned)small));
	for (int i = 0; i < N; i++)
		close(fds[i]);
	rounds();
	assert_int_equal(vs.conns.kept, 0);
}

static void test_limit(void **state)
{
	int sv[2], n = 0, r;

	for (;; n++) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0) {
			print_message("skipped: RLIMIT_NOFILE allows %d connections\n", n);
			skip();
		}
		close(sv[0]);
		r = virtio_vsock_connect(&vs, 1, sv[1], NULL);
		if (r < 0)
			break;
	}
	close(sv[1]);
	assert_int_equal(r, -ENOBUFS);
	assert_int_equal(n, VSOCK_CONNS_MAX);
}

/* The driver resets the device: every connection ends; what was accepted is still delivered. */
static void test_reset(void **state)
{
	int fd, other;
	char b[8];
	uint32_t port = connected(&fd, BUF);

	connected(&other, BUF);
	rw(port, "bytes", 5);
	virtio_stop(&vs.dev);
	assert_int_equal(read(fd, b, sizeof(b)), 5);
	expect_eof(fd);
	expect_eof(other);
	assert_int_equal(vs.conns.n, 0);
	virtio_start(&vs.dev, 0);
	close(fd);
	connected(&fd, BUF);
	close(fd);
	close(other);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_agent),		T(test_connect),
		T(test_refused),	T(test_credit_of_guest),
		T(test_credit_of_host), T(test_half_close),
		T(test_host_closes),	T(test_guest_closes),
		T(test_hostile),	T(test_resets_pile_up),
		T(test_limit),		T(test_kept),
		T(test_reset),		T(test_kept_of_honest_guest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
