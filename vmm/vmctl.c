#include "vmm/vmctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/log.h"
#include "base/util.h"
#include "proto/vmm.pb-c.h"

#define PACKETS_PER_ROUND 16

/* ---- out ---- */

static void watch(struct vmctl *c)
{
	uint32_t events = c->n_queued > 0 ? EPOLLOUT : EPOLLIN;

	if (c->io.loop && c->io.events != events && ev_io_set(&c->io, events) < 0)
		log_debug("control socket: cannot change what is waited for");
}

static void flush(struct vmctl *c)
{
	while (c->n_queued > 0) {
		struct vmctl_packet *p = &c->queue[0];
		ssize_t n = send(c->fd, p->data, p->len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOBUFS))
			break;
		/* Other errors: the client is gone, which reading tells. */
		free(p->data);
		c->n_queued--;
		memmove(&c->queue[0], &c->queue[1], c->n_queued * sizeof(c->queue[0]));
	}
	watch(c);
}

static int put(struct vmctl *c, const Vmm__Packet *p)
{
	size_t len = vmm__packet__get_packed_size(p);
	uint8_t *data;

	if (c->n_queued == VMCTL_QUEUE_MAX || len > VMCTL_PACKET_MAX)
		return -ENOBUFS;
	data = malloc(len > 0 ? len : 1);
	if (!data)
		return -ENOMEM;
	vmm__packet__pack(p, data);
	c->queue[c->n_queued++] = (struct vmctl_packet){ data, len };
	flush(c);
	return 0;
}

static void put_event(struct vmctl *c, const char *name, const Vmm__Packet *p)
{
	int r = put(c, p);

	if (r < 0)
		log_error("event lost", "event", name, "err", strerror(-r));
}

void vmctl_agent_connected(void *arg)
{
	struct vmctl *c = arg;
	Vmm__AgentConnected a = VMM__AGENT_CONNECTED__INIT;
	Vmm__Packet p = VMM__PACKET__INIT;

	a.boot_ns = c->vm->times.boot;
	a.vcpu_start_ns = c->vm->times.vcpu_start;
	a.agent_ready_ns = c->vm->times.agent_ready;
	p.body_case = VMM__PACKET__BODY_AGENT_CONNECTED;
	p.agent_connected = &a;
	put_event(c, "AgentConnected", &p);
}

void vmctl_ended(void *arg, enum end_reason reason, const char *message)
{
	struct vmctl *c = arg;
	Vmm__Ended e = VMM__ENDED__INIT;
	Vmm__Packet p = VMM__PACKET__INIT;

	e.reason = (Vmm__EndReason)reason;
	e.message = (char *)message;
	p.body_case = VMM__PACKET__BODY_ENDED;
	p.ended = &e;
	put_event(c, "Ended", &p);
}

static void send_room(struct vmctl *c)
{
	Vmm__DiskRoom d = VMM__DISK_ROOM__INIT;
	Vmm__Packet p = VMM__PACKET__INIT;

	if (!c->room_due || c->n_queued > 0)
		return;
	c->room_due = false;
	d.full = c->room.full;
	d.free = c->room.free;
	d.least = c->room.least;
	d.file = c->room.file;
	p.body_case = VMM__PACKET__BODY_DISK_ROOM;
	p.disk_room = &d;
	put_event(c, "DiskRoom", &p);
}

/* Only the last one counts: a client that does not read gets one, however often it changes. */
void vmctl_disk_room(void *arg, const struct blk_room *room)
{
	struct vmctl *c = arg;

	c->room = *room;
	c->room_due = true;
	send_room(c);
}

/* ---- requests ---- */

static int vmctl_boot(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds, struct err *err)
{
	int none = -1;
	struct vm_boot b = {
		.vcpus = q->boot->vcpus,
		.memory_mib = q->boot->memory_mib,
		.cmdline = q->boot->cmdline ? q->boot->cmdline : "",
		.agent_fd = &fds[0],
		.console_fd = n_fds > 1 ? &fds[1] : &none,
	};

	return vm_boot(vm, &b, err);
}

