/*
 * The scenarios of test_agent_vm.c without a VM: the agent runs as PID 1 of namespaces on this
 * host, its disks are partitions of a loop device, vsock is AF_UNIX. For sanitizers and debuggers.
 * Needs root, loop devices, cgroup v2 and device rules (BPF) in the kernel; skipped, with the
 * reason, without.
 */
#include "test/lib/unit.h"
#include "test/lib/agent_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/proc/clone.h"
#include "agent/service.h"
#include "base/util.h"

static char dir[] = "/tmp/test_agent_host.XXXXXX";
static char stream_addr[64], loop_dev[32], cgroup_dir[100];

static int connect_stream(struct driver *d)
{
	struct err err = { 0 };
	int fd;

	assert_ok(unix_connect(stream_addr, &fd, &err), &err);
	return fd;
}

/* ---- the agent's side ---- */

static void power_off(void *arg)
{
	loop_stop(arg, 0);
}

static void on_lost(void *arg)
{
	struct agent *a = arg;

	if (!a->ending)
		loop_stop(a->loop, -ECONNRESET);
}

static int agent_main(int channel, int streams)
{
	static struct agent a;
	static struct ttrpc_service service;
	struct ttrpc_server *server;
	struct loop *l;
	struct err err = { 0 };
	cleanup_free char *run_dir = str_fmt("%s/run", dir);
	cleanup_free char *rootfs = str_fmt("%s/run/rootfs", dir);
	struct agent_config cfg = {
		.run_dir = run_dir,
		.cgroup_dir = cgroup_dir,
		.disk = loop_dev,
		.stream_listener = streams,
		.power_off = power_off,
	};
	int r;

	if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", 0, NULL) < 0 || mkdir(run_dir, 0700) < 0 ||
	    mkdir(rootfs, 0700) < 0)
		return 2;
	r = loop_new(&l, &err);
	cfg.arg = l;
	if (r == 0)
		r = agent_init(&a, l, &cfg, &err);
	if (r == 0) {
		agent_service(&a, &service);
		r = ttrpc_server_new(l, &service, 1, &server, &err);
	}
	if (r == 0) {
		ttrpc_server_on_disconnect(server, on_lost, &a);
		r = ttrpc_server_add(server, channel);
	}
	if (r < 0) {
		fprintf(stderr, "agent: %s\n", err_text(&err));
		return 2;
	}
	r = loop_run(l);
	agent_fini(&a);
	ttrpc_server_free(server);
	loop_free(l);
	return r < 0 ? 3 : 0;
}

/* ---- what a VM would have ---- */

static int copy_in(int out, const char *name, uint64_t first)
{
	char path[300];
	cleanup_free char *data = NULL;
	size_t len;

	image_path(path, sizeof(path), dir, name);
	if (read_file(path, DISK_SECTORS * 512, &data, &len, NULL) < 0)
		return -EIO;
	return pwrite(out, data, len, (off_t)(first * 512)) == (ssize_t)len ? 0 : -EIO;
}

/* One file with all disks, behind a loop device that knows partitions. */
static int attach_loop(void)
{
	cleanup_free char *path = str_fmt("%s/disk", dir);
	cleanup_fd int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	cleanup_fd int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config cfg = { .info.lo_flags = LO_FLAGS_PARTSCAN | LO_FLAGS_AUTOCLEAR };
	int n, fd;

	if (file < 0 || control < 0 ||
	    ftruncate(file, (off_t)DISK_SCRATCH(SCRATCHES + 8) * 512) < 0 ||
	    copy_in(file, "base", DISK_BASE) < 0 || copy_in(file, "top", DISK_TOP) < 0)
		return -EIO;
	for (int i = 0; i < SCRATCHES; i++)
		if (copy_in(file, "scratch", DISK_SCRATCH(i)) < 0)
			return -EIO;
	n = ioctl(control, LOOP_CTL_GET_FREE);
	if (n < 0)
		return -errno;
	snprintf(loop_dev, sizeof(loop_dev), "/dev/loop%d", n);
	fd = open(loop_dev, O_RDWR | O_CLOEXEC);
	cfg.fd = (uint32_t)file;
	if (fd < 0 || ioctl(fd, LOOP_CONFIGURE, &cfg) < 0)
		return -errno;
	return fd;
}

static bool find_cgroup(void)
{
	static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	struct statfs fs;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (statfs(places[i], &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
			continue;
		snprintf(cgroup_dir, sizeof(cgroup_dir), "%s/husk-test-%d", places[i],
			 (int)getpid());
		return mkdir(cgroup_dir, 0755) == 0;
	}
	return false;
}

static int skipped(const char *why)
{
	printf("skipped: %s\n", why);
	return 77;
}

static int wait_for(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int test_all(void)
{
	Agent__ShutdownRequest req = AGENT__SHUTDOWN_REQUEST__INIT;
	struct err err = { 0 };
	int sv[2], streams, failed, status, keep[2];
	const struct clone_job job = {
		.flags = CLONE_NEWPID, .cgroup = -1, .keep = keep, .n_keep = 2
	};
	pid_t pid;

	snprintf(stream_addr, sizeof(stream_addr), "%s/streams", dir);
	if (unix_listen(stream_addr, 0600, &streams, &err) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return 1;
	fflush(stdout);
	keep[0] = sv[1];
	keep[1] = streams;
	pid = clone_process(&job, NULL);
	if (pid < 0)
		return skipped("no pid namespace to be had");
	if (pid == 0) {
		signal(SIGPIPE, SIG_IGN);
		exit(agent_main(sv[1], streams));
	}
	close(sv[1]);
	close(streams);
	drv.connect = connect_stream;
	driver_init(&drv, sv[0]);
	failed = agent_scenarios("agent on this host");
	failed += agent_hostile("hostile containers on this host");
	if (!drv.lost)
		(void)drive_code(&drv, "Shutdown", &req);
	driver_fini(&drv);
	status = wait_for(pid);
	if (status != 0)
		printf("the agent ended with %d\n", status);
	return failed + status;
}

int main(void)
{
	cleanup_fd int loop = -1;
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (geteuid() != 0)
		return skipped("needs root");
	if (!find_cgroup())
		return skipped("needs a cgroup v2 hierarchy to make directories in");
	if (!mkdtemp(dir))
		return 1;
	if (images_make(dir) < 0)
		failed = skipped("busybox or mke2fs is missing");
	else if ((loop = attach_loop()) < 0)
		failed = skipped("no loop device to be had");
	else
		failed = test_all();
	(void)!remove_tree(dir, NULL);
	if (cgroup_remove(AT_FDCWD, cgroup_dir) < 0)
		printf("%s is left behind\n", cgroup_dir);
	return failed;
}
