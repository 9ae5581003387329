#include "shim/vm/vmctl_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/fdpass.h"
#include "base/pb.h"
#include "base/util.h"

#define PACKETS_PER_WAKEUP 64
#define FDS_MAX 2		      /* of one request */
#define ANSWER_MEMORY_MAX (256 * KIB) /* unpacked */
#define NO_LIMIT UINT64_MAX

/* A request from its birth to its answer; first in `unsent`, then in `sent`. */
struct request {
	struct request *next;
	uint64_t id;
	uint64_t deadline_ns; /* UINT64_MAX = none, or it is over: the answer is dropped */
	vmctl_done done;
	void *arg;
	int fds[FDS_MAX]; /* duplicates, only while unsent; -1 = none */
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

static void queue_put(struct queue *q, struct request *req)
{
	req->next = NULL;
	*q->tail = req;
	q->tail = &req->next;
}

static struct request *queue_take(struct queue *q)
{
	struct request *req = q->head;

	if (req) {
		q->head = req->next;
		if (!q->head)
			q->tail = &q->head;
	}
	return req;
}

static void close_fds(struct request *req)
{
	for (int i = 0; i < FDS_MAX; i++)
		fd_close(&req->fds[i]);
}

/* The request's one answer. */
static void request_end(struct vmctl *v, struct request *req, int code, const struct err *err,
			const Vmm__Packet *p)
{
	check(v->n_open > 0);
	v->n_open--;
	close_fds(req);
	if (req->done)
		req->done(code, err, p, req->arg);
	free(req);
}

static void end_all(struct vmctl *v, int code, const struct err *err)
{
	struct request *req;

	while ((req = queue_take(&v->sent)) || (req = queue_take(&v->unsent)))
		request_end(v, req, code, err, NULL);
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
	struct err err = { 0 };

	(void)err_set(&err, code, "monitor: %s", why);
	stop(v);
	end_all(v, code, &err);
	v->ops->closed(code, &err, v->arg);
}

/* The one whose time is over first. NULL: none has a limit. */
static struct request *most_urgent(struct vmctl *v)
{
	struct request *lists[] = { v->sent.head, v->unsent.head }, *first = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		for (struct request *req = lists[i]; req; req = req->next) {
			if (req->deadline_ns != UINT64_MAX &&
			    (!first || req->deadline_ns < first->deadline_ns))
				first = req;
		}
	}
	return first;
}

static void vmctl_on_timer(struct ev_timer *t);

static void rearm(struct vmctl *v)
{
	const struct request *req = most_urgent(v);
	uint64_t now = now_mono_ns();

	if (!req) {
		ev_timer_del(&v->timer);
		return;
	}
	/* Out of memory for a timer: the monitor's death is still seen at its socket. */
	(void)!ev_timer_add(v->loop, &v->timer, req->deadline_ns > now ? req->deadline_ns - now : 0,
			    vmctl_on_timer, v);
}

/* One request is over for who asked; it keeps its place in the order of the answers. */
static void vmctl_on_timer(struct ev_timer *t)
{
	struct vmctl *v = t->arg;
	struct request *req = most_urgent(v);
	struct err err = { 0 };
	vmctl_done done;

	if (!req)
		return;
	if (req->deadline_ns <= now_mono_ns()) {
		done = take_ptr(&req->done);
		req->deadline_ns = UINT64_MAX;
		(void)err_set(&err, -ETIMEDOUT, "monitor: no answer in time");
		if (done)
			done(-ETIMEDOUT, &err, NULL, req->arg);
	}
	rearm(v);
}

static int send_packet(int sock, const void *p, size_t n, const int fds[FDS_MAX])
{
	ssize_t sent = fdpass_send(sock, p, n, fds, FDS_MAX, MSG_DONTWAIT);

	return sent < 0 ? (int)sent : 0;
}

static void take_answer(struct vmctl *v, const Vmm__Packet *p)
{
	struct err err = { 0 };
	int code = p->error > 0 ? -p->error : 0;

	if (code < 0 && *p->message)
		(void)err_set(&err, code, "monitor: %s", p->message);
	else if (code < 0)
		(void)err_errno(&err, code, "monitor");
	request_end(v, queue_take(&v->sent), code, &err, p);
}

static void take_packet(struct vmctl *v, const uint8_t *data, size_t n)
{
	cleanup_pb_arena struct pb_arena arena;
	const Vmm__Packet *p;
	ProtobufCMessage *msg;

	pb_arena_init(&arena, ANSWER_MEMORY_MAX);
	if (pb_unpack(&arena, &vmm__packet__descriptor, data, n, &msg) < 0) {
		fail(v, -EBADMSG, "malformed packet");
		return;
	}
	p = (const Vmm__Packet *)msg;
	if (p->id == 0)
		v->ops->event(p, v->arg);
	else if (!v->sent.head || v->sent.head->id != p->id)
		fail(v, -EBADMSG, "answer to no request");
	else
		take_answer(v, p);
}

/* One packet; descriptors that nobody asked for are closed. 1 = got one, 0 = none there. */
static int receive(struct vmctl *v)
{
	static uint8_t buf[VMCTL_PACKET_MAX]; /* touched as far as packets reach */
	ssize_t n = fdpass_receive(v->fd, buf, sizeof(buf), NULL, 0, NULL, MSG_DONTWAIT);

	if (n == -EAGAIN)
		return 0;
	if (n == -EMSGSIZE) {
		fail(v, -EMSGSIZE, "oversized packet");
		return 0;
	}
	if (n <= 0) {
		fail(v, n < 0 ? (int)n : -ECONNRESET, "the control connection ended");
		return 0;
	}
	take_packet(v, buf, (size_t)n);
	return 1;
}