static int vmctl_map_window(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds,
			    struct err *err)
{
	const Vmm__MapWindow *w = q->map_window;

	return vm_map_window(vm, w->first_sector, w->sectors, &fds[0], w->readonly, err);
}

static int vmctl_unmap_window(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds,
			      struct err *err)
{
	return vm_unmap_window(vm, q->unmap_window->first_sector, err);
}

static int vmctl_connect_vsock(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds,
			       struct err *err)
{
	return vm_connect_vsock(vm, q->connect_vsock->port, &fds[0], err);
}

static int vmctl_attach_tap(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds,
			    struct err *err)
{
	return vm_attach_tap(vm, &fds[0], err);
}

static int vmctl_detach_tap(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds,
			    struct err *err)
{
	vm_detach_tap(vm);
	return 0;
}

static int vmctl_kill(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds, struct err *err)
{
	vm_kill(vm);
	return 0;
}

static int vmctl_info(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds, struct err *err)
{
	return 0; /* the answer carries it */
}

#define IN(state) (1u << (state))
#define IN_ANY (IN(VM_NEW) | IN(VM_RUNNING) | IN(VM_ENDED))
#define REQ(r) VMM__REQUEST__REQUEST_##r

/* (state, request) -> handler. What is not here is refused. */
static const struct {
	int (*fn)(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds, struct err *err);
	unsigned states;
	uint8_t fds_min, fds_max;
} requests[] = {
	[REQ(BOOT)] = { vmctl_boot, IN(VM_NEW), 1, 2 },
	[REQ(MAP_WINDOW)] = { vmctl_map_window, IN(VM_NEW) | IN(VM_RUNNING), 1, 1 },
	[REQ(UNMAP_WINDOW)] = { vmctl_unmap_window, IN(VM_NEW) | IN(VM_RUNNING), 0, 0 },
	[REQ(CONNECT_VSOCK)] = { vmctl_connect_vsock, IN(VM_RUNNING), 1, 1 },
	[REQ(KILL)] = { vmctl_kill, IN(VM_RUNNING), 0, 0 },
	[REQ(INFO)] = { vmctl_info, IN_ANY, 0, 0 },
	[REQ(ATTACH_TAP)] = { vmctl_attach_tap, IN(VM_NEW) | IN(VM_RUNNING), 1, 1 },
	[REQ(DETACH_TAP)] = { vmctl_detach_tap, IN_ANY, 0, 0 },
};

static int dispatch(struct vm *vm, const Vmm__Request *q, int *fds, size_t n_fds, struct err *err)
{
	unsigned k = q->request_case;

	if (k >= ARRAY_SIZE(requests) || !requests[k].fn)
		return err_set(err, -ENOSYS, "unknown request");
	if (!(requests[k].states & IN(vm->state)))
		return err_set(err, -EPROTO, "not possible: the VM is %s",
			       vm_state_name(vm->state));
	if (n_fds < requests[k].fds_min || n_fds > requests[k].fds_max)
		return err_set(err, -EINVAL, "%zu descriptors, wanted %d to %d", n_fds,
			       requests[k].fds_min, requests[k].fds_max);
	return requests[k].fn(vm, q, fds, n_fds, err);
}

static void fill_info(const struct vm *vm, Vmm__InfoReply *i)
{
	i->backend = (char *)(vm->ops ? vm->ops->name : "");
	i->backend_reason = (char *)vm->reason;
	i->state = (char *)vm_state_name(vm->state);
	i->pid = (uint32_t)getpid();
	i->qemu_pid = (uint32_t)vm_backend_pid(vm);
	i->boot_ns = vm->times.boot;
	i->vcpu_start_ns = vm->times.vcpu_start;
	i->agent_ready_ns = vm->times.agent_ready;
}

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fd_close(&fds[i]);
}

