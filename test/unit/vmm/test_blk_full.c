/* The disk on a host file system without room: a small tmpfs in a mount namespace of the test. */
#include "test/lib/unit.h"
#include "test/lib/vmm_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/dev/blk.h"

enum { T_IN = 0, T_OUT = 1, T_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_NONE = 0xff };

#define FS_BYTES (128 * MIB)
#define SECTORS (FS_BYTES / 512)
#define OTHER SECTORS /* first sector of a window of another file system */
#define CHUNK (64 * KIB)
#define DATA (DATA_BASE + 64 * KIB)
#define BUSY_MS 300 /* while which nothing must happen */

static struct window_table windows;
static struct virtio_blk blk;
static struct driver d;
static char dir[] = "/tmp/test_blk_full.XXXXXX";
static int disk, filler, other;
static unsigned next;

/* A request has a header and a status of its own. */
static uint64_t header_at(unsigned i)
{
	return DATA_BASE + 64 * i;
}

static uint8_t status_of(unsigned i)
{
	return *(uint8_t *)driver_ptr(&d, header_at(i) + 16);
}

/* Sends one; its number. */
static unsigned post(uint32_t type, uint64_t sector, uint32_t len)
{
	unsigned i = next++ % 64;
	uint64_t at = header_at(i);
	struct driver_buf b[] = { { at, 16, false },
				  { DATA, len, type == T_IN },
				  { at + 16, 1, true } };
	uint32_t h[2] = { type, 0 };

	virtio_hold(&blk.dev);
	memcpy(driver_ptr(&d, at), h, 8);
	memcpy(driver_ptr(&d, at + 8), &sector, 8);
	*(uint8_t *)driver_ptr(&d, at + 16) = S_NONE;
	driver_add(&d.rings[0], b, 3);
	virtio_release(&blk.dev);
	driver_kick(&d, 0);
	return i;
}

/* What it ended with in so much time; S_NONE: it has not. */
static uint8_t ends(unsigned i, unsigned ms)
{
	uint32_t head, len;
	uint8_t s;

	for (;; ms--) {
		virtio_hold(&blk.dev);
		while (driver_used(&d.rings[0], &head, &len))
			;
		s = status_of(i);
		virtio_release(&blk.dev);
		if (s != S_NONE || ms == 0)
			return s;
		(void)usleep(1000);
	}
}

static uint8_t request(uint32_t type, uint64_t sector, uint32_t len)
{
	return ends(post(type, sector, len), 5000);
}

/* The news in so much time. */
static bool told(struct blk_room *ret, int ms)
{
	struct pollfd p = { .fd = blk.room_fd, .events = POLLIN };

	if (poll(&p, 1, ms) != 1)
		return false;
	virtio_blk_room(&blk, ret);
	return true;
}

/* Leaves so many bytes of the file system. */
static void leave(uint64_t bytes)
{
	struct statvfs st;
	uint64_t free;

	assert_int_equal(ftruncate(filler, 0), 0);
	assert_int_equal(fstatvfs(filler, &st), 0);
	free = (uint64_t)st.f_bfree * st.f_frsize;
	assert_true(free > bytes);
	assert_int_equal(fallocate(filler, 0, 0, (off_t)(free - bytes)), 0);
}

static void map(uint64_t first, int fd)
{
	struct err err = { 0 };

	assert_ok(window_map(&windows, first, SECTORS, dup(fd), false, &err), &err);
}

static void unmap(uint64_t first)
{
	struct err err = { 0 };
	int fd = -1;

	assert_ok(window_unmap(&windows, first, &fd, &err), &err);
	virtio_blk_close(&blk, fd);
}

