/*
 * The agent where it belongs: PID 1 of a guest, under husk-vmm. Needs a kernel (HUSK_KERNEL, or
 * share/husk/vmlinux of the build), busybox and mke2fs; skipped without. HUSK_BACKEND: qemu.
 */
#include "test/lib/unit.h"
#include "test/lib/agent_driver.h"
#include "test/unit/agent/hung_disk.h"
#include "test/lib/vmm_client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/process.h"
#include "base/util.h"

#define BOOT_SECONDS 60

static struct vmm_client vm;

static int connect_stream(struct driver *d)
{
	int fd;

	assert_int_equal(vmm_connect(&vm, 1025, &fd), 0);
	return fd;
}

static void map(const char *dir, const char *name, uint64_t first, bool readonly)
{
	char path[300];
	int fd;

	image_path(path, sizeof(path), dir, name);
	fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(vmm_map(&vm, first, DISK_SECTORS, fd, readonly), 0);
	close(fd);
}

static void copy(const char *dir, const char *name, const char *to_dir, const char *to_name)
{
	cleanup_fd int in = -1, out = -1;
	char from[300], to[300];

	image_path(from, sizeof(from), dir, name);
	image_path(to, sizeof(to), to_dir, to_name);
	in = open(from, O_RDONLY | O_CLOEXEC);
	out = open(to, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(in >= 0 && out >= 0);
	assert_true(sendfile(out, in, NULL, DISK_SECTORS * 512) > 0);
}

static void map_hung(const char *dir)
{
	cleanup_free char *hung = str_fmt("%s/hung", dir);

	copy(dir, "scratch", hung, "scratch");
	map(hung, "scratch", DISK_HUNG, false);
	drv.hang = hung_disk_hang;
}

static void map_all(const char *dir)
{
	map(dir, "base", DISK_BASE, true);
	map(dir, "top", DISK_TOP, true);
	for (int i = 0; i < MORE_DISKS; i++)
		map(dir, "base", DISK_MORE(i), true);
	for (int i = 0; i < SCRATCHES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "scratch%d", i);
		copy(dir, "scratch", dir, name);
		map(dir, name, DISK_SCRATCH(i), false);
	}
}

static int test_all(const char *kernel, const char *initramfs, const char *backend, char *dir)
{
	Agent__ShutdownRequest req = AGENT__SHUTDOWN_REQUEST__INIT;
	bool hangs = hung_disk_make(dir) == 0;
	int failed;

	vmm_start(&vm, backend, kernel, initramfs);
	map_all(dir);
	if (hangs)
		map_hung(dir);
	if (vmm_boot(&vm, 1, 512, "", false) != 0)
		return 1;
	vmm_wait_connected(&vm, BOOT_SECONDS);
	printf("[ figure   ] boot request to agent connected: %llu ms\n",
	       (unsigned long long)((vm.times.agent_ready_ns - vm.times.boot_ns) / 1000000));
	drv.connect = connect_stream;
	drv.in_vm = true;
	driver_init(&drv, vm.agent);
	vm.agent = -1;
	failed = agent_scenarios("agent in a VM");
	failed += agent_guest("the guest");
	failed += agent_hostile("hostile containers in a VM");
	if (drive_code(&drv, "Shutdown", &req) < 0 && !drv.lost) {
		printf("shutdown: %s\n", err_text(&drv.err));
		failed++;
	}
	vmm_wait_ended(&vm, BOOT_SECONDS);
	driver_fini(&drv);
	return failed + vmm_stop(&vm);
}

int main(int argc, char **argv)
{
	cleanup_free char *kernel = NULL, *initramfs = NULL;
	char dir[] = "/tmp/test_agent_vm.XXXXXX";
	const char *backend;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (program_path(getenv("HUSK_KERNEL"), "../share/husk/vmlinux", &kernel, NULL) < 0 ||
	    program_path(getenv("HUSK_INITRAMFS"), "../share/husk/initramfs.cpio", &initramfs,
			 NULL) < 0)
		return 1;
	backend = getenv("HUSK_BACKEND") ? getenv("HUSK_BACKEND") : "qemu";
	if (access(kernel, R_OK) < 0) {
		printf("skipped: no guest kernel %s (make kernel, or HUSK_KERNEL)\n", kernel);
		return 77;
	}
	if (!mkdtemp(dir))
		return 1;
	if (images_make(dir) < 0) {
		printf("skipped: busybox or mke2fs is missing\n");
		(void)!remove_tree(dir, NULL);
		return 77;
	}
	failed = test_all(kernel, initramfs, backend, dir);
	hung_disk_free();
	(void)!remove_tree(dir, NULL);
	return failed;
}