int vmctl_take(struct vmctl *c, const uint8_t *data, size_t len, int *fds, size_t n_fds,
	       struct err *err)
{
	Vmm__Request *q = vmm__request__unpack(NULL, len, data);
	Vmm__InfoReply info = VMM__INFO_REPLY__INIT;
	Vmm__Packet p = VMM__PACKET__INIT;
	struct err why = { 0 };
	int r;

	if (!q) {
		close_all(fds, n_fds);
		return err_set(err, -EBADMSG, "malformed packet of %zu bytes", len);
	}
	p.id = q->id;
	r = dispatch(c->vm, q, fds, n_fds, &why);
	/* Before the answer: who has it knows that nothing of what was refused is held any more (a
	 * tap whose last descriptor goes is gone, and its name is free). */
	close_all(fds, n_fds);
	if (r < 0) {
		p.error = -r;
		p.message = (char *)err_text(&why);
	} else if (q->request_case == REQ(INFO)) {
		fill_info(c->vm, &info);
		p.body_case = VMM__PACKET__BODY_INFO;
		p.info = &info;
	}
	r = put(c, &p);
	vmm__request__free_unpacked(q, NULL);
	return r < 0 ? err_errno(err, r, "answer") : 0;
}

/* ---- in ---- */

/* One packet. 1 = done, 0 = none now, -ESHUTDOWN = the client closed, -errno = it broke a rule. */
static int receive(struct vmctl *c, uint8_t *data, struct err *err)
{
	int fds[VMCTL_FDS_MAX], r;
	size_t n_fds = 0;
	ssize_t n = fdpass_receive(c->fd, data, VMCTL_PACKET_MAX, fds, VMCTL_FDS_MAX, &n_fds,
				   MSG_DONTWAIT);

	if (n == -EAGAIN)
		return 0;
	if (n == -EMSGSIZE)
		return err_set(err, -EBADMSG, "packet beyond %zu bytes or %u descriptors",
			       VMCTL_PACKET_MAX, VMCTL_FDS_MAX);
	if (n <= 0) /* an empty packet looks like the end, and the protocol has none */
		return -ESHUTDOWN;
	r = vmctl_take(c, data, (size_t)n, fds, n_fds, err);
	return r < 0 ? r : 1;
}

static void vmctl_on_packet(struct ev_io *io, uint32_t events)
{
	struct vmctl *c = io->arg;
	static uint8_t data[VMCTL_PACKET_MAX]; /* one loop, one thread */
	struct err err = { 0 };
	int r = 1;

	if (events & EPOLLOUT)
		flush(c);
	send_room(c);
	for (int i = 0; i < PACKETS_PER_ROUND && r > 0 && c->n_queued == 0; i++)
		r = receive(c, data, &err);
	/* The client is gone, and what it left unread by us does not matter. */
	if (r >= 0 && c->n_queued > 0 && (events & (EPOLLHUP | EPOLLERR)))
		r = -ESHUTDOWN;
	if (r < 0) {
		ev_io_del(&c->io);
		if (r == -ESHUTDOWN)
			c->closed(c->arg, 0, "");
		else
			c->closed(c->arg, r, err_text(&err));
	}
}

int vmctl_init(struct vmctl *c, struct loop *loop, int fd, struct vm *vm,
	       void (*closed)(void *arg, int code, const char *why), void *arg, struct err *err)
{
	int type = 0, r = 0;
	socklen_t len = sizeof(type);

	*c = (struct vmctl){ .loop = loop, .fd = fd, .vm = vm, .closed = closed, .arg = arg };
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_SEQPACKET)
		r = err_set(err, -EINVAL, "descriptor %d is not a SEQPACKET socket", fd);
	if (r == 0) {
		r = ev_io_add(loop, &c->io, fd, EPOLLIN, vmctl_on_packet, c);
		if (r < 0)
			err_errno(err, r, "watch control socket");
	}
	if (r < 0)
		fd_close(&c->fd);
	return r;
}

void vmctl_fini(struct vmctl *c)
{
	ev_io_del(&c->io);
	for (unsigned i = 0; i < c->n_queued; i++)
		free(c->queue[i].data);
	c->n_queued = 0;
	fd_close(&c->fd);
}
