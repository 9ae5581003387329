/* The control protocol over a real socketpair; no VM boots here (there is no kernel to boot). */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"
#include "proto/vmm.pb-c.h"
#include "vmm/vmctl.h"

#define REQ(r) VMM__REQUEST__REQUEST_##r

static struct loop *loop;
static struct vm vm;
static struct vmctl ctl;
static int client;
static int closed_code;
static unsigned n_closed;

static void on_closed(void *arg, int code, const char *why)
{
	n_closed++;
	closed_code = code;
}

static int setup(void **state)
{
	int sv[2];
	const struct vm_config config = { .choice = VM_QEMU,
					  .kernel = "/nonexistent/vmlinux",
					  .initramfs = "/nonexistent/initramfs",
					  .qemu_path = "/nonexistent/qemu" };
	const struct vm_events events = { vmctl_agent_connected, vmctl_ended, vmctl_disk_room,
					  &ctl };

	n_closed = 0;
	assert_int_equal(loop_new(&loop, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	vm_init(&vm, loop, &config, &events);
	assert_int_equal(vmctl_init(&ctl, loop, sv[1], &vm, on_closed, NULL, NULL), 0);
	client = sv[0];
	return 0;
}

static int teardown(void **state)
{
	vmctl_fini(&ctl);
	vm_fini(&vm);
	loop_free(loop);
	fd_close(&client);
	return 0;
}

static void rounds(void)
{
	while (loop_once(loop, 0) > 0)
		;
}

static void send_bytes(const void *data, size_t len, const int *fds, unsigned n_fds)
{
	assert_int_equal(fdpass_send(client, data, len, fds, n_fds, 0), len);
}

static Vmm__Packet *receive(void)
{
	static uint8_t data[VMCTL_PACKET_MAX];
	ssize_t n = recv(client, data, sizeof(data), MSG_DONTWAIT);

	return n > 0 ? vmm__packet__unpack(NULL, (size_t)n, data) : NULL;
}

/* Sends a request, returns the error of its answer. */
static int call(Vmm__Request *q, const int *fds, unsigned n_fds)
{
	uint8_t data[4096];
	static uint64_t id;
	int error;
	Vmm__Packet *p;

	q->id = ++id;
	send_bytes(data, vmm__request__pack(q, data), fds, n_fds);
	rounds();
	p = receive();
	assert_non_null(p);
	assert_int_equal(p->id, id);
	assert_true(!p->error || *p->message);
	error = p->error;
	vmm__packet__free_unpacked(p, NULL);
	return error;
}

static int call_map(uint64_t first, uint64_t sectors, const int *fds, unsigned n_fds)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__MapWindow w = VMM__MAP_WINDOW__INIT;

	w.first_sector = first;
	w.sectors = sectors;
	w.readonly = true;
	q.request_case = REQ(MAP_WINDOW);
	q.map_window = &w;
	return call(&q, fds, n_fds);
}

static int call_boot(uint32_t vcpus, uint32_t memory, const int *fds, unsigned n_fds)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__Boot b = VMM__BOOT__INIT;

	b.vcpus = vcpus;
	b.memory_mib = memory;
	q.request_case = REQ(BOOT);
	q.boot = &b;
	return call(&q, fds, n_fds);
}

static void test_windows(void **state)
{
	int fd[3];
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__UnmapWindow u = VMM__UNMAP_WINDOW__INIT;

	for (int i = 0; i < 3; i++)
		fd[i] = memfd_create("w", MFD_CLOEXEC);
	assert_int_equal(call_map(0, 8, fd, 1), 0);
	assert_int_equal(call_map(0, 8, fd, 1), EEXIST);
	assert_int_equal(call_map(8, 8, NULL, 0), EINVAL);
	assert_int_equal(call_map(8, 8, fd, 2), EINVAL);
	assert_int_equal(call_map(9, 8, fd, 1), EINVAL);
	q.request_case = REQ(UNMAP_WINDOW);
	q.unmap_window = &u;
	assert_int_equal(call(&q, NULL, 0), 0);
	assert_int_equal(call(&q, NULL, 0), ENOENT);
	assert_int_equal(call(&q, fd, 1), EINVAL);
	assert_int_equal(vm.windows.n, 0);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
}

static void test_states(void **state)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__Kill k = VMM__KILL__INIT;
	Vmm__ConnectVsock v = VMM__CONNECT_VSOCK__INIT;
	int sv[2], fd = memfd_create("w", MFD_CLOEXEC);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	q.request_case = REQ(KILL);
	q.kill = &k;
	assert_int_equal(call(&q, NULL, 0), EPROTO);
	q.request_case = REQ(CONNECT_VSOCK);
	q.connect_vsock = &v;
	assert_int_equal(call(&q, &sv[0], 1), EPROTO);
	q.request_case = VMM__REQUEST__REQUEST__NOT_SET;
	assert_int_equal(call(&q, NULL, 0), ENOSYS);
	assert_int_equal(call_boot(1, 256, &fd, 1), EINVAL); /* no socket */
	assert_int_equal(call_boot(65, 256, sv, 1), EINVAL);
	assert_int_equal(call_boot(1, 63, sv, 1), EINVAL);
	assert_int_equal(call_boot(1, 1u << 21, sv, 1), EINVAL);
	assert_int_equal(call_boot(1, 256, NULL, 0), EINVAL);
	assert_int_equal(call_boot(1, 256, sv, 1), ENOENT);
	assert_int_equal(vm.state, VM_NEW);
	close(fd);
	close(sv[0]);
	close(sv[1]);
}

