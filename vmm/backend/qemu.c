/*
 * Backend qemu: QEMU's microvm machine as a child runs the vCPUs (TCG, or what --qemu-arg asks
 * for); blk and vsock are served to it by our device code over vhost-user, on inherited
 * socketpairs, and the network card nearly so (qemu_net.h). Guest memory is a memfd of QEMU's that
 * the vhost-user connections share.
 *
 * The child dies with the monitor (PDEATHSIG), and is killed through its pidfd. QEMU resets on a
 * triple fault, the guest's only way to end; -no-reboot turns that into exit status 0.
 */
#include "vmm/backend/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"
#include "vmm/backend/cmdline.h"
#include "vmm/backend/qemu_net.h"
#include "vmm/virtio/vhost_user.h"

#define STDERR_MAX 4096	  /* of QEMU's messages: the beginning, where the cause is */
#define STDERR_KEEP 300	  /* into the text of Ended */
#define EXTRA_ARGS_MAX 32 /* --qemu-arg */
#define ARGS_MAX (64 + EXTRA_ARGS_MAX)
#define CONSOLE_CHUNK (16 * KIB)
#define GUEST_HZ 250 /* CONFIG_HZ (kernel/common.config) */
#define TSC_SAMPLE_NS (5 * NS_PER_MS)

/* Descriptors of the child. */
enum { CHILD_STDERR = 2, CHILD_BLK, CHILD_VSOCK, CHILD_QMP, CHILD_CONSOLE, CHILD_FDS };

struct backend {
	struct loop *loop;
	void (*ended)(void *arg, enum end_reason reason, const char *message);
	void *arg;
	struct vhost_user blk, vsock;
	struct qemu_net net;
	void (*console)(void *arg, const void *data, size_t n); /* NULL = not wanted */
	struct ev_child child;
	pid_t pid; /* 0 = not started, or reaped */
	bool killed;
	char failure[256]; /* why we killed it ourselves; "" = we did not */

	int stderr_fd, console_fd; /* owned: our ends */
	struct ev_io stderr_io, console_io;
	struct buf messages; /* of QEMU, from its standard error */
};

/* An argument vector with a bound; strings are owned. */
struct args {
	char *v[ARGS_MAX + 1];
	unsigned n;
	bool failed;
};

static void qemu_args_fini(struct args *a)
{
	for (unsigned i = 0; i < a->n; i++)
		free(a->v[i]);
}

static void arg_take(struct args *a, char *s)
{
	if (!s || a->n == ARGS_MAX) {
		free(s);
		a->failed = true;
		return;
	}
	a->v[a->n++] = s;
	a->v[a->n] = NULL;
}

static void arg2(struct args *a, const char *option, char *value)
{
	arg_take(a, strdup(option));
	if (value)
		arg_take(a, value);
}

#ifdef __x86_64__
struct tsc_sample {
	uint64_t tsc, ns;
};

/* The counter and the clock at the same time: the closest of a few tries. */
static struct tsc_sample tsc_now(void)
{
	struct tsc_sample best = { 0 };
	uint64_t shortest = UINT64_MAX, before, took;
	struct timespec t;

	for (int i = 0; i < 8; i++) {
		before = __builtin_ia32_rdtsc();
		clock_gettime(CLOCK_MONOTONIC_RAW, &t);
		took = __builtin_ia32_rdtsc() - before;
		if (took < shortest) {
			shortest = took;
			best.tsc = before + took / 2;
			best.ns = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
		}
	}
	return best;
}

/* The guest's counter under TCG is the host's. The guest would need 15 ms and a PIT to measure it,
 * and with several CPUs each of them would measure its delay loop (lpj: counts per tick) for 100
 * ms. */
static int add_clock(struct cmdline *line, struct err *err)
{
	const struct timespec pause = { .tv_nsec = TSC_SAMPLE_NS };
	struct tsc_sample a = tsc_now(), b;
	unsigned long long khz;
	char words[80];

	(void)nanosleep(&pause, NULL);
	b = tsc_now();
	if (b.ns <= a.ns || b.tsc <= a.tsc)
		return 0; /* the guest finds out itself */
	khz = (b.tsc - a.tsc) * 1000000 / (b.ns - a.ns);
	snprintf(words, sizeof(words), "tsc_early_khz=%llu lpj=%llu", khz, khz * 1000 / GUEST_HZ);
	return cmdline_add(line, words, err);
}
#else
static int add_clock(struct cmdline *line, struct err *err)
{
	return 0;
}
#endif

