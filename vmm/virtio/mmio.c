#include "vmm/virtio/mmio.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

/* virtio 1.2, 4.2.2: registers, all of 32 bits. */
enum {
	R_MAGIC = 0x000,
	R_VERSION = 0x004,
	R_DEVICE_ID = 0x008,
	R_VENDOR_ID = 0x00c,
	R_DEVICE_FEATURES = 0x010,
	R_DEVICE_FEATURES_SEL = 0x014,
	R_DRIVER_FEATURES = 0x020,
	R_DRIVER_FEATURES_SEL = 0x024,
	R_QUEUE_SEL = 0x030,
	R_QUEUE_NUM_MAX = 0x034,
	R_QUEUE_NUM = 0x038,
	R_QUEUE_READY = 0x044,
	R_QUEUE_NOTIFY = VIRTIO_MMIO_QUEUE_NOTIFY,
	R_INTERRUPT_STATUS = 0x060,
	R_INTERRUPT_ACK = 0x064,
	R_STATUS = 0x070,
	R_QUEUE_DESC_LOW = 0x080,
	R_QUEUE_DESC_HIGH = 0x084,
	R_QUEUE_DRIVER_LOW = 0x090,
	R_QUEUE_DRIVER_HIGH = 0x094,
	R_QUEUE_DEVICE_LOW = 0x0a0,
	R_QUEUE_DEVICE_HIGH = 0x0a4,
	R_SHM_LEN_LOW = 0x0b0,
	R_SHM_BASE_HIGH = 0x0bc,
	R_CONFIG_GENERATION = 0x0fc,
	R_CONFIG = 0x100,
};

#define MAGIC 0x74726976u     /* "virt" */
#define VENDOR_ID 0x4b535548u /* "HUSK" */

/* 2.1: device status. */
enum {
	S_ACKNOWLEDGE = 1,
	S_DRIVER = 2,
	S_DRIVER_OK = 4,
	S_FEATURES_OK = 8,
	S_NEEDS_RESET = 64,
	S_FAILED = 128,
};

enum { IRQ_VRING = 1, IRQ_CONFIG = 2 };

static void raise_irq(struct virtio_mmio *m, unsigned cause)
{
	uint64_t one = 1;

	atomic_fetch_or(&m->irq_status, cause);
	/* Fails only when 2^64 - 2 interrupts are pending. */
	if (write(m->irq, &one, sizeof(one)) < 0)
		log_debug("virtio-mmio: no interrupt", "device", m->dev->ops->name);
}

static void mmio_interrupt(struct virtio_transport *t, unsigned queue)
{
	raise_irq(container_of(t, struct virtio_mmio, transport), IRQ_VRING);
}

/* A driver that is not there yet reads it when it comes. */
static void mmio_config_changed(struct virtio_transport *t)
{
	struct virtio_mmio *m = container_of(t, struct virtio_mmio, transport);

	if (m->dev->started)
		raise_irq(m, IRQ_CONFIG);
}

static void mmio_on_kick(struct ev_io *io, uint32_t events)
{
	struct virtio_mmio_queue *q = io->arg;
	struct virtio_mmio *m = q->owner;
	uint64_t n;

	if (read(q->kick, &n, sizeof(n)) == (ssize_t)sizeof(n) && m->dev->started)
		m->dev->ops->notify(m->dev, (unsigned)(q - m->queues));
}

int virtio_mmio_init(struct virtio_mmio *m, struct loop *loop, struct virtio_dev *dev,
		     const struct guestmem *mem, struct err *err)
{
	int r;

	*m = (struct virtio_mmio){
		.transport = { mmio_interrupt, mmio_config_changed },
		.dev = dev,
		.mem = mem,
		.irq = -1,
	};
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		m->queues[i].kick = -1;
	r = pthread_mutex_init(&m->lock, NULL);
	if (r != 0)
		return err_errno(err, -r, "virtio-mmio: lock");
	dev->transport = &m->transport;

	m->irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->irq < 0) {
		r = -errno;
		goto fail;
	}
	for (unsigned i = 0; i < dev->ops->n_queues; i++) {
		struct virtio_mmio_queue *q = &m->queues[i];

		q->owner = m;
		q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (q->kick < 0) {
			r = -errno;
			goto fail;
		}
		virtio_hold(dev);
		if (!virtio_watch(dev, i, q->kick))
			r = ev_io_add(loop, &q->kick_io, q->kick, EPOLLIN, mmio_on_kick, q);
		virtio_release(dev);
		if (r < 0)
			goto fail;
	}
	return 0;
fail:
	virtio_mmio_fini(m);
	return err_errno(err, r, "virtio-mmio: device %s", dev->ops->name);
}

static void stop_device(struct virtio_mmio *m)
{
	virtio_stop(m->dev);
	for (unsigned i = 0; i < m->dev->ops->n_queues; i++)
		virtq_disable(&m->dev->queues[i]);
}

