/* The registers of virtio-mmio against a device that only notes what happens to it. */
#include "test/lib/unit.h"

#include <errno.h>
#include <unistd.h>

#include "base/loop.h"
#include "vmm/virtio/mmio.h"

enum {
	DEVICE_FEATURES = 0x10,
	DEVICE_FEATURES_SEL = 0x14,
	DRIVER_FEATURES = 0x20,
	DRIVER_FEATURES_SEL = 0x24,
	QUEUE_SEL = 0x30,
	QUEUE_NUM_MAX = 0x34,
	QUEUE_NUM = 0x38,
	QUEUE_READY = 0x44,
	QUEUE_NOTIFY = 0x50,
	INTERRUPT_STATUS = 0x60,
	INTERRUPT_ACK = 0x64,
	STATUS = 0x70,
	QUEUE_DESC = 0x80,
	QUEUE_AVAIL = 0x90,
	QUEUE_USED = 0xa0,
	CONFIG = 0x100,
};
#define FEATURE 0x5ull

static struct {
	int starts, stops, notifies, config_writes;
	uint64_t features;
	unsigned last_queue;
	uint8_t config[12];
} seen;

static void fake_config_read(const struct virtio_dev *d, size_t off, void *buf, size_t len)
{
	memcpy(buf, seen.config + off, len);
}
static void fake_config_write(struct virtio_dev *d, size_t off, const void *buf, size_t len)
{
	memcpy(seen.config + off, buf, len);
	seen.config_writes++;
}
static void fake_start(struct virtio_dev *d, uint64_t features)
{
	seen.starts++;
	seen.features = features;
}
static void fake_stop(struct virtio_dev *d)
{
	seen.stops++;
}
static void fake_notify(struct virtio_dev *d, unsigned queue)
{
	seen.notifies++;
	seen.last_queue = queue;
}

static const struct virtio_dev_ops fake_ops = {
	.id = VIRTIO_ID_BLOCK,
	.name = "fake",
	.n_queues = 2,
	.queue_max = { 64, 16 },
	.features = FEATURE,
	.config_len = sizeof(seen.config),
	.config_read = fake_config_read,
	.config_write = fake_config_write,
	.start = fake_start,
	.stop = fake_stop,
	.notify = fake_notify,
};

static struct loop *loop;
static struct virtio_dev dev;
static struct virtio_mmio m;
static struct guestmem mem;
static uint8_t ram[0x10000] __attribute__((aligned(4096)));

static uint32_t rd(uint64_t off)
{
	uint32_t v;

	virtio_mmio_read(&m, off, &v, sizeof(v));
	return v;
}
static void wr(uint64_t off, uint32_t v)
{
	if (virtio_mmio_write(&m, off, &v, sizeof(v)))
		virtio_mmio_apply(&m);
}

static int setup(void **state)
{
	struct err err = { 0 };
	struct guest_region r;

	memset(&seen, 0, sizeof(seen));
	memset(ram, 0, sizeof(ram));
	dev = (struct virtio_dev){ .ops = &fake_ops };
	guestmem_init(&mem);
	r = (struct guest_region){ .gpa = 0, .size = sizeof(ram), .host = ram };
	if (loop_new(&loop, &err) < 0 || guestmem_add(&mem, &r) < 0)
		return -1;
	return virtio_mmio_init(&m, loop, &dev, &mem, &err);
}

static int teardown(void **state)
{
	virtio_mmio_fini(&m);
	guestmem_fini(&mem);
	loop_free(loop);
	return 0;
}

static void negotiate(uint64_t features)
{
	wr(STATUS, 0);
	wr(STATUS, 1);
	wr(STATUS, 3);
	wr(DRIVER_FEATURES_SEL, 0);
	wr(DRIVER_FEATURES, (uint32_t)features);
	wr(DRIVER_FEATURES_SEL, 1);
	wr(DRIVER_FEATURES, (uint32_t)(features >> 32));
	wr(STATUS, 11);
}

static void set_queue(unsigned queue, uint16_t size, uint32_t base)
{
	wr(QUEUE_SEL, queue);
	wr(QUEUE_NUM, size);
	wr(QUEUE_DESC, base);
	wr(QUEUE_DESC + 4, 0);
	wr(QUEUE_AVAIL, base + 0x1000);
	wr(QUEUE_USED, base + 0x2000);
	wr(QUEUE_READY, 1);
}

static void start(void)
{
	negotiate(VIRTIO_F_VERSION_1 | FEATURE);
	set_queue(0, 64, 0x1000);
	set_queue(1, 16, 0x8000);
	wr(STATUS, 15);
}

