#include "test/lib/unit.h"
#include "test/lib/vmm_driver.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/dev/blk.h"

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NONE = 0xff };

#define HEADER DATA_BASE
#define STATUS (DATA_BASE + 64)
#define DATA (DATA_BASE + 4096)

static struct window_table windows;
static struct virtio_blk blk;
static struct driver d;

static int setup(void **state)
{
	window_init(&windows);
	virtio_blk_init(&blk, &windows);
	driver_init(&d, &blk.dev, 128, virtio_features(&blk.dev) & ~VIRTIO_F_EVENT_IDX);
	return 0;
}

static int teardown(void **state)
{
	driver_fini(&d);
	virtio_blk_fini(&blk);
	window_fini(&windows);
	return 0;
}

static void header(uint32_t type, uint64_t sector)
{
	uint32_t h[2] = { type, 0 };

	memcpy(driver_ptr(&d, HEADER), h, 8);
	memcpy(driver_ptr(&d, HEADER + 8), &sector, 8);
	*(uint8_t *)driver_ptr(&d, STATUS) = S_NONE;
}

/* One request. Its status; *ret_len the used length. */
static uint8_t request(uint32_t type, uint64_t sector, uint32_t len, bool in, uint32_t *ret_len)
{
	struct driver_buf b[3] = { { HEADER, 16, false }, { DATA, len, in }, { STATUS, 1, true } };
	uint32_t head, used = 0;
	uint16_t want;
	unsigned before;

	header(type, sector);
	if (len == 0)
		b[1] = b[2];
	want = driver_add(&d.rings[0], b, len ? 3 : 2);
	before = d.interrupts[0];
	driver_kick(&d, 0);
	assert_true(driver_used(&d.rings[0], &head, &used));
	assert_int_equal(head, want);
	assert_int_equal(d.interrupts[0], before + 1);
	if (ret_len)
		*ret_len = used;
	return *(uint8_t *)driver_ptr(&d, STATUS);
}

static int window(uint64_t first, uint64_t sectors, char fill, bool ro)
{
	int fd = memfd_create("w", MFD_CLOEXEC);
	char block[512];

	memset(block, fill, sizeof(block));
	for (uint64_t i = 0; i < sectors; i++)
		assert_int_equal(write(fd, block, 512), 512);
	assert_int_equal(window_map(&windows, first, sectors, dup(fd), ro, NULL), 0);
	return fd;
}

static void test_read_write(void **state)
{
	uint32_t len;
	uint8_t *data = driver_ptr(&d, DATA), got;
	int fd = window(8, 8, 'a', false);

	assert_int_equal(request(T_IN, 8, 1024, true, &len), S_OK);
	assert_int_equal(len, 1025);
	assert_int_equal(data[1023], 'a');
	memset(data, 'z', 512);
	assert_int_equal(request(T_OUT, 9, 512, false, &len), S_OK);
	assert_int_equal(pread(fd, &got, 1, 512), 1);
	assert_int_equal(got, 'z');
	assert_int_equal(request(T_IN, 0, 512, true, NULL), S_OK);
	assert_int_equal(data[0], 0);
	assert_int_equal(request(T_OUT, 0, 512, false, NULL), S_IOERR);
	assert_int_equal(request(T_FLUSH, 0, 0, false, NULL), S_OK);
	close(fd);
}

static void test_wrong(void **state)
{
	uint32_t len;
	const struct driver_buf no_status[] = { { HEADER, 16, false } };
	const struct driver_buf no_header[] = { { HEADER, 15, false }, { STATUS, 1, true } };
	uint32_t head;

	assert_int_equal(request(T_IN, 0, 511, true, NULL), S_IOERR);
	assert_int_equal(request(T_IN, VM_DISK_SECTORS, 512, true, NULL), S_IOERR);
	assert_int_equal(request(T_IN, VM_DISK_SECTORS - 1, 1024, true, NULL), S_IOERR);
	assert_int_equal(request(T_IN, UINT64_MAX, 512, true, NULL), S_IOERR);
	assert_int_equal(request(T_OUT, UINT64_MAX, 512, false, NULL), S_IOERR);
	assert_int_equal(request(77, 0, 512, true, &len), S_UNSUPP);
	assert_int_equal(request(T_GET_ID, 0, 20, true, &len), S_OK);
	assert_int_equal(len, 21);
	assert_string_equal((char *)driver_ptr(&d, DATA), "husk");
	assert_int_equal(request(T_GET_ID, 0, 4, true, NULL), S_OK);

	/* No room for a header, or for a status: given back, nothing written. */
	header(T_FLUSH, 0);
	driver_add(&d.rings[0], no_status, 1);
	driver_add(&d.rings[0], no_header, 2);
	driver_kick(&d, 0);
	assert_true(driver_used(&d.rings[0], &head, &len) && len == 0);
	assert_true(driver_used(&d.rings[0], &head, &len) && len == 0);
	assert_int_equal(*(uint8_t *)driver_ptr(&d, STATUS), S_NONE);
}