void virtio_mmio_fini(struct virtio_mmio *m)
{
	if (!m->dev)
		return;
	virtio_hold(m->dev);
	stop_device(m);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		(void)virtio_watch(m->dev, i, -1);
		ev_io_del(&m->queues[i].kick_io);
		fd_close(&m->queues[i].kick);
	}
	fd_close(&m->irq);
	pthread_mutex_destroy(&m->lock);
	m->dev->transport = NULL;
	virtio_release(m->dev);
	m->dev = NULL;
}

/* ---- registers, under the lock ---- */

/* The queue that QueueSel names, or NULL. */
static struct virtio_mmio_queue *selected(struct virtio_mmio *m)
{
	return m->queue_sel < m->dev->ops->n_queues ? &m->queues[m->queue_sel] : NULL;
}

static uint32_t read_register(struct virtio_mmio *m, uint64_t off)
{
	const struct virtio_mmio_queue *q = selected(m);

	switch (off) {
	case R_MAGIC:
		return MAGIC;
	case R_VERSION:
		return 2;
	case R_DEVICE_ID:
		return m->dev->ops->id;
	case R_VENDOR_ID:
		return VENDOR_ID;
	case R_DEVICE_FEATURES:
		if (m->device_features_sel > 1)
			return 0;
		return (uint32_t)(virtio_features(m->dev) >> (32 * m->device_features_sel));
	case R_QUEUE_NUM_MAX:
		return q ? m->dev->ops->queue_max[m->queue_sel] : 0;
	case R_QUEUE_READY:
		return q && q->ready;
	case R_INTERRUPT_STATUS:
		return atomic_load(&m->irq_status);
	case R_STATUS:
		return m->status;
	case R_CONFIG_GENERATION:
		return 0; /* nothing of it that changes is larger than one access */
	default:
		/* No shared memory regions: 4.2.2, SHMLen of a region that is not there. */
		return off >= R_SHM_LEN_LOW && off <= R_SHM_BASE_HIGH ? UINT32_MAX : 0;
	}
}

/* 3.1.1: what was asked for before is set again; only a reset takes bits away. */
static bool write_status(struct virtio_mmio *m, uint32_t v)
{
	if (v == 0) {
		m->status = 0;
		m->device_features_sel = m->driver_features_sel = m->queue_sel = 0;
		m->driver_features = 0;
		m->config_len = 0;
		for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
			struct virtio_mmio_queue *q = &m->queues[i];

			q->size = 0;
			q->ready = false;
			q->desc = q->avail = q->used = 0;
		}
		atomic_store(&m->irq_status, 0);
		m->want_reset = true;
		return true;
	}
	m->status |= v & (S_ACKNOWLEDGE | S_DRIVER | S_FAILED);
	if ((v & S_FEATURES_OK) && !(m->driver_features & ~virtio_features(m->dev)) &&
	    (m->driver_features & VIRTIO_F_VERSION_1))
		m->status |= S_FEATURES_OK;
	if ((v & S_DRIVER_OK) && (m->status & S_FEATURES_OK) && !(m->status & S_DRIVER_OK)) {
		m->status |= S_DRIVER_OK;
		return true;
	}
	return false;
}

static void write_features(struct virtio_mmio *m, uint32_t v)
{
	unsigned shift = 32 * m->driver_features_sel;

	if (m->status & S_FEATURES_OK || m->driver_features_sel > 1)
		return;
	m->driver_features &= ~(0xffffffffull << shift);
	m->driver_features |= (uint64_t)v << shift;
}

static void set_half(uint64_t *p, bool high, uint32_t v)
{
	*p = high ? (*p & 0xffffffffull) | (uint64_t)v << 32 : (*p & ~0xffffffffull) | v;
}

static bool write_queue(struct virtio_mmio *m, uint64_t off, uint32_t v)
{
	struct virtio_mmio_queue *q = selected(m);

	if (!q || !(m->status & S_FEATURES_OK))
		return false;
	if (off == R_QUEUE_READY) {
		q->ready = v == 1;
		return m->status & S_DRIVER_OK;
	}
	if (q->ready)
		return false; /* 4.2.2.2: not while the queue is ready */
	switch (off) {
	case R_QUEUE_NUM:
		q->size = v <= VIRTQ_SIZE_MAX ? (uint16_t)v : 0; /* 0 is refused when enabled */
		break;
	case R_QUEUE_DESC_LOW:
	case R_QUEUE_DESC_HIGH:
		set_half(&q->desc, off == R_QUEUE_DESC_HIGH, v);
		break;
	case R_QUEUE_DRIVER_LOW:
	case R_QUEUE_DRIVER_HIGH:
		set_half(&q->avail, off == R_QUEUE_DRIVER_HIGH, v);
		break;
	case R_QUEUE_DEVICE_LOW:
	case R_QUEUE_DEVICE_HIGH:
		set_half(&q->used, off == R_QUEUE_DEVICE_HIGH, v);
		break;
	default:
		break;
	}
	return false;
}

