#include "test/lib/unit.h"
#include "test/lib/vmm_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/process.h"
#include "base/spawn.h"
#include "base/util.h"

#define ANSWER_SECONDS 20
#define GUEST_SECONDS 120

static void wait_readable(int fd, int seconds, const char *what)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, seconds * 1000) <= 0)
		fail_msg("no %s within %d s", what, seconds);
}

void vmm_start(struct vmm_client *c, const char *backend, const char *kernel, const char *initramfs)
{
	char *argv[] = { NULL,
			 (char *)"--control-fd",
			 (char *)"3",
			 (char *)"--backend",
			 (char *)backend,
			 (char *)"--kernel",
			 (char *)kernel,
			 (char *)"--initramfs",
			 (char *)initramfs,
			 (char *)"--log-level",
			 (char *)"warn",
			 NULL };
	cleanup_free char *path = NULL;
	struct err err = { 0 };
	struct spawn s;
	int sv[2];

	*c = (struct vmm_client){ .pidfd = -1, .control = -1, .agent = -1, .console = -1 };
	assert_ok(program_path(getenv("HUSK_VMM"), "../bin/husk-vmm", &path, &err), &err);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	argv[0] = path;
	s = spawn_of(path, argv, OOM_SCORE_KEEP);
	s.fds[2] = 2;
	s.fds[3] = sv[1];
	s.n_fds = 4;
	assert_ok(spawn_run(&s, &c->pid, &c->pidfd, &err), &err);
	close(sv[1]);
	c->control = sv[0];
}

/* One packet from the monitor: an event is noted, an answer returned. NULL: the socket is closed.
 */
static Vmm__Packet *take_packet(struct vmm_client *c, bool *ret_closed)
{
	static uint8_t data[65536];
	ssize_t n = recv(c->control, data, sizeof(data), 0);
	Vmm__Packet *p;

	*ret_closed = n <= 0;
	if (n <= 0)
		return NULL;
	p = vmm__packet__unpack(NULL, (size_t)n, data);
	assert_non_null(p);
	if (p->body_case == VMM__PACKET__BODY_AGENT_CONNECTED) {
		c->connected = true;
		c->times = *p->agent_connected;
	} else if (p->body_case == VMM__PACKET__BODY_ENDED) {
		assert_null(c->ended);
		c->ended = p->ended;
		p->ended = NULL;
		p->body_case = VMM__PACKET__BODY__NOT_SET;
	}
	if (p->id != 0)
		return p;
	vmm__packet__free_unpacked(p, NULL);
	return NULL;
}

int vmm_call(struct vmm_client *c, Vmm__Request *q, const int *fds, unsigned n_fds,
	     Vmm__Packet **ret_answer)
{
	uint8_t data[8192];
	size_t len;

	q->id = ++c->next_id;
	assert_true(vmm__request__get_packed_size(q) <= sizeof(data));
	len = vmm__request__pack(q, data);
	assert_int_equal(fdpass_send(c->control, data, len, fds, n_fds, 0), len);
	for (;;) {
		bool closed;
		int error;
		Vmm__Packet *p;

		wait_readable(c->control, ANSWER_SECONDS, "answer");
		p = take_packet(c, &closed);
		if (closed)
			fail_msg("the monitor closed its control socket");
		if (!p)
			continue;
		assert_int_equal(p->id, q->id);
		error = p->error;
		snprintf(c->message, sizeof(c->message), "%s", error ? p->message : "");
		if (*c->message)
			print_message("[ answer   ] %s\n", c->message);
		if (ret_answer)
			*ret_answer = p;
		else
			vmm__packet__free_unpacked(p, NULL);
		return error;
	}
}

int vmm_boot(struct vmm_client *c, unsigned vcpus, unsigned memory_mib, const char *cmdline,
	     bool console)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__Boot b = VMM__BOOT__INIT;
	int sv[2], p[2] = { -1, -1 }, r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	if (console)
		assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	b.vcpus = vcpus;
	b.memory_mib = memory_mib;
	b.cmdline = (char *)cmdline;
	q.request_case = VMM__REQUEST__REQUEST_BOOT;
	q.boot = &b;
	r = vmm_call(c, &q, (const int[]){ sv[1], p[1] }, console ? 2 : 1, NULL);
	close(sv[1]);
	fd_close(&p[1]);
	fd_close(&c->agent);
	fd_close(&c->console);
	c->agent = sv[0];
	c->console = p[0];
	return r;
}

