#include "shim/vm/vmctl_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/pb.h"
#include "base/util.h"

#define PACKETS_PER_WAKEUP 64
#define REPLY_FDS_MAX 4
#define ANSWER_MEMORY_MAX (256 * KIB) /* unpacked */

/* A request from its birth to its answer; first in `unsent`, then in `sent`. */
struct request {
	struct request *next;
	uint64_t id, deadline_ns;
	vmctl_done done;
	void *arg;
	int fd; /* duplicate, only while unsent; -1 = none */
	size_t len;
	uint8_t bytes[];
};

struct queue {
	struct request *head, **tail;
};

struct vmctl {
	struct loop *loop;
	int fd;
	struct ev_io io;
	struct ev_timer timer;
	const struct vmctl_ops *ops;
	void *arg;
	uint64_t next_id;
	struct queue unsent, sent;
	size_t n_open;
	bool dead;
	struct ev_timer fail_timer; /* brings a failure found while sending to the loop */
	struct err err;
	int code;
};

static void queue_init(struct queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_put(struct queue *q, struct request *r)
{
	r->next = NULL;
	*q->tail = r;
	q->tail = &r->next;
}

static struct request *queue_take(struct queue *q)
{
	struct request *r = q->head;

	if (r) {
		q->head = r->next;
		if (!q->head)
			q->tail = &q->head;
	}
	return r;
}

static void request_end(struct vmctl *v, struct request *r, int code, const struct err *err,
			const Vmm__Packet *p)
{
	v->n_open--;
	fd_close(&r->fd);
	if (r->done)
		r->done(code, err, p, r->arg);
	free(r);
}

static void end_all(struct vmctl *v, int code, const struct err *err)
{
	struct request *r;

	while ((r = queue_take(&v->sent)) || (r = queue_take(&v->unsent)))
		request_end(v, r, code, err, NULL);
}

static void stop(struct vmctl *v)
{
	ev_io_del(&v->io);
	ev_timer_del(&v->timer);
	ev_timer_del(&v->fail_timer);
	fd_close(&v->fd);
	v->dead = true;
}

/* From the loop only: tells the owner. */
static void fail(struct vmctl *v, int code, const char *why)
{
	struct err e = { 0 };

	(void)err_set(&e, code, "monitor: %s", why);
	stop(v);
	end_all(v, code, &e);
	v->ops->closed(code, &e, v->arg);
}

static void on_timer(struct ev_timer *t)
{
	struct vmctl *v = t->arg;

	fail(v, -ETIMEDOUT, "no answer to a request in time");
}

/* The oldest request decides; answers come in order. */
static void rearm(struct vmctl *v)
{
	struct request *r = v->sent.head ? v->sent.head : v->unsent.head;
	uint64_t now = now_mono_ns();

	if (!r) {
		ev_timer_del(&v->timer);
		return;
	}
	/* Out of memory for a timer: the monitor's death is still seen at its socket. */
	(void)!ev_timer_add(v->loop, &v->timer, r->deadline_ns > now ? r->deadline_ns - now : 0,
			    on_timer, v);
}

static int send_packet(int sock, const void *p, size_t n, int fd)
{
	struct iovec iov = { .iov_base = (void *)p, .iov_len = n };
	union {
		struct cmsghdr h;
		char bytes[CMSG_SPACE(sizeof(int))];
	} c = { 0 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		m.msg_control = c.bytes;
		m.msg_controllen = sizeof(c.bytes);
		c.h.cmsg_level = SOL_SOCKET;
		c.h.cmsg_type = SCM_RIGHTS;
		c.h.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&c.h), &fd, sizeof(int));
	}
	while (sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static void on_packet(struct vmctl *v, const uint8_t *data, size_t n)
{
	cleanup_pb_arena struct pb_arena arena;
	const Vmm__Packet *p;
	ProtobufCMessage *msg;
	struct request *r;

	pb_arena_init(&arena, ANSWER_MEMORY_MAX);
	if (pb_unpack(&arena, &vmm__packet__descriptor, data, n, &msg) < 0) {
		fail(v, -EBADMSG, "malformed packet");
		return;
	}
	p = (const Vmm__Packet *)msg;
	if (p->id == 0) {
		v->ops->event(p, v->arg);
	} else if (!v->sent.head || v->sent.head->id != p->id) {
		fail(v, -EBADMSG, "answer to no request");
	} else {
		struct err e = { 0 };
		int code = p->error > 0 ? -p->error : 0;

		r = queue_take(&v->sent);
		if (code < 0 && *p->message)
			(void)err_set(&e, code, "monitor: %s", p->message);
		else if (code < 0)
			(void)err_errno(&e, code, "monitor");
		request_end(v, r, code, &e, p);
	}
}

/* One packet; descriptors that nobody asked for are closed. 1 = got one, 0 = none there. */
static int receive(struct vmctl *v)
{
	static uint8_t buf[VMCTL_PACKET_MAX]; /* touched as far as packets reach */
	union {
		struct cmsghdr h;
		char bytes[CMSG_SPACE(REPLY_FDS_MAX * sizeof(int))];
	} c;
	struct iovec iov = { .iov_base = buf, .iov_len = sizeof(buf) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = c.bytes,
			    .msg_controllen = sizeof(c.bytes) };
	ssize_t n = recvmsg(v->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		fail(v, n < 0 ? -errno : -ECONNRESET, "the control connection ended");
		return 0;
	}
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
			fd_close(&fd);
		}
	}
	if (m.msg_flags & MSG_TRUNC) {
		fail(v, -EMSGSIZE, "oversized packet");
		return 0;
	}
	on_packet(v, buf, (size_t)n);
	return 1;
}

