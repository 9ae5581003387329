/* A ring and requests for random bytes made of hostile bytes: laid over the ring's descriptors, its
 * available ring, and what descriptors may point to. */
#include "test/fuzz/fuzz.h"
#include "test/lib/vmm_driver.h"

#include "vmm/dev/rng.h"

#define SIZE 8

static struct loop *loop;

static size_t lay(struct driver *d, uint64_t at, size_t max, const uint8_t *data, size_t size)
{
	size_t n = MIN_OF(max, size);

	memcpy(driver_ptr(d, at), data, n);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t features = VIRTIO_F_VERSION_1;
	struct virtq_layout l;
	struct virtio_rng rng;
	struct driver d;
	size_t n;

	if (size < 1)
		return 0;
	if (!loop && loop_new(&loop, NULL) < 0)
		__builtin_trap();
	if (data[0] & 1)
		features |= VIRTIO_F_INDIRECT_DESC;
	if (data[0] & 2)
		features |= VIRTIO_F_EVENT_IDX;
	virtio_rng_init(&rng, loop);
	driver_init(&d, &rng.dev, SIZE, features);
	l = driver_layout(0, SIZE);
	data++;
	size--;
	n = lay(&d, l.desc, 16 * SIZE, data, size);
	data += n;
	size -= n;
	n = lay(&d, l.avail, 6 + 2 * SIZE, data, size);
	lay(&d, DATA_BASE, 8192, data + n, size - n);
	driver_kick(&d, 0);
	for (int i = 0; i < 4 && loop_once(loop, 0) > 0; i++)
		;
	driver_fini(&d);
	virtio_rng_fini(&rng);
	return 0;
}
