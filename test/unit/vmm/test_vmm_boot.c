/*
 * husk-vmm with a real guest kernel and the guest of vmm_guest.c. Needs a kernel: HUSK_KERNEL, or
 * share/husk/vmlinux of the build; skipped without one. HUSK_BACKEND chooses the backend (qemu).
 */
#include "test/lib/unit.h"
#include "test/lib/vmm_client.h"
#include "test/lib/vmm_pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"
#include "base/util.h"

#define BOOT_SECONDS 60
#define SECTORS(bytes) ((bytes) / 512)

static const char *backend, *kernel, *initramfs;
static struct vmm_client vm; /* of the tests that share one */

static int start_vm(void **state)
{
	vmm_start(&vm, backend, kernel, initramfs);
	assert_int_equal(vmm_boot(&vm, 1, 256, "", false), 0);
	vmm_wait_connected(&vm, BOOT_SECONDS);
	return 0;
}

static int stop_vm(void **state)
{
	assert_int_equal(vmm_stop(&vm), 0);
	return 0;
}

static int pattern_file(size_t len, unsigned seed)
{
	int fd = memfd_create("window", MFD_CLOEXEC);
	uint8_t *p = malloc(len);

	assert_non_null(p);
	pattern_fill(p, len, 0, seed);
	assert_int_equal(write_all(fd, p, len), 0);
	free(p);
	return fd;
}

static uint64_t file_hash(int fd, off_t off, size_t len)
{
	uint8_t *p = calloc(1, len);
	uint64_t h;

	assert_non_null(p);
	assert_true(pread(fd, p, len, off) >= 0);
	h = hash_add(HASH_START, p, len);
	free(p);
	return h;
}

static uint64_t guest_hash(const char *path, uint64_t off, uint64_t len)
{
	char out[100];
	int r = vmm_guest(&vm, out, sizeof(out), "read %s %llu %llu", path, (unsigned long long)off,
			  (unsigned long long)len);

	if (r < 0)
		fail_msg("read %s: %d", path, r);
	return strtoull(out, NULL, 16);
}

static void test_times(void **state)
{
	const Vmm__AgentConnected *t = &vm.times;

	assert_true(t->boot_ns > 0 && t->boot_ns <= t->vcpu_start_ns &&
		    t->vcpu_start_ns < t->agent_ready_ns);
	print_message("[ figure   ] boot request to agent ready: %llu ms\n",
		      (unsigned long long)((t->agent_ready_ns - t->boot_ns) / 1000000));
	assert_int_equal(vmm_guest(&vm, NULL, 0, "rng"), 0);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "nonsense"), -ENOSYS);
}

static void test_windows(void **state)
{
	static const uint8_t zeros[262144];
	uint8_t *got, *pat;
	const size_t len = 1 << 20;
	const uint64_t far = 1ull << 33; /* 4 TiB */
	int ro = pattern_file(len, 1), rw = pattern_file(len, 2);
	struct stat before, after;
	uint8_t *want;

	assert_int_equal(vmm_map(&vm, 8, SECTORS(len), ro, true), 0);
	assert_int_equal(vmm_map(&vm, far, SECTORS(2 * len), rw, false), 0);
	assert_int_equal(vmm_map(&vm, far + 8, 8, rw, false), EEXIST);
	assert_int_equal(vmm_map(&vm, 9, 8, rw, false), EINVAL);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "part 1 8 %zu", SECTORS(len)), 0);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "part 200 %llu %zu", (unsigned long long)far,
				   SECTORS(2 * len)),
			 0);
	/* Reads: whole, at an odd place, and past the file's end. */
	assert_true(guest_hash("/dev/vda1", 0, len) == file_hash(ro, 0, len));
	assert_true(guest_hash("/dev/vda1", 1001, 4000) == file_hash(ro, 1001, 4000));
	assert_true(guest_hash("/dev/vda200", 0, 2 * len) == file_hash(rw, 0, 2 * len));
	/* Across the border of a window, straight on the disk: zeros before and behind. */
	want = calloc(1, len + 8192);
	pattern_fill(want + 4096, len, 0, 1);
	assert_true(guest_hash("/dev/vda", 0, len + 8192) ==
		    hash_add(HASH_START, want, len + 8192));
	free(want);
	/* Writes. */
	assert_int_equal(vmm_guest(&vm, NULL, 0, "write /dev/vda200 4096 %zu 9", len), 0);
	got = malloc(len);
	pat = malloc(len);
	assert_int_equal(pread(rw, got, len, 4096), (int)len);
	pattern_fill(pat, len, 0, 9);
	assert_memory_equal(got, pat, len);
	free(got);
	free(pat);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "write /dev/vda1 0 4096 9"), -EIO);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "write /dev/vda 1073741824 4096 9"), -EIO);
	/* Discard and write zeroes give space back. */
	fstat(rw, &before);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "discard /dev/vda200 0 262144"), 0);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "zero /dev/vda200 524288 262144"), 0);
	fstat(rw, &after);
	assert_true(after.st_blocks + 1000 < before.st_blocks);
	assert_true(guest_hash("/dev/vda200", 524288, 262144) ==
		    hash_add(HASH_START, zeros, sizeof(zeros)));
	/* Gone: zeros again. */
	assert_int_equal(vmm_guest(&vm, NULL, 0, "unpart 1"), 0);
	assert_int_equal(vmm_unmap(&vm, 8), 0);
	assert_int_equal(vmm_unmap(&vm, 8), ENOENT);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "part 1 8 %zu", SECTORS(len)), 0);
	assert_true(guest_hash("/dev/vda1", 0, 262144) ==
		    hash_add(HASH_START, zeros, sizeof(zeros)));
	assert_int_equal(vmm_guest(&vm, NULL, 0, "unpart 1"), 0);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "unpart 200"), 0);
	assert_int_equal(vmm_unmap(&vm, far), 0);
	close(ro);
	close(rw);
}