static int make_cmdline(struct cmdline *line, const struct backend_boot *b, struct err *err)
{
	int r;

	cmdline_init(line);
	r = cmdline_add_defaults(line, CMDLINE_QEMU, err);
	if (r == 0 && b->console)
		r = cmdline_add_console(line, err);
	if (r == 0)
		r = add_clock(line, err);
	return r == 0 ? cmdline_add(line, b->cmdline, err) : r;
}

/* The same card as our own: what it would do beyond that is off. */
static void add_net(struct args *a, const struct qemu_net *n)
{
	arg2(a, "-chardev", str_fmt("socket,id=qmp,fd=%d", CHILD_QMP));
	arg2(a, "-mon", strdup("chardev=qmp,mode=control"));
	arg2(a, "-chardev", str_fmt("socket,id=net,path=%s,abstract=on", n->name));
	arg2(a, "-netdev", strdup("vhost-user,id=net,chardev=net"));
	arg2(a, "-device",
	     str_fmt("virtio-net-device,id=eth0,netdev=net,mac=%s,ctrl_vq=off,ctrl_rx=off,"
		     "ctrl_vlan=off,ctrl_rx_extra=off,ctrl_mac_addr=off,ctrl_guest_offloads=off,"
		     "guest_announce=off",
		     n->mac));
}

static int make_args(struct args *a, const struct backend *q, const struct backend_boot *b,
		     struct err *err)
{
	struct cmdline line;
	int r = make_cmdline(&line, b, err);

	if (r < 0)
		return r;
	arg_take(a, strdup(b->qemu_path));
	arg2(a, "-nodefaults", NULL);
	arg2(a, "-no-user-config", NULL);
	arg2(a, "-no-reboot", NULL);
	arg2(a, "-display", strdup("none"));
	arg2(a, "-sandbox", strdup("on,obsolete=deny,elevateprivileges=deny,spawn=deny"));
	/* Without PIT and PIC the guest must be told its clocks (cmdline.c, add_clock). The RTC
	 * stays: a kernel without it and without kvm-clock polls for it for a second. */
	arg2(a, "-machine",
	     str_fmt("microvm,acpi=off,x-option-roms=off,isa-serial=%s,rtc=on,pit=off,pic=off,"
		     "memory-backend=mem",
		     b->console ? "on" : "off"));
	/* Translated code: a maximum of 256 MiB, or it takes up to 1 GiB, as the host has memory.
	 *
	 * QEMU before 8.1 with a thread per vCPU can loop without end in an int3 that another vCPU
	 * has patched away (seen with 7.2: a jump label in __schedule). One thread takes turns
	 * instead.
	 */
	arg2(a, "-accel",
	     strdup(b->vcpus > 1 ? "tcg,tb-size=256,thread=single" : "tcg,tb-size=256"));
	/* TCG runs "rep movsb" byte by byte: without ERMS guests copy by words. */
	arg2(a, "-cpu", strdup("max,-erms"));
	arg2(a, "-global", strdup("virtio-mmio.force-legacy=false"));
	arg2(a, "-smp", str_fmt("%u", b->vcpus));
	arg2(a, "-m", str_fmt("%uM", b->memory_mib));
	arg2(a, "-object", str_fmt("memory-backend-memfd,id=mem,share=on,size=%uM", b->memory_mib));
	arg2(a, "-kernel", strdup(b->kernel));
	arg2(a, "-initrd", strdup(b->initramfs));
	arg2(a, "-append", strdup(line.text));
	arg2(a, "-chardev", str_fmt("socket,id=blk,fd=%d", CHILD_BLK));
	arg2(a, "-device", strdup("vhost-user-blk,chardev=blk,num-queues=1,queue-size=256"));
	arg2(a, "-chardev", str_fmt("socket,id=vsock,fd=%d", CHILD_VSOCK));
	arg2(a, "-device", strdup("vhost-user-vsock-device,chardev=vsock"));
	add_net(a, &q->net);
	if (b->console) {
		arg2(a, "-chardev", str_fmt("socket,id=con,fd=%d", CHILD_CONSOLE));
		arg2(a, "-serial", strdup("chardev:con"));
	}
	for (char *const *x = b->qemu_args; x && *x; x++)
		arg_take(a, strdup(*x));
	return a->failed ? err_nomem(err) : 0;
}