static void range(unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	uint32_t v[2] = { sectors, flags };

	memcpy(driver_ptr(&d, DATA + 16 * i), &sector, 8);
	memcpy(driver_ptr(&d, DATA + 16 * i + 8), v, 8);
}

static void test_discard(void **state)
{
	uint8_t got = 1;
	int fd = window(0, 64, 'a', false), ro = window(64, 8, 'r', true);

	range(0, 8, 8, 0);
	range(1, 32, 1, 0);
	assert_int_equal(request(T_DISCARD, 0, 32, false, NULL), S_OK);
	assert_int_equal(pread(fd, &got, 1, 32 * 512), 1);
	assert_int_equal(got, 0);
	range(0, 40, 1, 1); /* unmap is for write zeroes */
	assert_int_equal(request(T_DISCARD, 0, 16, false, NULL), S_UNSUPP);
	assert_int_equal(request(T_ZEROES, 0, 16, false, NULL), S_OK);
	assert_int_equal(request(T_ZEROES, 0, 15, false, NULL), S_IOERR);
	assert_int_equal(request(T_ZEROES, 0, 16 * (BLK_RANGES_MAX + 1), false, NULL), S_IOERR);
	assert_int_equal(request(T_ZEROES, 0, 0, false, NULL), S_IOERR);
	range(0, 0, UINT32_MAX, 0);
	assert_int_equal(request(T_ZEROES, 0, 16, false, NULL), S_IOERR);
	range(0, UINT64_MAX - 3, 8, 0);
	assert_int_equal(request(T_DISCARD, 0, 16, false, NULL), S_IOERR);
	range(0, 64, 8, 0);
	assert_int_equal(request(T_DISCARD, 0, 16, false, NULL), S_IOERR);
	assert_int_equal(pread(ro, &got, 1, 0), 1);
	assert_int_equal(got, 'r');
	close(fd);
	close(ro);
}

/* More than one round's worth: one interrupt for each round. */
static void test_batch(void **state)
{
	const struct driver_buf b = { STATUS, 1, true };
	uint32_t head, len, n = 0;

	for (int i = 0; i < 100; i++)
		driver_add(&d.rings[0], &b, 1);
	driver_kick(&d, 0);
	while (driver_used(&d.rings[0], &head, &len))
		n++;
	assert_int_equal(n, 100);
	assert_int_equal(d.interrupts[0], 2);
}

/* What one request may ask for has a maximum, which the driver is told. */
static void test_maximum(void **state)
{
	struct driver_buf b[10] = { { HEADER, 16, false } };
	uint32_t head, used, max, size_max, ranges, sectors;
	int fd = window(0, 8, 'a', false);

	/* As often as it takes the same memory: 9 x 1 MiB. */
	for (unsigned i = 1; i < 9; i++)
		b[i] = (struct driver_buf){ DATA, 1 * MIB, true };
	b[9] = (struct driver_buf){ STATUS, 1, true };
	header(T_IN, 0);
	driver_add(&d.rings[0], b, 10);
	driver_kick(&d, 0);
	assert_true(driver_used(&d.rings[0], &head, &used));
	assert_int_equal(*(uint8_t *)driver_ptr(&d, STATUS), S_OK);
	assert_int_equal(BLK_REQUEST_MAX, 8 * MIB);
	b[1].len += 512;
	header(T_IN, 0);
	driver_add(&d.rings[0], b, 10);
	driver_kick(&d, 0);
	assert_true(driver_used(&d.rings[0], &head, &used));
	assert_int_equal(*(uint8_t *)driver_ptr(&d, STATUS), S_IOERR);
	range(0, 0, BLK_DISCARD_SECTORS_MAX + 1, 0);
	assert_int_equal(request(T_DISCARD, 0, 16, false, NULL), S_IOERR);
	/* All ranges of a request together. */
	blk.dev.ops->config_read(&blk.dev, 8, &size_max, 4);
	blk.dev.ops->config_read(&blk.dev, 12, &max, 4);
	assert_int_equal((uint64_t)size_max * max, BLK_REQUEST_MAX);
	blk.dev.ops->config_read(&blk.dev, 36, &sectors, 4);
	blk.dev.ops->config_read(&blk.dev, 40, &ranges, 4);
	assert_true(ranges && sectors && (uint64_t)sectors * ranges * 512 <= 64 * MIB);
	blk.dev.ops->config_read(&blk.dev, 48, &sectors, 4);
	blk.dev.ops->config_read(&blk.dev, 52, &ranges, 4);
	assert_true(ranges && sectors && (uint64_t)sectors * ranges * 512 <= 64 * MIB);
	assert_true(virtio_features(&blk.dev) & 1u << 1);
	close(fd);
}

