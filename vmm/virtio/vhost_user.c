#include "vmm/virtio/vhost_user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/log.h"
#include "base/util.h"

/* Numbers of QEMU's docs/interop/vhost-user.rst. */
enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	RESET_OWNER = 4,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	GET_CONFIG = 24,
	SET_CONFIG = 25,
	REQUEST_COUNT,
};
#define FLAG_VERSION 1u
#define FLAG_VERSION_MASK 3u
#define FLAG_REPLY 4u
#define FLAG_NEED_REPLY 8u
#define F_PROTOCOL_FEATURES (1ull << 30)
#define PROTOCOL_F_REPLY_ACK (1ull << 3)
#define PROTOCOL_F_CONFIG (1ull << 9)
#define VRING_INDEX_MASK 0xffu
#define VRING_NO_FD 0x100u
#define MESSAGES_PER_ROUND 64
#define PAGE 4096u

struct vring_state {
	uint32_t index, num;
};
struct vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};
struct mem_region {
	uint64_t gpa, size, user, offset;
};
struct mem_table {
	uint32_t n, padding;
	struct mem_region regions[GUESTMEM_REGIONS_MAX];
};
struct config_message {
	uint32_t offset, size, flags;
	uint8_t data[VHOST_USER_CONFIG_MAX];
};
_Static_assert(sizeof(struct config_message) <= VHOST_USER_PAYLOAD_MAX, "payload");
_Static_assert(sizeof(struct mem_table) <= VHOST_USER_PAYLOAD_MAX, "payload");

/* 0 = done, 1 = done and the payload holds the answer, -errno = the peer broke a rule. */
typedef int (*handler)(struct vhost_user *v);

/* ---- rings ---- */

static unsigned index_of(const struct vhost_user_ring *r)
{
	return (unsigned)(r - r->owner->rings);
}

static void vhost_user_on_kick(struct ev_io *io, uint32_t events)
{
	struct vhost_user_ring *r = io->arg;
	struct virtio_dev *d = r->owner->dev;
	uint64_t n;

	if (read(r->kick, &n, sizeof(n)) != (ssize_t)sizeof(n)) {
		if (errno != EAGAIN && errno != EINTR)
			ev_io_del(&r->kick_io);
		return;
	}
	d->ops->notify(d, index_of(r));
}