static int file_in_fs(const char *name)
{
	char path[80];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

static int setup(void **state)
{
	struct err err = { 0 };

	next = 0;
	disk = file_in_fs("disk");
	filler = file_in_fs("filler");
	other = memfd_create("other", MFD_CLOEXEC);
	assert_int_equal(ftruncate(disk, FS_BYTES), 0);
	window_init(&windows);
	virtio_blk_init(&blk, &windows);
	driver_init(&d, &blk.dev, 128, virtio_features(&blk.dev) & ~VIRTIO_F_EVENT_IDX);
	assert_ok(virtio_blk_start(&blk, &err), &err);
	map(0, disk);
	map(OTHER, other);
	memset(driver_ptr(&d, DATA), 'x', CHUNK);
	return 0;
}

static int teardown(void **state)
{
	driver_fini(&d);
	virtio_blk_fini(&blk);
	window_fini(&windows);
	fd_close(&disk);
	fd_close(&filler);
	fd_close(&other);
	return 0;
}

/* It is told before the end, once, and not again until there is clearly more room. */
static void test_low(void **state)
{
	const uint64_t least = disk_reserve(FS_BYTES) / 2;
	struct blk_room room;

	leave(least + 800 * KIB);
	assert_int_equal(request(T_OUT, 0, CHUNK), S_OK);
	assert_false(told(&room, BUSY_MS));
	for (unsigned i = 1; i < 18; i++)
		assert_int_equal(request(T_OUT, i * (CHUNK / 512), CHUNK), S_OK);
	assert_true(told(&room, 1000));
	assert_true(room.full && room.least == least && room.free < least);
	assert_true(room.free > least / 2);
	assert_text(room.file, "disk");
	/* Others of the file system take from it, too; this is no news. */
	leave(64 * KIB);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(request(T_OUT, 0, CHUNK), S_OK);
	/* Barely enough is not enough. */
	leave(least + least / 4);
	assert_false(told(&room, BLK_ROOM_MS + 500));
	leave(2 * least);
	assert_true(told(&room, BLK_ROOM_MS + 1000));
	assert_true(!room.full && room.free > least + least / 2);
	/* Nothing looks any more. */
	assert_int_equal(blk.thread.again_ms, -1);
}

/* What the guest believes to be written is not lost: it waits for room, and others go on. */
static void test_kept(void **state)
{
	struct blk_room room;
	uint8_t got = 0;
	unsigned i, k;

	leave(0);
	i = post(T_OUT, 8, 4096);
	assert_true(told(&room, 1000));
	assert_true(room.full);
	assert_int_equal(ends(i, BUSY_MS), S_NONE);
	assert_int_equal(request(T_IN, 0, 4096), S_OK);
	assert_int_equal(request(T_OUT, OTHER, 4096), S_OK);
	/* A second one, in the same place as what is read meanwhile. */
	memset(driver_ptr(&d, DATA), 'y', CHUNK);
	k = post(T_OUT, 64, CHUNK);
	assert_int_equal(ends(k, BLK_RETRY_MS + 500), S_NONE);
	assert_int_equal(status_of(i), S_NONE);
	leave(4 * MIB);
	assert_int_equal(ends(i, BLK_RETRY_MS + 1000), S_OK);
	assert_int_equal(ends(k, 1000), S_OK);
	assert_int_equal(pread(disk, &got, 1, 64 * 512 + CHUNK - 1), 1);
	assert_int_equal(got, 'y');
	/* As soon as nothing waits any more. */
	assert_true(told(&room, 1000));
	assert_false(room.full);
}

/* Where it will not come any more they are told so: a container is removed on a full disk. */
static void test_window_gone(void **state)
{
	struct blk_room room;
	unsigned i, k;

	leave(0);
	i = post(T_OUT, 0, 4096);
	k = post(T_OUT, 4096, 4096);
	assert_int_equal(ends(k, BUSY_MS), S_NONE);
	assert_true(told(&room, 1000) && room.full);
	unmap(0);
	assert_int_equal(ends(i, 500), S_IOERR);
	assert_int_equal(ends(k, 500), S_IOERR);
	/* No file of the file system is left. */
	unmap(OTHER);
	assert_true(told(&room, 1000));
	assert_false(room.full);
	assert_string_equal(room.file, "");
}

static void restart(void)
{
	struct virtq_layout l = driver_layout(0, 128);

	virtio_hold(&blk.dev);
	virtio_stop(&blk.dev);
	virtq_disable(&blk.dev.queues[0]);
	memset(d.ram, 0, RING_STRIDE);
	driver_ring_init(&d, 0, 128);
	assert_int_equal(virtq_enable(&blk.dev.queues[0], &d.mem, &l, 128, 0), 0);
	virtio_start(&blk.dev, 0);
	virtio_release(&blk.dev);
}

/* A reset does not wait for those that are kept, and the next driver gets nothing of them. */
static void test_reset(void **state)
{
	uint64_t begin = now_mono_ns();
	uint32_t head, len;
	unsigned i;

	leave(0);
	for (unsigned n = 0; n < 5; n++)
		i = post(T_OUT, 8 * n, 4096);
	assert_int_equal(ends(i, BUSY_MS), S_NONE);
	restart();
	assert_true(now_mono_ns() - begin < 3 * NS_PER_S);
	assert_int_equal(request(T_IN, 0, 4096), S_OK);
	leave(MIB);
	(void)usleep((BLK_RETRY_MS + 200) * 1000);
	assert_false(driver_used(&d.rings[0], &head, &len));
	assert_int_equal(request(T_OUT, 0, 4096), S_OK);
}

/* One that breaks the rules has more requests under way than there can be: no more are kept. */
static void test_too_many(void **state)
{
	unsigned first, n = 0;
	uint32_t head, len;

	leave(0);
	first = post(T_OUT, 0, 4096);
	assert_int_equal(ends(first, BUSY_MS), S_NONE);
	for (unsigned round = 0; round < 4; round++) {
		virtio_hold(&blk.dev);
		for (unsigned i = 0; i < 100; i++)
			driver_avail(&d.rings[0], 0);
		virtio_release(&blk.dev);
		driver_kick(&d, 0);
		(void)usleep(50000);
	}
	virtio_hold(&blk.dev);
	while (driver_used(&d.rings[0], &head, &len))
		n++;
	assert_int_equal(blk.n_kept, BLK_QUEUE_SIZE);
	virtio_release(&blk.dev);
	assert_int_equal(n, 401 - BLK_QUEUE_SIZE);
	assert_int_equal(status_of(first), S_IOERR);
}

static int group_setup(void **state)
{
	if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(dir) ||
	    mount("tmpfs", dir, "tmpfs", 0, "size=128m") < 0) {
		print_error("a mount namespace: %s\n", strerror(errno));
		return -1;
	}
	return 0;
}

static int group_teardown(void **state)
{
	(void)umount2(dir, MNT_DETACH);
	return rmdir(dir);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_low), T(test_kept), T(test_window_gone), T(test_reset), T(test_too_many),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