static void flush(struct vmctl *v)
{
	struct request *r;
	int rc;

	while ((r = v->unsent.head)) {
		rc = send_packet(v->fd, r->bytes, r->len, r->fd);
		if (rc == -EAGAIN)
			return;
		if (rc < 0) {
			fail(v, rc, strerror(-rc));
			return;
		}
		(void)queue_take(&v->unsent);
		fd_close(&r->fd);
		queue_put(&v->sent, r);
	}
	(void)!ev_io_set(&v->io, EPOLLIN);
}

void vmctl_drain(struct vmctl *v)
{
	for (int i = 0; i < PACKETS_PER_WAKEUP && !v->dead; i++) {
		if (!receive(v))
			break;
	}
}

static void on_io(struct ev_io *io, uint32_t events)
{
	struct vmctl *v = io->arg;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		vmctl_drain(v);
	if (!v->dead && (events & EPOLLOUT))
		flush(v);
	if (!v->dead)
		rearm(v);
}

int vmctl_new(struct loop *l, int fd, const struct vmctl_ops *ops, void *arg, struct vmctl **ret,
	      struct err *err)
{
	struct vmctl *v = calloc(1, sizeof(*v));
	int r = -ENOMEM;

	if (!v) {
		fd_close(&fd);
		return err_errno(err, r, "monitor client");
	}
	v->loop = l;
	v->fd = fd;
	v->ops = ops;
	v->arg = arg;
	v->next_id = 1;
	queue_init(&v->unsent);
	queue_init(&v->sent);
	r = ev_io_add(l, &v->io, fd, EPOLLIN, on_io, v);
	if (r < 0) {
		fd_close(&v->fd);
		free(v);
		return err_errno(err, r, "monitor client");
	}
	*ret = v;
	return 0;
}

void vmctl_free(struct vmctl *v)
{
	if (!v)
		return;
	stop(v);
	end_all(v, -ECANCELED, NULL);
	free(v);
}

static void on_fail_timer(struct ev_timer *t)
{
	struct vmctl *v = t->arg;

	fail(v, v->code, strerror(-v->code));
}

static int submit(struct vmctl *v, Vmm__Request *req, int fd, uint64_t timeout_ms, vmctl_done done,
		  void *arg)
{
	struct request *r;
	int rc = -EAGAIN;

	if (v->dead)
		return -ECONNRESET;
	if (v->n_open == VMCTL_REQUESTS_MAX)
		return -ENOBUFS;
	req->id = v->next_id++;
	r = calloc(1, sizeof(*r) + vmm__request__get_packed_size(req));
	if (!r)
		return -ENOMEM;
	*r = (struct request){ .id = req->id,
			       .done = done,
			       .arg = arg,
			       .fd = -1,
			       .deadline_ns = now_mono_ns() + timeout_ms * NS_PER_MS };
	r->len = vmm__request__pack(req, r->bytes);
	if (!v->unsent.head)
		rc = send_packet(v->fd, r->bytes, r->len, fd);
	if (rc == -EAGAIN) {
		if (fd >= 0)
			r->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (fd >= 0 && r->fd < 0) {
			rc = -errno;
			free(r);
			return rc;
		}
		queue_put(&v->unsent, r);
		(void)!ev_io_set(&v->io, EPOLLIN | EPOLLOUT);
	} else {
		queue_put(&v->sent, r);
	}
	v->n_open++;
	if (rc < 0 && rc != -EAGAIN && !v->code) {
		/* Answers never come inside this function, so the loop brings the failure. */
		v->code = rc;
		(void)!ev_timer_add(v->loop, &v->fail_timer, 0, on_fail_timer, v);
	}
	rearm(v);
	return 0;
}

int vmctl_boot(struct vmctl *v, const Vmm__Boot *boot, int agent_fd, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;

	req.request_case = VMM__REQUEST__REQUEST_BOOT;
	req.boot = (Vmm__Boot *)boot;
	return submit(v, &req, agent_fd, VMCTL_BOOT_TIMEOUT_MS, done, arg);
}

int vmctl_map(struct vmctl *v, uint64_t first, uint64_t sectors, bool readonly, int fd,
	      vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__MapWindow m = VMM__MAP_WINDOW__INIT;

	m.first_sector = first;
	m.sectors = sectors;
	m.readonly = readonly;
	req.request_case = VMM__REQUEST__REQUEST_MAP_WINDOW;
	req.map_window = &m;
	return submit(v, &req, fd, VMCTL_TIMEOUT_MS, done, arg);
}

int vmctl_unmap(struct vmctl *v, uint64_t first, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__UnmapWindow u = VMM__UNMAP_WINDOW__INIT;

	u.first_sector = first;
	req.request_case = VMM__REQUEST__REQUEST_UNMAP_WINDOW;
	req.unmap_window = &u;
	return submit(v, &req, -1, VMCTL_TIMEOUT_MS, done, arg);
}

int vmctl_connect(struct vmctl *v, uint32_t port, int fd, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__ConnectVsock c = VMM__CONNECT_VSOCK__INIT;

	c.port = port;
	req.request_case = VMM__REQUEST__REQUEST_CONNECT_VSOCK;
	req.connect_vsock = &c;
	return submit(v, &req, fd, VMCTL_TIMEOUT_MS, done, arg);
}

int vmctl_kill(struct vmctl *v, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__Kill k = VMM__KILL__INIT;

	req.request_case = VMM__REQUEST__REQUEST_KILL;
	req.kill = &k;
	return submit(v, &req, -1, VMCTL_TIMEOUT_MS, done, arg);
}

int vmctl_info(struct vmctl *v, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__Info i = VMM__INFO__INIT;

	req.request_case = VMM__REQUEST__REQUEST_INFO;
	req.info = &i;
	return submit(v, &req, -1, VMCTL_TIMEOUT_MS, done, arg);
}