static void vhost_user_interrupt(struct virtio_transport *t, unsigned queue)
{
	struct vhost_user *v = container_of(t, struct vhost_user, transport);
	uint64_t one = 1;
	int fd = v->rings[queue].call;

	/* Non-blocking; the counter is full only if QEMU has not looked for 2^64 - 2 of them. */
	if (fd >= 0 && write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_debug("vhost-user: interrupt failed", "device", v->dev->ops->name);
}

static void vhost_user_config_changed(struct virtio_transport *t)
{
	struct vhost_user *v = container_of(t, struct vhost_user, transport);

	if (v->config_changed)
		v->config_changed(v->config_arg);
}

static struct virtq *queue_of(struct vhost_user_ring *r)
{
	return &r->owner->dev->queues[index_of(r)];
}

static void unwatch(struct vhost_user_ring *r)
{
	(void)virtio_watch(r->owner->dev, index_of(r), -1);
	ev_io_del(&r->kick_io);
}

static int watch(struct vhost_user_ring *r)
{
	if (r->kick < 0 || virtio_watch(r->owner->dev, index_of(r), r->kick))
		return 0;
	return ev_io_add(r->owner->loop, &r->kick_io, r->kick, EPOLLIN, vhost_user_on_kick, r);
}

static void ring_stop(struct vhost_user_ring *r)
{
	struct virtq *q = queue_of(r);

	unwatch(r);
	if (virtq_enabled(q))
		r->base = q->next_avail;
	virtq_disable(q);
}

static void stop_device_if_idle(struct vhost_user *v)
{
	for (unsigned i = 0; i < v->dev->ops->n_queues; i++) {
		if (virtq_enabled(&v->dev->queues[i]))
			return;
	}
	virtio_stop(v->dev);
}

/* Enables the ring when all that it needs has come. */
static int ring_try_start(struct vhost_user_ring *r)
{
	struct vhost_user *v = r->owner;
	struct virtq *q = queue_of(r);
	/* Without the protocol features a ring is enabled by its kick descriptor. */
	bool enabled = r->enabled || !(v->features & F_PROTOCOL_FEATURES);
	struct virtq_layout l = { r->num, r->desc, r->avail, r->used, r->base };
	int e;

	if (virtq_enabled(q) || !enabled || !r->have_kick || !r->have_addr || r->num == 0)
		return 0;
	e = virtq_enable(q, &v->mem, &l, VIRTQ_SIZE_MAX, v->features);
	if (e < 0)
		return e;
	q->in_flight = r->in_flight;
	r->in_flight = 0;
	e = watch(r);
	if (e < 0) {
		virtq_disable(q);
		return e;
	}
	virtio_start(v->dev, v->features);
	v->dev->ops->notify(v->dev, index_of(r)); /* what was there before the kick came to us */
	return 0;
}

static struct vhost_user_ring *ring_at(struct vhost_user *v, uint64_t index)
{
	return index < v->dev->ops->n_queues ? &v->rings[index] : NULL;
}

/* ---- messages ---- */

static void payload_get(const struct vhost_user *v, void *out, size_t n)
{
	memcpy(out, v->payload, n);
}

static int answer(struct vhost_user *v, const void *data, size_t n)
{
	memcpy(v->payload, data, n);
	v->header.size = (uint32_t)n;
	return 1;
}

static int answer_u64(struct vhost_user *v, uint64_t value)
{
	return answer(v, &value, sizeof(value));
}

static uint64_t payload_u64(const struct vhost_user *v)
{
	uint64_t value;

	payload_get(v, &value, sizeof(value));
	return value;
}

static int vhost_user_get_features(struct vhost_user *v)
{
	return answer_u64(v, virtio_features(v->dev) | F_PROTOCOL_FEATURES);
}

static int vhost_user_set_features(struct vhost_user *v)
{
	uint64_t f = payload_u64(v);

	if (f & ~(virtio_features(v->dev) | F_PROTOCOL_FEATURES))
		return -EINVAL;
	v->features = f;
	return 0;
}

static int vhost_user_ignore(struct vhost_user *v)
{
	return 0;
}

/* Maps one region; the descriptor is not needed any more then. */
static int map_region(struct guestmem *mem, const struct mem_region *g, int fd)
{
	struct guest_region r = {
		.gpa = g->gpa, .size = g->size, .map_size = g->size, .user = g->user
	};
	int seals = fcntl(fd, F_GET_SEALS), e;
	struct stat st;

	/* A file that shrinks would turn our accesses into SIGBUS. QEMU seals its memfds. */
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0)
		return -EINVAL;
	if (g->size == 0 || g->offset % PAGE != 0 || g->gpa % PAGE != 0 ||
	    g->offset > (uint64_t)st.st_size || g->size > (uint64_t)st.st_size - g->offset)
		return -EINVAL;
	r.host = mmap(NULL, g->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		      (off_t)g->offset);
	if (r.host == MAP_FAILED)
		return -errno;
	e = guestmem_add(mem, &r);
	if (e < 0)
		munmap(r.host, r.map_size);
	return e;
}

/* It may come while the rings run: they let go of the old table first. Chains that a device keeps
 * are known to it by their heads alone. */
