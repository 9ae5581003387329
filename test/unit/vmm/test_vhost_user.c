/* The vhost-user back end against a front end of our own, with the rng device behind it. */
#include "test/lib/unit.h"
#include "test/lib/vmm_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"
#include "vmm/virtio/vhost_user.h"
#include "vmm/dev/rng.h"

enum {
	GET_FEATURES = 1,
	SET_FEATURES,
	SET_OWNER,
	SET_MEM_TABLE = 5,
	SET_NUM = 8,
	SET_ADDR,
	SET_BASE,
	GET_BASE,
	SET_KICK,
	SET_CALL,
	GET_PROTOCOL = 15,
	SET_PROTOCOL,
	SET_ENABLE = 18,
	GET_CONFIG = 24
};
#define USER_BASE 0x7f0000000000ull
#define NEED_REPLY 8u

static struct loop *loop;
static struct virtio_rng rng;
static struct vhost_user vu;
static int front, ram_fd;
static struct driver d; /* its ram is the shared memfd */
static char why[200];

static void on_failed(void *arg, const char *text)
{
	snprintf(why, sizeof(why), "%s", text);
}

static int setup(void **state)
{
	int sv[2];

	*why = '\0';
	memset(&d, 0, sizeof(d));
	assert_int_equal(loop_new(&loop, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	virtio_rng_init(&rng, loop);
	assert_int_equal(vhost_user_init(&vu, loop, &rng.dev, sv[1], on_failed, NULL, NULL), 0);
	front = sv[0];
	ram_fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(ram_fd, GUEST_RAM), 0);
	d.ram = mmap(NULL, GUEST_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
	driver_ring_init(&d, 0, 8);
	return 0;
}

static int teardown(void **state)
{
	vhost_user_fini(&vu);
	loop_free(loop);
	fd_close(&front);
	fd_close(&ram_fd);
	munmap(d.ram, GUEST_RAM);
	return 0;
}

static void rounds(void)
{
	while (loop_once(loop, 0) > 0)
		;
}

static void send_message(uint32_t request, uint32_t flags, const void *payload, uint32_t len,
			 const int *fds, unsigned n_fds)
{
	uint32_t h[3] = { request, 1 | flags, len };
	struct iovec iov[2] = { { h, sizeof(h) }, { (void *)payload, len } };

	assert_int_equal(fdpass_sendv(front, iov, 2, fds, n_fds, 0), sizeof(h) + len);
	rounds();
}

static void send_u64(uint32_t request, uint64_t v, const int *fd)
{
	send_message(request, 0, &v, 8, fd, fd ? 1 : 0);
}

static void send_state(uint32_t request, uint32_t index, uint32_t num)
{
	uint32_t s[2] = { index, num };

	send_message(request, 0, s, 8, NULL, 0);
}

static uint64_t answer_u64(uint32_t request)
{
	uint32_t h[3];
	uint64_t v;

	assert_int_equal(recv(front, h, 12, MSG_DONTWAIT), 12);
	assert_int_equal(h[0], request);
	assert_int_equal(h[1], 5); /* version 1, reply */
	assert_int_equal(h[2], 8);
	assert_int_equal(recv(front, &v, 8, MSG_DONTWAIT), 8);
	return v;
}

struct table {
	uint32_t n, pad;
	struct {
		uint64_t gpa, size, user, offset;
	} r[2];
};

static void send_table(uint64_t size, uint64_t offset)
{
	struct table t = { 1, 0, { { GUEST_BASE, size, USER_BASE, offset } } };

	send_message(SET_MEM_TABLE, 0, &t, 40, &ram_fd, 1);
}

static void send_addr(uint64_t skew)
{
	struct virtq_layout l = driver_layout(0, 8);
	uint64_t to = USER_BASE - GUEST_BASE + skew;
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} a = { 0, 0, l.desc + to, l.used + to, l.avail + to, 0 };

	send_message(SET_ADDR, 0, &a, sizeof(a), NULL, 0);
}

static void seal(void)
{
	assert_int_equal(fcntl(ram_fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
}

/* As QEMU does. */
static void start_ring(int kick, int call)
{
	uint64_t f;

	seal();
	send_message(SET_OWNER, 0, NULL, 0, NULL, 0);
	send_message(GET_FEATURES, 0, NULL, 0, NULL, 0);
	f = answer_u64(GET_FEATURES);
	assert_true(f & VIRTIO_F_VERSION_1);
	assert_true(f & (1u << 30));
	send_message(GET_PROTOCOL, 0, NULL, 0, NULL, 0);
	assert_true(answer_u64(GET_PROTOCOL) == ((1 << 3) | (1 << 9)));
	send_u64(SET_PROTOCOL, 1 << 3, NULL);
	send_u64(SET_FEATURES, VIRTIO_F_VERSION_1 | (1u << 30), NULL);
	send_table(GUEST_RAM, 0);
	send_state(SET_NUM, 0, 8);
	send_state(SET_BASE, 0, 0);
	send_addr(0);
	send_u64(SET_KICK, 0, &kick);
	send_u64(SET_CALL, 0, &call);
	assert_false(virtq_enabled(&rng.dev.queues[0]));
	send_state(SET_ENABLE, 0, 1);
}

static void test_ring(void **state)
{
	int kick = eventfd(0, EFD_NONBLOCK), call = eventfd(0, EFD_NONBLOCK);
	const struct driver_buf b = { DATA_BASE, 32, true };
	uint32_t head, len;
	uint64_t n = 1;

	start_ring(kick, call);
	assert_true(virtq_enabled(&rng.dev.queues[0]));
	driver_add(&d.rings[0], &b, 1);
	assert_int_equal(write(kick, &n, 8), 8);
	rounds();
	assert_true(driver_used(&d.rings[0], &head, &len));
	assert_int_equal(len, 32);
	assert_int_equal(read(call, &n, 8), 8);
	/* A new memory table while the ring runs: it goes on where it was. */
	send_table(GUEST_RAM, 0);
	driver_add(&d.rings[0], &b, 1);
	assert_int_equal(write(kick, &n, 8), 8);
	rounds();
	assert_true(driver_used(&d.rings[0], &head, &len));
	send_state(GET_BASE, 0, 0);
	assert_true(answer_u64(GET_BASE) == 2ull << 32);
	assert_false(virtq_enabled(&rng.dev.queues[0]));
	assert_false(rng.dev.started);
	assert_string_equal(why, "");
	close(kick);
	close(call);
}

static void test_reply_ack(void **state)
{
	uint64_t v = 1 << 3;
	uint32_t s[2] = { 0, 8 };

	send_message(SET_PROTOCOL, 0, &v, 8, NULL, 0);
	send_message(SET_NUM, NEED_REPLY, s, 8, NULL, 0);
	assert_int_equal(answer_u64(SET_NUM), 0);
}

static void expect_failure(void)
{
	char b;

	rounds();
	assert_string_not_equal(why, "");
	errno = 0;
	assert_true(recv(front, &b, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN); /* closed */
	teardown(NULL);
	setup(NULL);
}

static void test_hostile(void **state)
{
	uint8_t payload[512] = { 0 };
	uint32_t h[3] = { GET_FEATURES, 0, 0 }; /* version 0 */
	uint32_t config[3] = { 0, 255, 0 };
	int many[9];
	struct table t = { 2, 0, { { GUEST_BASE, 4096, 0, 0 }, { GUEST_BASE, 4096, 0, 0 } } };

	assert_int_equal(send(front, h, 12, 0), 12);
	expect_failure();
	h[1] = 5; /* an answer */
	assert_int_equal(send(front, h, 12, 0), 12);
	expect_failure();
	send_message(0, 0, NULL, 0, NULL, 0);
	expect_failure();
	send_message(6, 0, payload, 8, NULL, 0); /* SET_LOG_BASE: not offered */
	expect_failure();
	send_message(1000, 0, NULL, 0, NULL, 0);
	expect_failure();
	send_message(SET_FEATURES, 0, payload, 4, NULL, 0);
	expect_failure();
	send_message(SET_FEATURES, 0, payload, 512, NULL, 0);
	expect_failure();
	send_u64(SET_FEATURES, 1ull << 63, NULL);
	expect_failure();
	send_u64(SET_PROTOCOL, 1, NULL);
	expect_failure();
	send_state(SET_NUM, 1, 8); /* there is one ring */
	expect_failure();
	send_state(SET_NUM, 0, 2048);
	expect_failure();
	send_u64(SET_KICK, 0, NULL); /* without its descriptor */
	expect_failure();
	send_u64(SET_KICK, 0x100, &ram_fd); /* with one it says it has not */
	expect_failure();
	send_u64(SET_FEATURES, 0, &ram_fd);
	expect_failure();
	send_addr(0); /* before the memory */
	expect_failure();
	send_table(GUEST_RAM, 0); /* not sealed: it could shrink */
	expect_failure();
	seal();
	send_table(GUEST_RAM + 1, 0);
	expect_failure();
	seal();
	send_table(GUEST_RAM, 4096);
	expect_failure();
	seal();
	send_table(4096, UINT64_MAX - 4095);
	expect_failure();
	seal();
	send_table(0, 0);
	expect_failure();
	seal();
	send_message(SET_MEM_TABLE, 0, &t, 72, (const int[]){ ram_fd, ram_fd }, 2); /* overlap */
	expect_failure();
	send_message(SET_MEM_TABLE, 0, &t, 72, &ram_fd, 1);
	expect_failure();
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = front;
	send_message(SET_MEM_TABLE, 0, &t, 72, many, ARRAY_SIZE(many));
	expect_failure();
	memcpy(payload, config, 12);
	send_message(GET_CONFIG, 0, payload, 20, NULL, 0); /* 8 bytes, not 255 */
	expect_failure();
}

/* A ring whose end lies outside: refused when it is enabled. */
static void test_ring_outside(void **state)
{
	int kick = eventfd(0, EFD_NONBLOCK);

	seal();
	send_table(GUEST_RAM, 0);
	send_state(SET_NUM, 0, 8);
	send_addr(GUEST_RAM - 48 * KIB - 8);
	assert_string_equal(why, "");
	send_u64(SET_KICK, 0, &kick);
	assert_text(why, "vhost-user rng");
	close(kick);
}

/* Chains that a device keeps (dev/blk.h) are its own still when guest memory is mapped anew, and
 * nobody's when the ring was stopped. */
static void test_chains_kept(void **state)
{
	struct virtq *q = &rng.dev.queues[0];
	int kick = eventfd(0, EFD_NONBLOCK), call = eventfd(0, EFD_NONBLOCK);

	start_ring(kick, call);
	assert_true(virtq_enabled(q));
	q->in_flight = 3;
	send_table(GUEST_RAM, 0);
	assert_true(virtq_enabled(q));
	assert_int_equal(q->in_flight, 3);
	send_state(SET_ENABLE, 0, 0);
	assert_false(virtq_enabled(q));
	send_state(SET_ENABLE, 0, 1);
	assert_true(virtq_enabled(q));
	assert_int_equal(q->in_flight, 0);
	assert_string_equal(why, "");
	close(kick);
	close(call);
}

/* What is no eventfd is not read and written as one: a pipe without a writer would spin. */
static void test_no_eventfd(void **state)
{
	static const uint32_t requests[] = { SET_KICK, SET_CALL };
	int p[2], file;

	for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
		assert_int_equal(pipe(p), 0);
		close(p[1]);
		send_u64(requests[i], 0, &p[0]);
		expect_failure();
		close(p[0]);
		file = memfd_create("f", MFD_CLOEXEC);
		send_u64(requests[i], 0, &file);
		expect_failure();
		close(file);
	}
}

/* Messages in pieces, and two in one. */
static void test_pieces(void **state)
{
	uint32_t m[6] = { GET_FEATURES, 1, 0, GET_PROTOCOL, 1, 0 };

	for (size_t i = 0; i < 12; i++) {
		assert_int_equal(send(front, (uint8_t *)m + i, 1, 0), 1);
		rounds();
	}
	answer_u64(GET_FEATURES);
	assert_int_equal(send(front, m, 24, 0), 24);
	rounds();
	answer_u64(GET_FEATURES);
	answer_u64(GET_PROTOCOL);
}

static void test_config(void **state)
{
	uint8_t payload[20] = { 0 }, got[12 + 20];

	payload[4] = 8;
	payload[12] = 0xaa;
	send_message(GET_CONFIG, 0, payload, 20, NULL, 0);
	assert_int_equal(recv(front, got, sizeof(got), MSG_DONTWAIT), 32);
	assert_int_equal(got[12 + 4], 8);
	assert_int_equal(got[12 + 12], 0); /* the rng has no configuration: zeros */
}

static void test_closed(void **state)
{
	int kick = eventfd(0, EFD_NONBLOCK), call = eventfd(0, EFD_NONBLOCK);

	start_ring(kick, call);
	fd_close(&front);
	rounds();
	assert_string_equal(why, "");
	assert_false(virtq_enabled(&rng.dev.queues[0]));
	assert_int_equal(vu.mem.n, 0);
	close(kick);
	close(call);
}

static unsigned config_changes;

static void on_config_changed(void *arg)
{
	config_changes++;
	assert_ptr_equal(arg, &vu);
}

/* A peer that keeps the configuration itself: it is told of changes, and not offered ours. */
static void test_peers_config(void **state)
{
	virtio_config_changed(&rng.dev); /* nobody listens */
	vu.own_config = false;
	vu.config_changed = on_config_changed;
	vu.config_arg = &vu;
	virtio_config_changed(&rng.dev);
	assert_int_equal(config_changes, 1);
	send_message(GET_PROTOCOL, 0, NULL, 0, NULL, 0);
	assert_true(answer_u64(GET_PROTOCOL) == 1 << 3);
	assert_string_equal(why, "");
	send_u64(SET_PROTOCOL, 1 << 9, NULL);
	assert_string_not_equal(why, "");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_ring),	     T(test_reply_ack),	   T(test_hostile), T(test_ring_outside),
		T(test_pieces),	     T(test_config),	   T(test_closed),  T(test_no_eventfd),
		T(test_chains_kept), T(test_peers_config),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