/* ---- with its thread ---- */

static bool comes(bool (*what)(void))
{
	for (int i = 0; i < 2000; i++) {
		if (what())
			return true;
		(void)usleep(1000);
	}
	return false;
}

static unsigned seen;

static bool all_seen(void)
{
	uint32_t head, len;

	virtio_hold(&blk.dev); /* the test's driver is not made for two threads */
	while (driver_used(&d.rings[0], &head, &len))
		seen++;
	virtio_release(&blk.dev);
	return seen == 100;
}

static int to_close;

static bool is_closed(void)
{
	return fcntl(to_close, F_GETFD) < 0;
}

/* Requests while windows come and go, kicks by the device's own descriptor, a hold that holds. */
static void test_thread(void **state)
{
	const struct driver_buf b[] = { { HEADER, 16, false },
					{ DATA, 4096, true },
					{ STATUS, 1, true } };
	int kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fd;
	struct err err = { 0 };
	uint64_t one = 1;

	assert_ok(virtio_blk_start(&blk, &err), &err);
	assert_ok(virtio_blk_start(&blk, &err), &err);
	virtio_hold(&blk.dev);
	assert_true(virtio_watch(&blk.dev, 0, kick));
	virtio_release(&blk.dev);
	header(T_IN, 8);
	for (int round = 0; round < 20; round++) {
		fd = window(8, 8, 'a', true);
		virtio_hold(&blk.dev);
		virtio_hold(&blk.dev);
		seen = 0;
		for (int i = 0; i < 100; i++)
			driver_add(&d.rings[0], b, 3);
		virtio_release(&blk.dev);
		assert_int_equal(write(kick, &one, sizeof(one)), sizeof(one));
		(void)usleep(2000);
		assert_false(all_seen());
		assert_int_equal(seen, 0); /* held */
		virtio_release(&blk.dev);
		assert_int_equal(window_unmap(&windows, 8, &to_close, &err), 0);
		virtio_blk_close(&blk, to_close);
		assert_true(comes(all_seen));
		assert_true(comes(is_closed));
		assert_int_equal(*(uint8_t *)driver_ptr(&d, STATUS), S_OK);
		close(fd);
	}
	/* By hand, as a transport does after it has started a queue. */
	seen = 99;
	virtio_hold(&blk.dev);
	driver_add(&d.rings[0], b, 3);
	virtio_release(&blk.dev);
	blk.dev.ops->notify(&blk.dev, 0);
	assert_true(comes(all_seen));
	virtio_hold(&blk.dev);
	assert_true(virtio_watch(&blk.dev, 0, -1));
	close(kick);
	virtio_release(&blk.dev);
}

static void test_config(void **state)
{
	uint64_t capacity;
	uint32_t seg_max;

	assert_true(blk.dev.ops->config_len >= 60);
	blk.dev.ops->config_read(&blk.dev, 0, &capacity, 8);
	blk.dev.ops->config_read(&blk.dev, 12, &seg_max, 4);
	assert_true(capacity == VM_DISK_SECTORS);
	assert_int_equal(seg_max, BLK_SEGS_MAX);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_read_write), T(test_wrong),   T(test_discard), T(test_batch),
		T(test_config),	    T(test_maximum), T(test_thread),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