static int vhost_user_set_mem_table(struct vhost_user *v)
{
	struct mem_table t = { 0 };
	bool ran[VIRTIO_QUEUES_MAX] = { false };
	int r = 0;

	payload_get(v, &t, v->header.size);
	if (t.n == 0 || t.n > GUESTMEM_REGIONS_MAX || t.n != v->n_fds ||
	    v->header.size != offsetof(struct mem_table, regions) + t.n * sizeof(t.regions[0]))
		return -EINVAL;
	for (unsigned i = 0; i < v->dev->ops->n_queues; i++) {
		ran[i] = virtq_enabled(&v->dev->queues[i]);
		if (!ran[i])
			continue;
		v->rings[i].in_flight = v->dev->queues[i].in_flight;
		ring_stop(&v->rings[i]);
	}
	guestmem_fini(&v->mem);
	for (unsigned i = 0; r == 0 && i < t.n; i++)
		r = map_region(&v->mem, &t.regions[i], v->fds[i]);
	for (unsigned i = 0; r == 0 && i < v->dev->ops->n_queues; i++)
		if (ran[i])
			r = ring_try_start(&v->rings[i]);
	return r;
}

static int vhost_user_set_vring_num(struct vhost_user *v)
{
	struct vring_state s;
	struct vhost_user_ring *r;

	payload_get(v, &s, sizeof(s));
	r = ring_at(v, s.index);
	/* QEMU's virtio-mmio offers the driver 1024, whatever the device says. */
	if (!r || virtq_enabled(queue_of(r)) || s.num > VIRTQ_SIZE_MAX)
		return -EINVAL;
	r->num = (uint16_t)s.num;
	return 0;
}

static int vhost_user_set_vring_addr(struct vhost_user *v)
{
	struct vhost_user_ring *r;
	struct vring_addr a;
	int e;

	payload_get(v, &a, sizeof(a));
	r = ring_at(v, a.index);
	if (!r || virtq_enabled(queue_of(r)))
		return -EINVAL;
	/* Whether the whole ring is in guest memory is checked when it is enabled. */
	e = guestmem_user_to_gpa(&v->mem, a.desc, 1, &r->desc);
	if (e == 0)
		e = guestmem_user_to_gpa(&v->mem, a.avail, 1, &r->avail);
	if (e == 0)
		e = guestmem_user_to_gpa(&v->mem, a.used, 1, &r->used);
	r->have_addr = e == 0;
	return e;
}

static int vhost_user_set_vring_base(struct vhost_user *v)
{
	struct vring_state s;
	struct vhost_user_ring *r;

	payload_get(v, &s, sizeof(s));
	r = ring_at(v, s.index);
	if (!r || virtq_enabled(queue_of(r)) || s.num > UINT16_MAX)
		return -EINVAL;
	r->base = (uint16_t)s.num;
	return 0;
}

static int vhost_user_get_vring_base(struct vhost_user *v)
{
	struct vhost_user_ring *r;
	struct vring_state s;

	payload_get(v, &s, sizeof(s));
	r = ring_at(v, s.index);
	if (!r)
		return -EINVAL;
	ring_stop(r);
	stop_device_if_idle(v);
	fd_close(&r->kick);
	fd_close(&r->call);
	r->have_kick = false;
	s.num = r->base;
	return answer(v, &s, sizeof(s));
}

/* Anything else would be read or written as if it were one: a pipe whose writer is gone is readable
 * without end, a file of the host is not QEMU's to have us write to. The kernel has no call that
 * tells, so the name of its inode has to. */
static int check_eventfd(int fd)
{
	static const char name[] = "anon_inode:[eventfd]";
	char path[40], target[sizeof(name)];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target));
	if (n != sizeof(name) - 1 || memcmp(target, name, sizeof(name) - 1) != 0)
		return -EINVAL;
	return fd_set_nonblock(fd, true);
}