static uint64_t drain(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n) ? n : 0;
}

static void test_identity(void **state)
{
	assert_int_equal(rd(0), 0x74726976);
	assert_int_equal(rd(4), 2);
	assert_int_equal(rd(8), VIRTIO_ID_BLOCK);
	assert_int_equal(rd(DEVICE_FEATURES) & FEATURE, FEATURE);
	wr(DEVICE_FEATURES_SEL, 1);
	assert_int_equal(rd(DEVICE_FEATURES) & 1, 1); /* VERSION_1 */
	wr(DEVICE_FEATURES_SEL, 2);
	assert_int_equal(rd(DEVICE_FEATURES), 0);
	assert_int_equal(rd(QUEUE_NUM_MAX), 64);
	wr(QUEUE_SEL, 1);
	assert_int_equal(rd(QUEUE_NUM_MAX), 16);
	wr(QUEUE_SEL, 2);
	assert_int_equal(rd(QUEUE_NUM_MAX), 0);
	wr(QUEUE_SEL, UINT32_MAX);
	assert_int_equal(rd(QUEUE_NUM_MAX), 0);
	assert_int_equal(rd(0xb0), UINT32_MAX); /* no shared memory */
	assert_int_equal(rd(0xfc), 0);
}

static void test_start_and_reset(void **state)
{
	start();
	assert_int_equal(rd(STATUS), 15);
	assert_int_equal(seen.starts, 1);
	assert_int_equal(seen.features, VIRTIO_F_VERSION_1 | FEATURE);
	assert_true(virtq_enabled(&dev.queues[0]) && virtq_enabled(&dev.queues[1]));
	assert_int_equal(dev.queues[1].size, 16);
	/* A kick before the start would be lost: each queue is looked at once. */
	assert_int_equal(seen.notifies, 2);
	wr(STATUS, 15);
	assert_int_equal(seen.starts, 1);

	wr(STATUS, 0);
	assert_int_equal(rd(STATUS), 0);
	assert_int_equal(seen.stops, 1);
	assert_false(virtq_enabled(&dev.queues[0]) || virtq_enabled(&dev.queues[1]));
	wr(QUEUE_SEL, 0);
	assert_int_equal(rd(QUEUE_READY), 0);
	start();
	assert_int_equal(seen.starts, 2);
}

static void test_features(void **state)
{
	negotiate(FEATURE); /* not version 1 */
	assert_int_equal(rd(STATUS) & 8, 0);
	negotiate(VIRTIO_F_VERSION_1 | 0x100); /* not offered */
	assert_int_equal(rd(STATUS) & 8, 0);
	wr(STATUS, 15); /* no DRIVER_OK without FEATURES_OK */
	assert_int_equal(rd(STATUS) & 4, 0);
	assert_int_equal(seen.starts, 0);
	negotiate(VIRTIO_F_VERSION_1);
	assert_int_equal(rd(STATUS) & 8, 8);
	wr(DRIVER_FEATURES_SEL, 0); /* too late */
	wr(DRIVER_FEATURES, FEATURE);
	wr(STATUS, 15);
	assert_int_equal(seen.features, VIRTIO_F_VERSION_1);
}

static void test_bad_queue(void **state)
{
	static const struct {
		uint16_t size;
		uint32_t base;
	} bad[] = { { 0, 0x1000 },	{ 3, 0x1000 },	    { 128, 0x1000 },
		    { 64, 0xffff0000 }, { 64, 0x0000e000 }, { 64, 0x1001 } };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		negotiate(VIRTIO_F_VERSION_1);
		set_queue(0, bad[i].size, bad[i].base);
		drain(m.irq);
		wr(STATUS, 15);
		assert_int_equal(seen.starts, 0);
		assert_int_equal(rd(STATUS) & 64, 64); /* needs reset */
		assert_int_equal(rd(INTERRUPT_STATUS), 2);
		assert_int_equal(drain(m.irq), 1);
		assert_false(virtq_enabled(&dev.queues[0]));
	}
	start();
	assert_int_equal(seen.starts, 1);
	assert_int_equal(rd(STATUS) & 64, 0);
}

static void test_queue_comes_and_goes(void **state)
{
	negotiate(VIRTIO_F_VERSION_1);
	wr(STATUS, 15);
	assert_int_equal(seen.starts, 1);
	assert_false(virtq_enabled(&dev.queues[0]));
	set_queue(0, 8, 0x1000);
	assert_true(virtq_enabled(&dev.queues[0]));
	wr(QUEUE_NUM, 4); /* not while it is ready */
	wr(QUEUE_READY, 0);
	assert_false(virtq_enabled(&dev.queues[0]));
	wr(QUEUE_READY, 1);
	assert_int_equal(dev.queues[0].size, 8);
}