/* ---- the child's life ---- */

static void kill_child(struct backend *q)
{
	int r = q->pid > 0 ? pidfd_signal(q->child.pidfd, SIGKILL) : 0;

	if (r < 0)
		log_debug("cannot kill QEMU", "err", strerror(-r));
}

static void qemu_on_protocol_error(void *arg, const char *why)
{
	struct backend *q = arg;

	if (!*q->failure)
		snprintf(q->failure, sizeof(q->failure), "%s", why);
	kill_child(q);
}

static void qemu_on_stderr(struct ev_io *io, uint32_t events)
{
	struct backend *q = io->arg;
	char waste[1024];
	ssize_t n = buf_read_fd(&q->messages, io->fd, sizeof(waste));

	if (n == -ENOBUFS) /* kept enough: the rest must not block QEMU */
		n = read(io->fd, waste, sizeof(waste));
	if (n == 0 || (n < 0 && n != -EAGAIN && errno != EAGAIN))
		ev_io_del(io);
}

static void qemu_on_console(struct ev_io *io, uint32_t events)
{
	struct backend *q = io->arg;
	uint8_t data[CONSOLE_CHUNK];
	ssize_t n = recv(io->fd, data, sizeof(data), MSG_DONTWAIT);

	if (n > 0)
		q->console(q->arg, data, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		ev_io_del(io);
}

/* QEMU's last words on one line, without its own name in front. */
static void last_words(struct backend *q, char *out, size_t size)
{
	size_t n;

	for (int i = 0; i < 8 && q->stderr_io.loop; i++) /* what is in the pipe still */
		qemu_on_stderr(&q->stderr_io, EPOLLIN);
	n = MIN_OF(buf_len(&q->messages), size - 1);
	if (n > 0)
		memcpy(out, buf_data(&q->messages), n);
	while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == ' '))
		n--;
	out[n] = '\0';
	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
			out[i] = out[i] == '\n' ? ';' : '?';
	}
}

static void qemu_on_child_exit(struct ev_child *c, int status)
{
	struct backend *q = c->arg;
	char words[STDERR_KEEP], text[STDERR_KEEP + 300];
	enum end_reason reason = END_BACKEND_DIED;
	const char *sep;

	q->pid = 0;
	for (int i = 0; i < 8 && q->console_io.loop; i++)
		qemu_on_console(&q->console_io, EPOLLIN);
	last_words(q, words, sizeof(words));
	sep = *words ? ": " : "";
	vhost_user_fini(&q->blk);
	vhost_user_fini(&q->vsock);
	qemu_net_fini(&q->net);
	if (*q->failure) {
		reason = END_MONITOR_ERROR;
		snprintf(text, sizeof(text), "%s%s%s", q->failure, sep, words);
	} else if (q->killed) {
		reason = END_KILLED;
		snprintf(text, sizeof(text), "killed");
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		reason = END_REBOOT;
		snprintf(text, sizeof(text), "the guest reset its machine%s%s", sep, words);
	} else if (WIFEXITED(status)) {
		snprintf(text, sizeof(text), "QEMU exited with status %d%s%s", WEXITSTATUS(status),
			 sep, words);
	} else {
		snprintf(text, sizeof(text), "QEMU was killed by signal %d (%s)%s%s",
			 WTERMSIG(status), strsignal(WTERMSIG(status)), sep, words);
	}
	q->ended(q->arg, reason, text);
}

static struct virtio_dev *device(const struct backend_boot *b, enum virtio_id id)
{
	for (size_t i = 0; i < b->n_devices; i++) {
		if (b->devices[i]->ops->id == id)
			return b->devices[i];
	}
	return NULL;
}

/* A socketpair: our end is served as a vhost-user device, the other one is the child's. */
static int qemu_serve(struct backend *q, struct vhost_user *v, struct virtio_dev *dev,
		      int *ret_child, struct err *err)
{
	int sv[2];

	if (!dev)
		return err_set(err, -ENODEV, "a device is missing");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return err_errno(err, -errno, "socketpair");
	*ret_child = sv[1];
	return vhost_user_init(v, q->loop, dev, sv[0], qemu_on_protocol_error, q, err);
}