/* The one descriptor of a kick, call or err message; -1 when it says there is none. */
static int vring_fd(struct vhost_user *v, struct vhost_user_ring **ret_ring, int *ret_fd)
{
	uint64_t u = payload_u64(v);
	struct vhost_user_ring *r = ring_at(v, u & VRING_INDEX_MASK);

	if (!r || v->n_fds != (u & VRING_NO_FD ? 0u : 1u))
		return -EINVAL;
	if (v->n_fds == 1 && check_eventfd(v->fds[0]) < 0)
		return -EINVAL;
	*ret_ring = r;
	*ret_fd = -1;
	if (v->n_fds == 1) {
		*ret_fd = v->fds[0];
		v->n_fds = 0;
	}
	return 0;
}

static int vhost_user_set_vring_kick(struct vhost_user *v)
{
	struct vhost_user_ring *r;
	int fd, e = vring_fd(v, &r, &fd);

	if (e < 0)
		return e;
	unwatch(r);
	fd_close(&r->kick);
	r->kick = fd;
	r->have_kick = true;
	return virtq_enabled(queue_of(r)) ? watch(r) : ring_try_start(r);
}

static int vhost_user_set_vring_call(struct vhost_user *v)
{
	struct vhost_user_ring *r;
	int fd, e = vring_fd(v, &r, &fd);

	if (e < 0)
		return e;
	fd_close(&r->call);
	r->call = fd;
	return 0;
}

static int vhost_user_set_vring_err(struct vhost_user *v)
{
	struct vhost_user_ring *r;
	int fd, e = vring_fd(v, &r, &fd);

	if (e == 0)
		fd_close(&fd); /* not used */
	return e;
}

static uint64_t protocol_features(const struct vhost_user *v)
{
	return PROTOCOL_F_REPLY_ACK | (v->own_config ? PROTOCOL_F_CONFIG : 0);
}

static int vhost_user_get_protocol_features(struct vhost_user *v)
{
	return answer_u64(v, protocol_features(v));
}

static int vhost_user_set_protocol_features(struct vhost_user *v)
{
	uint64_t f = payload_u64(v);

	if (f & ~protocol_features(v))
		return -EINVAL;
	v->protocol_features = f;
	return 0;
}

static int vhost_user_get_queue_num(struct vhost_user *v)
{
	return answer_u64(v, v->dev->ops->n_queues);
}

static int vhost_user_set_vring_enable(struct vhost_user *v)
{
	struct vhost_user_ring *r;
	struct vring_state s;

	payload_get(v, &s, sizeof(s));
	r = ring_at(v, s.index);
	if (!r || s.num > 1)
		return -EINVAL;
	r->enabled = s.num;
	if (r->enabled)
		return ring_try_start(r);
	ring_stop(r);
	stop_device_if_idle(v);
	return 0;
}

static int check_config(const struct vhost_user *v, struct config_message *c)
{
	memset(c, 0, sizeof(*c));
	payload_get(v, c, v->header.size);
	if (c->size == 0 || c->size > VHOST_USER_CONFIG_MAX ||
	    v->header.size != offsetof(struct config_message, data) + c->size)
		return -EINVAL;
	return 0;
}

static int vhost_user_get_config(struct vhost_user *v)
{
	struct config_message c;
	const struct virtio_dev_ops *ops = v->dev->ops;
	int r = check_config(v, &c);

	if (r < 0)
		return r;
	memset(c.data, 0, sizeof(c.data)); /* past the device's end: zeros */
	if (c.offset < ops->config_len)
		ops->config_read(v->dev, c.offset, c.data,
				 MIN_OF(c.size, ops->config_len - c.offset));
	return answer(v, &c, v->header.size);
}

static int vhost_user_set_config(struct vhost_user *v)
{
	struct config_message c;
	const struct virtio_dev_ops *ops = v->dev->ops;
	int r = check_config(v, &c);

	if (r < 0)
		return r;
	if (ops->config_write && c.offset < ops->config_len && c.size <= ops->config_len - c.offset)
		ops->config_write(v->dev, c.offset, c.data, c.size);
	return 0;
}

#define MSG(n, lo, hi, fds)                                                                        \
	{                                                                                          \
		n, lo, hi, fds                                                                     \
	}