int vmm_map(struct vmm_client *c, uint64_t first, uint64_t sectors, int fd, bool readonly)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__MapWindow w = VMM__MAP_WINDOW__INIT;

	w.first_sector = first;
	w.sectors = sectors;
	w.readonly = readonly;
	q.request_case = VMM__REQUEST__REQUEST_MAP_WINDOW;
	q.map_window = &w;
	return vmm_call(c, &q, &fd, 1, NULL);
}

int vmm_unmap(struct vmm_client *c, uint64_t first)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__UnmapWindow w = VMM__UNMAP_WINDOW__INIT;

	w.first_sector = first;
	q.request_case = VMM__REQUEST__REQUEST_UNMAP_WINDOW;
	q.unmap_window = &w;
	return vmm_call(c, &q, NULL, 0, NULL);
}

int vmm_connect(struct vmm_client *c, uint32_t port, int *ret_fd)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__ConnectVsock v = VMM__CONNECT_VSOCK__INIT;
	int sv[2];
	int r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	v.port = port;
	q.request_case = VMM__REQUEST__REQUEST_CONNECT_VSOCK;
	q.connect_vsock = &v;
	r = vmm_call(c, &q, &sv[1], 1, NULL);
	close(sv[1]);
	*ret_fd = sv[0];
	return r;
}

int vmm_attach_tap(struct vmm_client *c, int tap)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__AttachTap a = VMM__ATTACH_TAP__INIT;

	q.request_case = VMM__REQUEST__REQUEST_ATTACH_TAP;
	q.attach_tap = &a;
	return vmm_call(c, &q, &tap, 1, NULL);
}

int vmm_detach_tap(struct vmm_client *c)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__DetachTap t = VMM__DETACH_TAP__INIT;

	q.request_case = VMM__REQUEST__REQUEST_DETACH_TAP;
	q.detach_tap = &t;
	return vmm_call(c, &q, NULL, 0, NULL);
}

pid_t vmm_qemu_pid(struct vmm_client *c)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__Info i = VMM__INFO__INIT;
	Vmm__Packet *p;
	pid_t pid;

	q.request_case = VMM__REQUEST__REQUEST_INFO;
	q.info = &i;
	assert_int_equal(vmm_call(c, &q, NULL, 0, &p), 0);
	pid = (pid_t)p->info->qemu_pid;
	vmm__packet__free_unpacked(p, NULL);
	return pid;
}

static void wait_event(struct vmm_client *c, int seconds, bool (*come)(const struct vmm_client *),
		       const char *what)
{
	while (!come(c)) {
		bool closed;
		Vmm__Packet *p;

		wait_readable(c->control, seconds, what);
		p = take_packet(c, &closed);
		assert_null(p);
		if (closed)
			fail_msg("the monitor closed its control socket; waiting for %s", what);
	}
}

static bool is_connected(const struct vmm_client *c)
{
	return c->connected || c->ended;
}

static bool has_ended(const struct vmm_client *c)
{
	return c->ended;
}

void vmm_wait_connected(struct vmm_client *c, int seconds)
{
	wait_event(c, seconds, is_connected, "agent");
	if (!c->connected)
		fail_msg("the VM ended: %s", c->ended->message);
}

void vmm_wait_ended(struct vmm_client *c, int seconds)
{
	wait_event(c, seconds, has_ended, "end of the VM");
}

int vmm_guest(struct vmm_client *c, char *out, size_t size, const char *fmt, ...)
{
	char line[600];
	int n;

	va_list ap;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	assert_in_range(n, 1, (int)sizeof(line) - 2);
	line[n++] = '\n';
	assert_int_equal(send(c->agent, line, (size_t)n, MSG_NOSIGNAL), n);
	for (n = 0; n == 0 || line[n - 1] != '\n'; n++) {
		assert_in_range(n, 0, (int)sizeof(line) - 2);
		wait_readable(c->agent, GUEST_SECONDS, "answer of the guest");
		assert_int_equal(read(c->agent, line + n, 1), 1);
	}
	line[n - 1] = '\0';
	if (!strncmp(line, "err ", 4))
		return -(int)strtol(line + 4, NULL, 10);
	assert_int_equal(strncmp(line, "ok", 2), 0);
	if (out)
		snprintf(out, size, "%s", line[2] ? line + 3 : "");
	return 0;
}

int vmm_stop(struct vmm_client *c)
{
	int status = 0;

	fd_close(&c->control);
	wait_readable(c->pidfd, 10, "end of husk-vmm");
	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	fd_close(&c->pidfd);
	fd_close(&c->agent);
	fd_close(&c->console);
	if (c->ended)
		vmm__ended__free_unpacked(c->ended, NULL);
	c->ended = NULL;
	return status;
}