static int watch_output(struct backend *q, struct err *err)
{
	int r = fd_set_nonblock(q->stderr_fd, true);

	if (r == 0)
		r = ev_io_add(q->loop, &q->stderr_io, q->stderr_fd, EPOLLIN, qemu_on_stderr, q);
	if (r == 0 && q->console_fd >= 0)
		r = ev_io_add(q->loop, &q->console_io, q->console_fd, EPOLLIN, qemu_on_console, q);
	return r < 0 ? err_errno(err, r, "watch QEMU's output") : 0;
}

static int start_child(struct backend *q, const struct backend_boot *b, const int child_fds[],
		       struct err *err)
{
	struct args cleanup_with(qemu_args_fini) a = { .n = 0 };
	int pidfd = -1, r = make_args(&a, q, b, err);
	struct spawn s;

	if (r < 0)
		return r;
	/* The pod's value, which is the monitor's own. */
	s = spawn_of(b->qemu_path, a.v, OOM_SCORE_KEEP);
	s.n_fds = child_fds[CHILD_CONSOLE] >= 0 ? CHILD_FDS : CHILD_CONSOLE;
	for (int i = 0; i < s.n_fds; i++)
		s.fds[i] = child_fds[i];
	s.die_with_parent = true;
	r = spawn_run(&s, &q->pid, &pidfd, err);
	if (r < 0)
		return err_wrap(err, r, "start QEMU (--qemu; package qemu-system-x86)");
	qemu_net_set_peer(&q->net, q->pid);
	r = ev_child_add(q->loop, &q->child, q->pid, pidfd, qemu_on_child_exit, q);
	if (r < 0) { /* the pidfd is closed, the child runs */
		kill(q->pid, SIGKILL);
		waitpid(q->pid, NULL, 0);
		q->pid = 0;
		return err_errno(err, r, "watch QEMU");
	}
	return 0;
}

static void qemu_free(struct backend *q)
{
	if (!q)
		return;
	if (q->pid > 0) {
		kill_child(q);
		while (waitpid(q->pid, NULL, 0) < 0 && errno == EINTR)
			;
		ev_child_del(&q->child);
	}
	vhost_user_fini(&q->blk);
	vhost_user_fini(&q->vsock);
	qemu_net_fini(&q->net);
	ev_io_del(&q->stderr_io);
	ev_io_del(&q->console_io);
	fd_close(&q->stderr_fd);
	fd_close(&q->console_fd);
	buf_fini(&q->messages);
	free(q);
}

static void qemu_freep(struct backend **q)
{
	qemu_free(*q);
}

static int qemu_boot(const struct backend_boot *b, struct backend **ret, struct err *err)
{
	struct backend *cleanup_with(qemu_freep) q = calloc(1, sizeof(*q));
	cleanup_fd int blk = -1, vsock = -1, qmp = -1, err_w = -1, con_child = -1;
	int p[2], r;

	if (!q)
		return err_nomem(err);
	q->loop = b->loop;
	q->ended = b->ended;
	q->console = b->console;
	q->arg = b->arg;
	q->stderr_fd = q->console_fd = -1;
	buf_init(&q->messages, STDERR_MAX);
	r = qemu_serve(q, &q->blk, device(b, VIRTIO_ID_BLOCK), &blk, err);
	if (r == 0)
		r = qemu_serve(q, &q->vsock, device(b, VIRTIO_ID_VSOCK), &vsock, err);
	if (r == 0)
		r = qemu_net_init(&q->net, q->loop, device(b, VIRTIO_ID_NET),
				  qemu_on_protocol_error, q, &qmp, err);
	if (r < 0)
		return r;
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	q->stderr_fd = p[0];
	err_w = p[1];
	if (q->console) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
			return err_errno(err, -errno, "socketpair");
		q->console_fd = p[0];
		con_child = p[1];
	}
	r = watch_output(q, err);
	if (r == 0)
		r = start_child(q, b,
				(const int[CHILD_FDS]){ -1, -1, err_w, blk, vsock, qmp, con_child },
				err);
	if (r < 0)
		return r;
	*ret = take_ptr(&q);
	return 0;
}

static void qemu_kill(struct backend *q)
{
	q->killed = true;
	kill_child(q);
}

static pid_t qemu_pid(const struct backend *q)
{
	return q->pid;
}

const struct backend_ops backend_qemu = {
	.name = "qemu",
	.boot = qemu_boot,
	.kill = qemu_kill,
	.free = qemu_free,
	.pid = qemu_pid,
};