static void test_disk_throughput(void **state)
{
	const size_t len = 128 << 20;
	int fd = memfd_create("big", MFD_CLOEXEC);
	char out[100];
	uint64_t us;

	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	assert_int_equal(posix_fallocate(fd, 0, (off_t)len), 0);
	assert_int_equal(vmm_map(&vm, 1 << 20, SECTORS(len), fd, false), 0);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "part 3 %d %zu", 1 << 20, SECTORS(len)), 0);
	assert_int_equal(vmm_guest(&vm, out, sizeof(out), "fetch /dev/vda3 0 %zu", len), 0);
	us = strtoull(strchr(out, ' '), NULL, 10);
	print_message("[ figure   ] disk read: %llu MiB/s\n",
		      (unsigned long long)(len * 1000000ull / us >> 20));
	assert_int_equal(vmm_guest(&vm, NULL, 0, "unpart 3"), 0);
	assert_int_equal(vmm_unmap(&vm, 1 << 20), 0);
	close(fd);
}

static void test_one_guest_connection(void **state)
{
	assert_int_equal(vmm_guest(&vm, NULL, 0, "connect 1024"), -ECONNRESET);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "connect 22"), -ECONNRESET);
}

/* A connection to a port that nobody listens on is closed. */
static void test_refused(void **state)
{
	int fd;
	char b;
	struct pollfd p;

	assert_int_equal(vmm_connect(&vm, 4000, &fd), 0);
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(fd, &b, 1), 0);
	close(fd);
}

/* 100 MB to the guest and back, while another stream's reader does nothing. */
static void test_relay(void **state)
{
	const size_t len = 100 * 1000 * 1000;
	static uint8_t chunk[256 * 1024], got[256 * 1024];
	uint64_t begin, sent = 0, seen = 0;
	size_t pending = 0, at = 0;
	struct pollfd p;
	int slow, fd;
	ssize_t n;
	char b;

	assert_int_equal(vmm_guest(&vm, NULL, 0, "listen 2000 echo"), 0);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "listen 2001 source 20000000"), 0);
	assert_int_equal(vmm_connect(&vm, 2001, &slow), 0);
	assert_int_equal(read(slow, &b, 1), 1); /* it flows, and now nobody reads */
	assert_int_equal(vmm_connect(&vm, 2000, &fd), 0);
	assert_int_equal(fd_set_nonblock(fd, true), 0);
	begin = now_mono_ns();
	while (seen < len) {
		p = (struct pollfd){ .fd = fd, .events = POLLIN };
		if (sent < len)
			p.events |= POLLOUT;
		assert_int_equal(poll(&p, 1, 20000), 1);
		if (p.revents & POLLOUT) {
			if (pending == 0) {
				pending = MIN_OF(sizeof(chunk), len - sent);
				pattern_fill(chunk, pending, sent, 3);
				at = 0;
			}
			n = write(fd, chunk + at, pending);
			if (n > 0) {
				sent += (size_t)n;
				at += (size_t)n;
				pending -= (size_t)n;
				if (sent == len)
					shutdown(fd, SHUT_WR);
			}
		}
		if (p.revents & POLLIN) {
			n = read(fd, got, sizeof(got));
			assert_true(n > 0);
			for (ssize_t i = 0; i < n; i++) {
				if (got[i] != pattern_byte(seen + (size_t)i, 3))
					fail_msg("byte %llu", (unsigned long long)seen + (size_t)i);
			}
			seen += (size_t)n;
		}
	}
	p = (struct pollfd){ .fd = fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(fd, &b, 1), 0);
	close(fd);
	print_message("[ figure   ] echo: %llu MB/s each way\n",
		      (unsigned long long)(len * 1000ull / (now_mono_ns() - begin)));
	/* The slow one has lost nothing. */
	for (seen = 1; seen < 20000000;) {
		n = read(slow, got, sizeof(got));
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(got[i], pattern_byte(seen + (size_t)i, 7));
		seen += (size_t)n;
	}
	assert_int_equal(read(slow, &b, 1), 0);
	close(slow);
}

