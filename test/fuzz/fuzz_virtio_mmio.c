/*
 * A hostile driver at the registers of virtio-mmio, with a device that answers each chain.
 * Input: records of {u16 offset, u8 kind, u32 value}.
 */
#include "test/fuzz/fuzz.h"

#include <string.h>

#include "base/buf.h"
#include "vmm/virtio/mmio.h"

static void config_read(const struct virtio_dev *d, size_t off, void *buf, size_t len)
{
	fuzz_assert(off < d->ops->config_len && len <= d->ops->config_len - off);
	memset(buf, 7, len);
}
static void config_write(struct virtio_dev *d, size_t off, const void *buf, size_t len)
{
	fuzz_assert(off < d->ops->config_len && len <= d->ops->config_len - off);
}
static void start(struct virtio_dev *d, uint64_t features)
{
	fuzz_assert(!d->started && !(features & ~virtio_features(d)));
}
static void notify(struct virtio_dev *d, unsigned queue)
{
	static struct virtq_chain c;

	fuzz_assert(d->started && queue < d->ops->n_queues);
	for (int i = 0; i < 64 && virtq_pop(&d->queues[queue], &c) > 0; i++) {
		size_t n = iov_write(c.iov + c.n_out, c.n_in, 0, "answer", 6);

		virtq_push(&d->queues[queue], c.head, (uint32_t)n);
	}
	virtio_flush(d, queue);
}

static const struct virtio_dev_ops ops = {
	.id = VIRTIO_ID_RNG,
	.name = "fuzz",
	.n_queues = 2,
	.queue_max = { 256, 8 },
	.features = 3,
	.config_len = 10,
	.config_read = config_read,
	.config_write = config_write,
	.start = start,
	.notify = notify,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t ram[0x8000] __attribute__((aligned(4096)));
	struct guest_region r = { .gpa = 0x10000, .size = sizeof(ram), .host = ram };
	struct virtio_dev dev = { .ops = &ops };
	struct virtio_mmio m;
	struct guestmem mem;
	struct loop *loop = NULL;
	struct cur c = cur_of(data, size);

	guestmem_init(&mem);
	memset(ram, 0, sizeof(ram));
	if (guestmem_add(&mem, &r) < 0 || loop_new(&loop, NULL) < 0 ||
	    virtio_mmio_init(&m, loop, &dev, &mem, NULL) < 0)
		return 0;
	while (cur_left(&c) >= 7) {
		uint16_t off = cur_le16(&c);
		uint8_t kind = cur_u8(&c);
		uint32_t v = cur_le32(&c);
		uint8_t buf[8] = { 0 };
		size_t len = (size_t)1 << (kind >> 2 & 3);

		memcpy(buf, &v, sizeof(v));
		switch (kind & 3) {
		case 0:
			virtio_mmio_read(&m, off % VIRTIO_MMIO_SIZE, buf, len);
			break;
		case 1:
		case 2:
			if (virtio_mmio_write(&m, off % VIRTIO_MMIO_SIZE, buf, len))
				virtio_mmio_apply(&m);
			break;
		default: /* the guest's memory */
			memcpy(ram + off % (sizeof(ram) - 4), &v, sizeof(v));
			fuzz_assert(loop_once(loop, 0) >= 0);
		}
	}
	fuzz_assert(loop_once(loop, 0) >= 0);
	virtio_mmio_fini(&m);
	guestmem_fini(&mem);
	loop_free(loop);
	return 0;
}