static void test_interrupt(void **state)
{
	start();
	drain(m.irq);
	m.transport.interrupt(&m.transport, 1);
	m.transport.interrupt(&m.transport, 0);
	assert_int_equal(rd(INTERRUPT_STATUS), 1);
	assert_int_equal(drain(m.irq), 2);
	wr(INTERRUPT_ACK, 2);
	assert_int_equal(rd(INTERRUPT_STATUS), 1);
	wr(INTERRUPT_ACK, 1);
	assert_int_equal(rd(INTERRUPT_STATUS), 0);
}

static void test_kick(void **state)
{
	wr(QUEUE_NOTIFY, 1); /* before the start: nothing */
	assert_true(loop_once(loop, 0) >= 0);
	assert_int_equal(seen.notifies, 0);
	start();
	seen.notifies = 0;
	wr(QUEUE_NOTIFY, 1);
	wr(QUEUE_NOTIFY, 1);
	wr(QUEUE_NOTIFY, 2); /* no such queue */
	wr(QUEUE_NOTIFY, UINT32_MAX);
	assert_true(loop_once(loop, 0) >= 0);
	assert_int_equal(seen.notifies, 1);
	assert_int_equal(seen.last_queue, 1);
}

static void test_config(void **state)
{
	uint8_t b[16];

	for (size_t i = 0; i < sizeof(seen.config); i++)
		seen.config[i] = (uint8_t)(i + 1);
	assert_int_equal(rd(CONFIG), 0x04030201);
	virtio_mmio_read(&m, CONFIG + 5, b, 1);
	assert_int_equal(b[0], 6);
	virtio_mmio_read(&m, CONFIG + 4, b, 8);
	assert_int_equal(b[7], 12);
	/* Beyond the end: zeros, whole. */
	memset(b, 0xff, sizeof(b));
	virtio_mmio_read(&m, CONFIG + 9, b, 4);
	assert_int_equal(b[0] | b[1] | b[2] | b[3], 0);
	virtio_mmio_read(&m, VIRTIO_MMIO_SIZE - 4, b, 4);
	assert_int_equal(b[0] | b[1] | b[2] | b[3], 0);

	assert_false(virtio_mmio_write(&m, CONFIG + 9, b, 4));
	assert_true(virtio_mmio_write(&m, CONFIG + 8, "abcd", 4));
	assert_int_equal(seen.config_writes, 0); /* on the main loop only */
	virtio_mmio_apply(&m);
	assert_int_equal(seen.config_writes, 1);
	assert_memory_equal(seen.config + 8, "abcd", 4);
	virtio_mmio_apply(&m);
	assert_int_equal(seen.config_writes, 1);
}

/* Other widths and places of registers read as zeros and change nothing. */
static void test_odd_access(void **state)
{
	uint8_t b[8];

	start();
	virtio_mmio_read(&m, STATUS, b, 1);
	assert_int_equal(b[0], 0);
	virtio_mmio_read(&m, STATUS + 1, b, 4);
	assert_int_equal(b[0], 0);
	virtio_mmio_read(&m, 0, b, 8);
	assert_int_equal(b[0], 0);
	memset(b, 0, sizeof(b));
	assert_false(virtio_mmio_write(&m, STATUS, b, 1));
	assert_false(virtio_mmio_write(&m, STATUS, b, 8));
	assert_false(virtio_mmio_write(&m, STATUS + 2, b, 4));
	assert_int_equal(rd(STATUS), 15);
}

/* News of the configuration come as an interrupt of its own, to a driver that is there. */
static void test_config_changed(void **state)
{
	uint64_t n;

	virtio_config_changed(&dev);
	assert_int_equal(rd(INTERRUPT_STATUS), 0);
	start();
	virtio_config_changed(&dev);
	assert_int_equal(rd(INTERRUPT_STATUS), 2);
	assert_int_equal(read(m.irq, &n, sizeof(n)), sizeof(n));
	wr(INTERRUPT_ACK, 2);
	assert_int_equal(rd(INTERRUPT_STATUS), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_identity),
		T(test_start_and_reset),
		T(test_features),
		T(test_bad_queue),
		T(test_queue_comes_and_goes),
		T(test_interrupt),
		T(test_kick),
		T(test_config),
		T(test_config_changed),
		T(test_odd_access),
	};
#undef T
	return cmocka_run_group_tests(tests, NULL, NULL);
}