static void test_vsock_throughput(void **state)
{
	const size_t len = 100 << 20;
	static uint8_t chunk[256 * 1024];
	char line[64] = "";
	int fd;
	size_t seen;
	ssize_t n;
	uint64_t begin, ns;

	assert_int_equal(vmm_guest(&vm, NULL, 0, "listen 2002 drop"), 0);
	assert_int_equal(vmm_connect(&vm, 2002, &fd), 0);
	begin = now_mono_ns();
	for (size_t done = 0; done < len; done += sizeof(chunk))
		assert_int_equal(write_all(fd, chunk, sizeof(chunk)), 0);
	shutdown(fd, SHUT_WR);
	assert_true(read(fd, line, sizeof(line) - 1) > 0);
	assert_int_equal(strtoull(line, NULL, 10), len);
	ns = now_mono_ns() - begin;
	print_message("[ figure   ] host to guest: %llu MiB/s\n",
		      (unsigned long long)(len * 1000000000ull / ns >> 20));
	close(fd);
	assert_int_equal(vmm_guest(&vm, NULL, 0, "listen 2003 source %zu", len), 0);
	assert_int_equal(vmm_connect(&vm, 2003, &fd), 0);
	begin = now_mono_ns();
	seen = 0;
	while ((n = read(fd, chunk, sizeof(chunk))) > 0)
		seen += (size_t)n;
	assert_int_equal(seen, len);
	ns = now_mono_ns() - begin;
	print_message("[ figure   ] guest to host (pattern made by the guest): %llu MiB/s\n",
		      (unsigned long long)(len * 1000000000ull / ns >> 20));
	close(fd);
}

static void test_many_connections(void **state)
{
	int fds[200];
	char b;

	assert_int_equal(vmm_guest(&vm, NULL, 0, "listen 2004 echo"), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		assert_int_equal(vmm_connect(&vm, 2004, &fds[i]), 0);
		b = (char)i;
		assert_int_equal(write(fds[i], &b, 1), 1);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
		assert_int_equal(read(fds[i], &b, 1), 1);
		assert_int_equal(b, (char)i);
		close(fds[i]);
	}
}

/* ---- tests with a VM of their own ---- */

static bool gone(pid_t pid)
{
	for (int i = 0; i < 200; i++) {
		if (kill(pid, 0) < 0 && errno == ESRCH)
			return true;
		usleep(20000);
	}
	return false;
}

static void test_no_kernel(void **state)
{
	int fd;

	vmm_start(&vm, backend, "/nonexistent/vmlinux", initramfs);
	assert_int_equal(vmm_boot(&vm, 1, 256, "", false), ENOENT);
	assert_text(vm.message, "guest kernel /nonexistent/vmlinux");
	assert_int_equal(vmm_boot(&vm, 0, 256, "", false), EINVAL);
	assert_int_equal(vmm_boot(&vm, 1, 1, "", false), EINVAL);
	assert_int_equal(vmm_connect(&vm, 1, &fd), EPROTO);
	close(fd);
	assert_int_equal(vmm_stop(&vm), 0);
}

/* A file that is no kernel: KVM's loader says so at once, QEMU as it ends. */
static void test_bad_kernel(void **state)
{
	vmm_start(&vm, backend, initramfs, initramfs);
	if (str_eq(backend, "kvm")) {
		/* The VM is as before, so it is the same the second time. */
		for (int i = 0; i < 2; i++) {
			assert_int_equal(vmm_boot(&vm, 1, 256, "", false), ENOEXEC);
			assert_text(vm.message, "not an ELF file");
			assert_text(vm.message, initramfs);
		}
	} else {
		assert_int_equal(vmm_boot(&vm, 1, 256, "", false), 0);
		vmm_wait_ended(&vm, BOOT_SECONDS);
		assert_int_equal(vm.ended->reason, VMM__END_REASON__BACKEND_DIED);
		assert_text(vm.ended->message, "QEMU exited with status 1: ");
		assert_text(vm.ended->message, "kernel");
	}
	assert_int_equal(vmm_stop(&vm), 0);
}