static void flush(struct vmctl *v)
{
	struct request *req;
	int r;

	while ((req = v->unsent.head)) {
		r = send_packet(v->fd, req->bytes, req->len, req->fds);
		if (r == -EAGAIN)
			return;
		if (r < 0) {
			fail(v, r, strerror(-r));
			return;
		}
		(void)queue_take(&v->unsent);
		close_fds(req);
		queue_put(&v->sent, req);
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

static void vmctl_on_io(struct ev_io *io, uint32_t events)
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
	int r;

	if (!v) {
		fd_close(&fd);
		return err_nomem(err);
	}
	v->loop = l;
	v->fd = fd;
	v->ops = ops;
	v->arg = arg;
	v->next_id = 1;
	queue_init(&v->unsent);
	queue_init(&v->sent);
	r = ev_io_add(l, &v->io, fd, EPOLLIN, vmctl_on_io, v);
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

static void vmctl_on_fail_timer(struct ev_timer *t)
{
	struct vmctl *v = t->arg;

	fail(v, v->code, strerror(-v->code));
}

/* Keeps the request until the socket takes it; the descriptors are the caller's. */
static int keep_unsent(struct vmctl *v, struct request *req, const int fds[FDS_MAX])
{
	for (int i = 0; i < FDS_MAX; i++) {
		if (fds[i] < 0)
			continue;
		req->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		if (req->fds[i] < 0)
			return -errno;
	}
	queue_put(&v->unsent, req);
	(void)!ev_io_set(&v->io, EPOLLIN | EPOLLOUT);
	return 0;
}

/* fd, fd2: -1 = none. */
static int submit2(struct vmctl *v, Vmm__Request *msg, int fd, int fd2, uint64_t timeout_ms,
		   vmctl_done done, void *arg)
{
	const int fds[FDS_MAX] = { fd, fd2 };
	struct request *req;
	int r = -EAGAIN;

	if (v->dead)
		return -ECONNRESET;
	if (v->n_open == VMCTL_REQUESTS_MAX)
		return -ENOBUFS;
	msg->id = v->next_id++;
	req = calloc(1, sizeof(*req) + vmm__request__get_packed_size(msg));
	if (!req)
		return -ENOMEM;
	*req = (struct request){ .id = msg->id,
				 .done = done,
				 .arg = arg,
				 .fds = { -1, -1 },
				 .deadline_ns = timeout_ms == NO_LIMIT
							? UINT64_MAX
							: now_mono_ns() + timeout_ms * NS_PER_MS };
	req->len = vmm__request__pack(msg, req->bytes);
	if (!v->unsent.head)
		r = send_packet(v->fd, req->bytes, req->len, fds);
	if (r == -EAGAIN) {
		r = keep_unsent(v, req, fds);
		if (r < 0) {
			close_fds(req);
			free(req);
			return r;
		}
	} else {
		queue_put(&v->sent, req);
	}
	v->n_open++;
	if (r < 0 && !v->code) {
		/* Answers never come inside this function, so the loop brings the failure. */
		v->code = r;
		(void)!ev_timer_add(v->loop, &v->fail_timer, 0, vmctl_on_fail_timer, v);
	}
	rearm(v);
	return 0;
}

static int submit(struct vmctl *v, Vmm__Request *msg, int fd, uint64_t timeout_ms, vmctl_done done,
		  void *arg)
{
	return submit2(v, msg, fd, -1, timeout_ms, done, arg);
}

int vmctl_boot(struct vmctl *v, const Vmm__Boot *boot, int agent_fd, int console_fd,
	       vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;

	req.request_case = VMM__REQUEST__REQUEST_BOOT;
	req.boot = (Vmm__Boot *)boot;
	return submit2(v, &req, agent_fd, console_fd, VMCTL_BOOT_TIMEOUT_MS, done, arg);
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
	return submit(v, &req, -1, NO_LIMIT, done, arg);
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

int vmctl_attach_tap(struct vmctl *v, int tap, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__AttachTap a = VMM__ATTACH_TAP__INIT;

	req.request_case = VMM__REQUEST__REQUEST_ATTACH_TAP;
	req.attach_tap = &a;
	return submit(v, &req, tap, VMCTL_TIMEOUT_MS, done, arg);
}

int vmctl_kill(struct vmctl *v, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__Kill k = VMM__KILL__INIT;

	req.request_case = VMM__REQUEST__REQUEST_KILL;
	req.kill = &k;
	return submit(v, &req, -1, VMCTL_TIMEOUT_MS, done, arg);
}

int vmctl_ping(struct vmctl *v, uint64_t timeout_ms, vmctl_done done, void *arg)
{
	Vmm__Request req = VMM__REQUEST__INIT;
	Vmm__Info i = VMM__INFO__INIT;

	req.request_case = VMM__REQUEST__REQUEST_INFO;
	req.info = &i;
	return submit(v, &req, -1, timeout_ms, done, arg);
}

int vmctl_info(struct vmctl *v, vmctl_done done, void *arg)
{
	return vmctl_ping(v, VMCTL_TIMEOUT_MS, done, arg);
}