/* What is no tap is refused, and stays nobody's; test_vmm_net has real ones. */
static void test_taps(void **state)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__AttachTap a = VMM__ATTACH_TAP__INIT;
	Vmm__DetachTap t = VMM__DETACH_TAP__INIT;
	int fd[2] = { memfd_create("w", MFD_CLOEXEC), -1 };

	q.request_case = REQ(ATTACH_TAP);
	q.attach_tap = &a;
	fd[1] = fd[0];
	assert_int_equal(call(&q, fd, 1), EINVAL);
	assert_int_equal(call(&q, NULL, 0), EINVAL);
	assert_int_equal(call(&q, fd, 2), EINVAL);
	vm.state = VM_ENDED;
	assert_int_equal(call(&q, fd, 1), EPROTO);
	q.request_case = REQ(DETACH_TAP);
	q.detach_tap = &t;
	assert_int_equal(call(&q, fd, 1), EINVAL);
	assert_int_equal(call(&q, NULL, 0), 0);
	assert_int_equal(vm.net.tap, -1);
	close(fd[0]);
}

static void test_info(void **state)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__Info i = VMM__INFO__INIT;
	uint8_t data[64];
	Vmm__Packet *p;

	q.id = 7;
	q.request_case = REQ(INFO);
	q.info = &i;
	send_bytes(data, vmm__request__pack(&q, data), NULL, 0);
	rounds();
	p = receive();
	assert_non_null(p);
	assert_int_equal(p->body_case, VMM__PACKET__BODY_INFO);
	assert_string_equal(p->info->state, "new");
	assert_int_equal(p->info->pid, getpid());
	vmm__packet__free_unpacked(p, NULL);
}

/* A client that does not read: no more requests are taken, no answer is lost, no memory grows. */
static void test_deaf_client(void **state)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__Info i = VMM__INFO__INIT;
	Vmm__Packet *p;
	uint8_t data[64];
	unsigned sent = 0, seen = 0;

	q.request_case = REQ(INFO);
	q.info = &i;
	assert_int_equal(fd_set_nonblock(client, true), 0);
	for (bool full = false; !full; rounds()) {
		q.id = sent + 1;
		full = send(client, data, vmm__request__pack(&q, data), 0) < 0;
		sent += !full;
	}
	assert_true(ctl.n_queued <= VMCTL_QUEUE_MAX);
	vmctl_agent_connected(&ctl);
	vmctl_ended(&ctl, END_REBOOT, "bye");
	while ((p = receive()) || (rounds(), p = receive())) {
		if (p->id == 0) {
			assert_true(p->agent_connected || p->ended);
		} else {
			assert_int_equal(p->id, seen + 1);
			seen++;
		}
		vmm__packet__free_unpacked(p, NULL);
		rounds();
	}
	assert_int_equal(seen, sent);
}

/* Of the news of the disk only the last counts, and it comes when the client reads again. */
static void test_disk_room(void **state)
{
	struct blk_room room = { .full = true, .free = 10, .least = 20, .file = "/disk" };
	unsigned filled = 0, rooms = 0;
	bool full = false;
	Vmm__Packet *p;

	vmctl_disk_room(&ctl, &room);
	p = receive();
	assert_non_null(p);
	assert_int_equal(p->id, 0);
	assert_int_equal(p->body_case, VMM__PACKET__BODY_DISK_ROOM);
	assert_true(p->disk_room->full && p->disk_room->free == 10 && p->disk_room->least == 20);
	assert_string_equal(p->disk_room->file, "/disk");
	vmm__packet__free_unpacked(p, NULL);
	while (ctl.n_queued == 0 && filled++ < 100000)
		vmctl_agent_connected(&ctl);
	for (int i = 0; i < 11; i++) {
		room.full = i % 2;
		vmctl_disk_room(&ctl, &room);
	}
	assert_int_equal(ctl.n_queued, 1);
	while ((p = receive()) || (rounds(), p = receive())) {
		rooms += p->body_case == VMM__PACKET__BODY_DISK_ROOM;
		full |= p->disk_room && p->disk_room->full;
		vmm__packet__free_unpacked(p, NULL);
		rounds();
	}
	assert_int_equal(rooms, 1);
	assert_false(full);
}

static void test_malformed(void **state)
{
	send_bytes("\xff\xff\xff\xff", 4, NULL, 0);
	rounds();
	assert_int_equal(n_closed, 1);
	assert_int_equal(closed_code, -EBADMSG);
}

static void test_too_long(void **state)
{
	static uint8_t big[VMCTL_PACKET_MAX + 1];

	send_bytes(big, sizeof(big), NULL, 0);
	rounds();
	assert_int_equal(n_closed, 1);
	assert_int_equal(closed_code, -EBADMSG);
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_too_many_fds(void **state)
{
	const int fds[8] = { 0, 1, 2, 0, 1, 2, 0, 1 };
	int before = open_fds();

	send_bytes("\x08\x01", 2, fds, 8);
	rounds();
	assert_int_equal(n_closed, 1);
	assert_int_equal(closed_code, -EBADMSG);
	assert_int_equal(open_fds(), before); /* none was left open */
}

static void test_client_gone(void **state)
{
	fd_close(&client);
	rounds();
	assert_int_equal(n_closed, 1);
	assert_int_equal(closed_code, 0);
}

static void test_wrong_socket(void **state)
{
	struct vmctl c;
	struct err err = { 0 };
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(vmctl_init(&c, loop, sv[1], &vm, on_closed, NULL, &err), -EINVAL);
	assert_text(err.msg, "SEQPACKET");
	close(sv[0]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_windows),      T(test_states),	 T(test_info),	       T(test_deaf_client),
		T(test_malformed),    T(test_too_long),	 T(test_too_many_fds), T(test_client_gone),
		T(test_wrong_socket), T(test_disk_room), T(test_taps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