static void test_reboot(void **state)
{
	char b;

	start_vm(state);
	assert_int_equal(send(vm.agent, "reboot\n", 7, 0), 7);
	vmm_wait_ended(&vm, 10);
	assert_int_equal(vm.ended->reason, VMM__END_REASON__REBOOT);
	assert_int_equal(read(vm.agent, &b, 1), 0); /* the channel ends with the VM */
	assert_int_equal(vmm_boot(&vm, 1, 256, "", false), EPROTO);
	stop_vm(state);
}

static void test_panic_and_console(void **state)
{
	char text[65536] = "";
	size_t n = 0;

	vmm_start(&vm, backend, kernel, initramfs);
	assert_int_equal(vmm_boot(&vm, 1, 256, "", true), 0);
	vmm_wait_connected(&vm, BOOT_SECONDS);
	assert_int_equal(send(vm.agent, "panic\n", 6, 0), 6);
	vmm_wait_ended(&vm, 10);
	assert_int_equal(vm.ended->reason, VMM__END_REASON__REBOOT);
	assert_int_equal(fd_set_nonblock(vm.console, true), 0);
	for (ssize_t r; n < sizeof(text) - 1; n += (size_t)r) {
		r = read(vm.console, text + n, sizeof(text) - 1 - n);
		if (r <= 0)
			break;
	}
	assert_text(text, "Kernel panic");
	stop_vm(state);
}

static void test_kill(void **state)
{
	Vmm__Request q = VMM__REQUEST__INIT;
	Vmm__Kill k = VMM__KILL__INIT;

	start_vm(state);
	q.request_case = VMM__REQUEST__REQUEST_KILL;
	q.kill = &k;
	assert_int_equal(vmm_call(&vm, &q, NULL, 0, NULL), 0);
	vmm_wait_ended(&vm, 10);
	assert_int_equal(vm.ended->reason, VMM__END_REASON__KILLED);
	stop_vm(state);
}

static void test_qemu_killed(void **state)
{
	pid_t qemu;

	if (!str_eq(backend, "qemu")) {
		print_message("skipped: backend %s has no QEMU\n", backend);
		skip();
	}
	start_vm(state);
	qemu = vmm_qemu_pid(&vm);
	assert_true(qemu > 1);
	assert_int_equal(kill(qemu, SIGKILL), 0);
	vmm_wait_ended(&vm, 10);
	assert_int_equal(vm.ended->reason, VMM__END_REASON__BACKEND_DIED);
	assert_text(vm.ended->message, "QEMU was killed by signal 9");
	stop_vm(state);
}

static void test_monitor_killed(void **state)
{
	char b;
	pid_t qemu;

	start_vm(state);
	qemu = vmm_qemu_pid(&vm);
	assert_int_equal(kill(vm.pid, SIGKILL), 0);
	assert_int_equal(read(vm.agent, &b, 1), 0);
	if (qemu > 0)
		assert_true(gone(qemu));
	assert_true(WIFSIGNALED(vmm_stop(&vm)));
}

static void test_client_gone(void **state)
{
	pid_t qemu;

	start_vm(state);
	qemu = vmm_qemu_pid(&vm);
	stop_vm(state);
	if (qemu > 0)
		assert_true(gone(qemu));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest shared[] = {
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_disk_throughput),
		cmocka_unit_test(test_one_guest_connection),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_relay),
		cmocka_unit_test(test_vsock_throughput),
		cmocka_unit_test(test_many_connections),
	};
	const struct CMUnitTest own[] = {
		cmocka_unit_test(test_no_kernel),      cmocka_unit_test(test_bad_kernel),
		cmocka_unit_test(test_reboot),	       cmocka_unit_test(test_panic_and_console),
		cmocka_unit_test(test_kill),	       cmocka_unit_test(test_qemu_killed),
		cmocka_unit_test(test_monitor_killed), cmocka_unit_test(test_client_gone),
	};
	cleanup_free char *k = NULL, *i = NULL;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (program_path(getenv("HUSK_KERNEL"), "../share/husk/vmlinux", &k, NULL) < 0 ||
	    program_path(getenv("VMM_GUEST"), "vmm_guest.cpio", &i, NULL) < 0)
		return 1;
	kernel = k;
	initramfs = i;
	backend = getenv("HUSK_BACKEND") ? getenv("HUSK_BACKEND") : "qemu";
	if (access(kernel, R_OK) < 0) {
		printf("skipped: no guest kernel %s (make kernel, or HUSK_KERNEL)\n", kernel);
		return 77;
	}
	failed = cmocka_run_group_tests_name("one guest", shared, start_vm, stop_vm);
	return failed + cmocka_run_group_tests_name("own guests", own, NULL, NULL);
}