static const struct {
	handler fn;
	uint16_t size_min, size_max; /* of the payload */
	uint8_t fds_max;
} messages[REQUEST_COUNT] = {
	[GET_FEATURES] = MSG(vhost_user_get_features, 0, 0, 0),
	[SET_FEATURES] = MSG(vhost_user_set_features, 8, 8, 0),
	[SET_OWNER] = MSG(vhost_user_ignore, 0, 0, 0),
	[RESET_OWNER] = MSG(vhost_user_ignore, 0, 0, 0),
	[SET_MEM_TABLE] =
		MSG(vhost_user_set_mem_table, 40, sizeof(struct mem_table), GUESTMEM_REGIONS_MAX),
	[SET_VRING_NUM] = MSG(vhost_user_set_vring_num, 8, 8, 0),
	[SET_VRING_ADDR] = MSG(vhost_user_set_vring_addr, sizeof(struct vring_addr),
			       sizeof(struct vring_addr), 0),
	[SET_VRING_BASE] = MSG(vhost_user_set_vring_base, 8, 8, 0),
	[GET_VRING_BASE] = MSG(vhost_user_get_vring_base, 8, 8, 0),
	[SET_VRING_KICK] = MSG(vhost_user_set_vring_kick, 8, 8, 1),
	[SET_VRING_CALL] = MSG(vhost_user_set_vring_call, 8, 8, 1),
	[SET_VRING_ERR] = MSG(vhost_user_set_vring_err, 8, 8, 1),
	[GET_PROTOCOL_FEATURES] = MSG(vhost_user_get_protocol_features, 0, 0, 0),
	[SET_PROTOCOL_FEATURES] = MSG(vhost_user_set_protocol_features, 8, 8, 0),
	[GET_QUEUE_NUM] = MSG(vhost_user_get_queue_num, 0, 0, 0),
	[SET_VRING_ENABLE] = MSG(vhost_user_set_vring_enable, 8, 8, 0),
	[GET_CONFIG] = MSG(vhost_user_get_config, 13, sizeof(struct config_message), 0),
	[SET_CONFIG] = MSG(vhost_user_set_config, 13, sizeof(struct config_message), 0),
};

/* ---- the connection ---- */

static void drop_fds(struct vhost_user *v)
{
	for (size_t i = 0; i < v->n_fds; i++)
		fd_close(&v->fds[i]);
	v->n_fds = 0;
}

static void disconnect(struct vhost_user *v)
{
	ev_io_del(&v->io);
	fd_close(&v->fd);
	drop_fds(v);
	virtio_hold(v->dev);
	for (unsigned i = 0; i < v->dev->ops->n_queues; i++)
		unwatch(&v->rings[i]);
	virtio_stop(v->dev);
	for (unsigned i = 0; i < v->dev->ops->n_queues; i++) {
		virtq_disable(&v->dev->queues[i]);
		fd_close(&v->rings[i].kick);
		fd_close(&v->rings[i].call);
	}
	guestmem_fini(&v->mem);
	virtio_release(v->dev);
}

static int send_answer(struct vhost_user *v)
{
	struct iovec iov[2] = {
		{ .iov_base = &v->header, .iov_len = sizeof(v->header) },
		{ .iov_base = v->payload, .iov_len = v->header.size },
	};
	ssize_t n;

	v->header.flags = FLAG_VERSION | FLAG_REPLY;
	/* QEMU waits for it, so the socket's buffer is empty. */
	n = fdpass_sendv(v->fd, iov, 2, NULL, 0, MSG_DONTWAIT);
	return n == (ssize_t)(sizeof(v->header) + v->header.size) ? 0 : -EPIPE;
}

