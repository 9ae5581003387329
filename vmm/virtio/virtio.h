/*
 * What a virtio device is to a transport, and a transport to a device.
 *
 * A device is written once: `static const struct virtio_dev_ops` over queues and guest memory. It
 * is served by virtio-mmio (backend kvm) or vhost-user (backend qemu), which knows no device.
 *
 * Threads: all ops run on the main loop, except `features` and `config_read`, which any thread may
 * call: they read only what is constant after creation, or one atomic value. Kicks arrive as
 * eventfds on the loop; a transport whose registers are written by vCPU threads posts start and
 * stop to the loop. A device that waits for disks, or moves many packets, serves its queues on a
 * thread of its own and takes the kicks there (watch); transports change queues and guest memory
 * between virtio_hold and virtio_release.
 *
 * Order: virtq_enable for each queue the driver set up, start, notify..., stop, virtq_disable.
 * Queues may come one by one (vhost-user): start is called with the first, notify for each that is
 * enabled later. A device treats a queue that is not enabled as empty. After stop the device
 * touches no guest memory; it may be started again.
 */
#ifndef HUSK_VMM_VIRTIO_VIRTIO_H
#define HUSK_VMM_VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/virtio/virtq.h"

#define VIRTIO_QUEUES_MAX 3

enum virtio_id {
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_RNG = 4,
	VIRTIO_ID_VSOCK = 19,
};

struct virtio_dev;

struct virtio_dev_ops {
	enum virtio_id id;
	const char *name;
	unsigned n_queues;
	uint16_t queue_max[VIRTIO_QUEUES_MAX]; /* powers of two, at most VIRTQ_SIZE_MAX */
	uint64_t features;		       /* offered, besides those of virtio_features */
	size_t config_len;
	/* [off, off + len) is within config_len. */
	void (*config_read)(const struct virtio_dev *d, size_t off, void *buf, size_t len);
	void (*config_write)(struct virtio_dev *d, size_t off, const void *buf,
			     size_t len);			/* NULL = ignored */
	void (*start)(struct virtio_dev *d, uint64_t features); /* NULL = nothing to do */
	void (*stop)(struct virtio_dev *d);			/* NULL = nothing to do */
	void (*notify)(struct virtio_dev *d, unsigned queue);
	/* NULL = the device works on the main loop. Those of a device that has a thread: */
	void (*hold)(struct virtio_dev *d);
	void (*release)(struct virtio_dev *d);
	/* While held: the device takes the kicks of `queue` from this eventfd itself, -1 = no more.
	 * False: it does not, the transport calls notify. */
	bool (*watch)(struct virtio_dev *d, unsigned queue, int kick);
};

/* Below a device. Embedded in the transport's own struct. */
struct virtio_transport {
	/* Tells the driver that `queue` has used buffers. Never blocks. The device's thread. */
	void (*interrupt)(struct virtio_transport *t, unsigned queue);
	/* Tells the driver that the configuration changed. Main loop. NULL = it cannot. */
	void (*config_changed)(struct virtio_transport *t);
};

/* Embedded in each device. */
struct virtio_dev {
	const struct virtio_dev_ops *ops;
	uint64_t features;		    /* more than ops->features; set by init */
	struct virtio_transport *transport; /* set by the transport before start */
	struct virtq queues[VIRTIO_QUEUES_MAX];
	bool started;
};

/* All that the device offers. */
static inline uint64_t virtio_features(const struct virtio_dev *d)
{
	return d->ops->features | d->features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
	       VIRTIO_F_EVENT_IDX;
}

/* For transports: on return no request is under way and none begins until the release. They nest.
 */
static inline void virtio_hold(struct virtio_dev *d)
{
	if (d->ops->hold)
		d->ops->hold(d);
}
static inline void virtio_release(struct virtio_dev *d)
{
	if (d->ops->release)
		d->ops->release(d);
}
static inline bool virtio_watch(struct virtio_dev *d, unsigned queue, int kick)
{
	return d->ops->watch && d->ops->watch(d, queue, kick);
}

/* For transports, while held. Both are idempotent. */
static inline void virtio_start(struct virtio_dev *d, uint64_t features)
{
	if (!d->started && d->ops->start)
		d->ops->start(d, features);
	d->started = true;
}
static inline void virtio_stop(struct virtio_dev *d)
{
	if (d->started && d->ops->stop)
		d->ops->stop(d);
	d->started = false;
}

/* For devices, on the main loop: what config_read says is not what it was. */
static inline void virtio_config_changed(struct virtio_dev *d)
{
	if (d->transport && d->transport->config_changed)
		d->transport->config_changed(d->transport);
}

/* For devices: shows the driver what was pushed, with at most one interrupt. */
static inline void virtio_flush(struct virtio_dev *d, unsigned queue)
{
	if (virtq_publish(&d->queues[queue]))
		d->transport->interrupt(d->transport, queue);
}

#endif
