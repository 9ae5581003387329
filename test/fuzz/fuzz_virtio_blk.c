/*
 * A ring and a disk request made of hostile bytes: the input is laid over the ring's descriptors,
 * its available ring, and the memory that descriptors may point to.
 */
#include "test/fuzz/fuzz.h"
#include "test/lib/vmm_driver.h"

#include <sys/mman.h>
#include <unistd.h>

#include "vmm/dev/blk.h"

#define SIZE 16

static struct window_table windows;
static bool ready;

static void setup(void)
{
	window_init(&windows);
	for (unsigned i = 0; i < 3; i++) {
		int fd = memfd_create("w", MFD_CLOEXEC);

		if (ftruncate(fd, 20000) < 0 ||
		    window_map(&windows, 8 + 64 * i, 48, fd, i == 1, NULL) < 0)
			__builtin_trap();
	}
	ready = true;
}

static size_t lay(struct driver *d, uint64_t at, size_t max, const uint8_t *data, size_t size)
{
	size_t n = MIN_OF(max, size);

	memcpy(driver_ptr(d, at), data, n);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_blk blk;
	struct driver d;
	uint64_t features = VIRTIO_F_VERSION_1;
	struct virtq_layout l;
	size_t n;

	if (size < 1)
		return 0;
	if (!ready)
		setup();
	if (data[0] & 1)
		features |= VIRTIO_F_INDIRECT_DESC;
	if (data[0] & 2)
		features |= VIRTIO_F_EVENT_IDX;
	data++;
	size--;
	virtio_blk_init(&blk, &windows);
	driver_init(&d, &blk.dev, SIZE, features);
	l = driver_layout(0, SIZE);
	n = lay(&d, l.desc, 16 * SIZE, data, size);
	data += n;
	size -= n;
	n = lay(&d, l.avail, 6 + 2 * SIZE, data, size);
	lay(&d, DATA_BASE, 8192, data + n, size - n);
	driver_kick(&d, 0);
	driver_fini(&d);
	virtio_blk_fini(&blk);
	return 0;
}