static int check_header(const struct vhost_user *v)
{
	const struct vhost_user_header *h = &v->header;

	if ((h->flags & FLAG_VERSION_MASK) != FLAG_VERSION || (h->flags & FLAG_REPLY))
		return -EPROTO;
	if (h->request >= REQUEST_COUNT || !messages[h->request].fn)
		return -ENOSYS;
	if (h->size < messages[h->request].size_min || h->size > messages[h->request].size_max)
		return -EMSGSIZE;
	return 0;
}

/* A whole message is here. */
static int handle(struct vhost_user *v)
{
	uint32_t flags = v->header.flags;
	int r = -EINVAL;

	if (v->n_fds <= messages[v->header.request].fds_max) {
		virtio_hold(v->dev);
		r = messages[v->header.request].fn(v);
		virtio_release(v->dev);
	}
	drop_fds(v);
	if (r < 0)
		return r;
	if (r == 0 && (flags & FLAG_NEED_REPLY) && (v->protocol_features & PROTOCOL_F_REPLY_ACK))
		r = answer_u64(v, 0);
	return r == 1 ? send_answer(v) : 0;
}

/* Reads towards the end of the header or of the payload. 1 = got some, 0 = nothing now. */
static int receive(struct vhost_user *v)
{
	bool in_header = v->have < sizeof(v->header);
	size_t off = in_header ? v->have : v->have - sizeof(v->header);
	uint8_t *at = in_header ? (uint8_t *)&v->header + off : v->payload + off;
	size_t want = (in_header ? sizeof(v->header) : v->header.size) - off;
	ssize_t n = fdpass_receive(v->fd, at, want, v->fds, VHOST_USER_FDS_MAX, &v->n_fds,
				   MSG_DONTWAIT);

	if (n == -EAGAIN)
		return 0;
	if (n <= 0)
		return n < 0 ? (int)n : -ECONNRESET;
	v->have += (size_t)n;
	return 1;
}

static int read_messages(struct vhost_user *v)
{
	for (unsigned n = 0; n < MESSAGES_PER_ROUND;) {
		int r = receive(v);

		if (r <= 0)
			return r;
		if (v->have < sizeof(v->header))
			continue;
		if (v->have == sizeof(v->header)) {
			r = check_header(v);
			if (r < 0)
				return r;
		}
		if (v->have < sizeof(v->header) + v->header.size)
			continue;
		v->have = 0;
		n++;
		r = handle(v);
		if (r < 0)
			return r;
	}
	return 0;
}

static void vhost_user_on_message(struct ev_io *io, uint32_t events)
{
	struct vhost_user *v = io->arg;
	struct err err = { 0 };
	uint32_t request;
	int r = read_messages(v);

	if (r == 0)
		return;
	request = v->header.request;
	disconnect(v);
	if (r == -ECONNRESET || r == -EPIPE)
		return; /* QEMU is gone: its exit status tells more */
	err_errno(&err, r, "vhost-user %s: request %u", v->dev->ops->name, request);
	v->failed(v->arg, err_text(&err));
}

int vhost_user_init(struct vhost_user *v, struct loop *loop, struct virtio_dev *dev, int fd,
		    void (*failed)(void *arg, const char *why), void *arg, struct err *err)
{
	int r;

	memset(v, 0, sizeof(*v));
	v->transport = (struct virtio_transport){ vhost_user_interrupt, vhost_user_config_changed };
	v->own_config = true;
	v->dev = dev;
	v->loop = loop;
	v->fd = fd;
	v->failed = failed;
	v->arg = arg;
	guestmem_init(&v->mem);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		v->rings[i].owner = v;
		v->rings[i].kick = v->rings[i].call = -1;
	}
	r = ev_io_add(loop, &v->io, fd, EPOLLIN, vhost_user_on_message, v);
	if (r < 0) {
		fd_close(&v->fd);
		return err_errno(err, r, "watch vhost-user socket");
	}
	dev->transport = &v->transport;
	return 0;
}

void vhost_user_fini(struct vhost_user *v)
{
	if (v->dev)
		disconnect(v);
}