static bool write_register(struct virtio_mmio *m, uint64_t off, uint32_t v)
{
	switch (off) {
	case R_DEVICE_FEATURES_SEL:
		m->device_features_sel = v;
		return false;
	case R_DRIVER_FEATURES_SEL:
		m->driver_features_sel = v;
		return false;
	case R_DRIVER_FEATURES:
		write_features(m, v);
		return false;
	case R_QUEUE_SEL:
		m->queue_sel = v;
		return false;
	case R_QUEUE_NOTIFY:
		/* Normally the kernel's ioeventfd takes it and the write is not seen here. */
		if (v < m->dev->ops->n_queues) {
			uint64_t one = 1;

			if (write(m->queues[v].kick, &one, sizeof(one)) < 0)
				log_debug("virtio-mmio: kick lost");
		}
		return false;
	case R_INTERRUPT_ACK:
		atomic_fetch_and(&m->irq_status, ~v);
		return false;
	case R_STATUS:
		return write_status(m, v);
	default:
		return write_queue(m, off, v);
	}
}

/* ---- entry points ---- */

static bool config_range(const struct virtio_mmio *m, uint64_t off, size_t len)
{
	size_t config_len = m->dev->ops->config_len;

	return off >= R_CONFIG && off - R_CONFIG < config_len && len > 0 &&
	       len <= config_len - (off - R_CONFIG);
}

void virtio_mmio_read(struct virtio_mmio *m, uint64_t off, void *buf, size_t len)
{
	uint32_t v;

	memset(buf, 0, len);
	if (off >= R_CONFIG) {
		if (config_range(m, off, len))
			m->dev->ops->config_read(m->dev, off - R_CONFIG, buf, len);
		return;
	}
	if (len != sizeof(uint32_t) || off % sizeof(uint32_t) != 0)
		return;
	pthread_mutex_lock(&m->lock);
	v = read_register(m, off);
	pthread_mutex_unlock(&m->lock);
	memcpy(buf, &v, sizeof(v));
}

bool virtio_mmio_write(struct virtio_mmio *m, uint64_t off, const void *buf, size_t len)
{
	bool apply = false;
	uint32_t v;

	if (off >= R_CONFIG) {
		if (!config_range(m, off, len) || !m->dev->ops->config_write ||
		    len > VIRTIO_MMIO_CONFIG_WRITE_MAX)
			return false;
		pthread_mutex_lock(&m->lock);
		memcpy(m->config_data, buf, len);
		m->config_off = off - R_CONFIG;
		m->config_len = len;
		pthread_mutex_unlock(&m->lock);
		return true;
	}
	if (len != sizeof(v) || off % sizeof(v) != 0)
		return false;
	memcpy(&v, buf, sizeof(v));
	pthread_mutex_lock(&m->lock);
	apply = write_register(m, off, v);
	pthread_mutex_unlock(&m->lock);
	return apply;
}

/* Enables and disables queues as the registers say. False: the driver set one up wrongly. */
static bool apply_queues(struct virtio_mmio *m, const struct virtio_mmio_queue *want,
			 uint64_t features)
{
	for (unsigned i = 0; i < m->dev->ops->n_queues; i++) {
		struct virtq *q = &m->dev->queues[i];
		struct virtq_layout l = {
			.size = want[i].size,
			.desc = want[i].desc,
			.avail = want[i].avail,
			.used = want[i].used,
		};

		if (virtq_enabled(q) && !want[i].ready)
			virtq_disable(q);
		if (virtq_enabled(q) || !want[i].ready)
			continue;
		if (virtq_enable(q, m->mem, &l, m->dev->ops->queue_max[i], features) < 0)
			return false;
	}
	return true;
}

static void apply_registers(struct virtio_mmio *m)
{
	struct virtio_mmio_queue want[VIRTIO_QUEUES_MAX];
	uint8_t data[VIRTIO_MMIO_CONFIG_WRITE_MAX];
	size_t config_off, config_len;
	uint64_t features;
	uint32_t status;
	bool reset;

	pthread_mutex_lock(&m->lock);
	reset = m->want_reset;
	status = m->status;
	features = m->driver_features;
	config_off = m->config_off;
	config_len = m->config_len;
	memcpy(want, m->queues, sizeof(want));
	memcpy(data, m->config_data, sizeof(data));
	m->want_reset = false;
	m->config_len = 0;
	pthread_mutex_unlock(&m->lock);

	if (reset)
		stop_device(m);
	if (config_len > 0)
		m->dev->ops->config_write(m->dev, config_off, data, config_len);
	if (!(status & S_DRIVER_OK) || (status & S_NEEDS_RESET))
		return;
	if (!apply_queues(m, want, features)) {
		log_limited(LOG_DEBUG, "virtio-mmio: queue refused", "device", m->dev->ops->name);
		stop_device(m);
		pthread_mutex_lock(&m->lock);
		if (!m->want_reset)
			m->status |= S_NEEDS_RESET; /* 2.1.2 */
		pthread_mutex_unlock(&m->lock);
		raise_irq(m, IRQ_CONFIG);
		return;
	}
	virtio_start(m->dev, features);
	/* A kick that came before this was not passed on. */
	for (unsigned i = 0; i < m->dev->ops->n_queues; i++)
		if (virtq_enabled(&m->dev->queues[i]))
			m->dev->ops->notify(m->dev, i);
}

void virtio_mmio_apply(struct virtio_mmio *m)
{
	virtio_hold(m->dev);
	apply_registers(m);
	virtio_release(m->dev);
}
