#include "agent/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/proc/sysctl.h"
#include "agent/rootfs/mnt.h"
#include "base/log.h"
#include "base/util.h"

/* The default of fs.nr_open; three streams for each process of each container. */
#define NOFILE_MAX 1048576
#define SIGPENDING_MAX 127000 /* of a node with 32 GiB */

static const struct {
	const char *fstype, *path, *data;
	unsigned long flags;
} file_systems[] = {
	{ "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "devtmpfs", "/dev", "mode=0755", MS_NOSUID | MS_NOEXEC },
	{ "cgroup2", BOOT_CGROUP_DIR, "nsdelegate,memory_recursiveprot",
	  MS_NOSUID | MS_NODEV | MS_NOEXEC },
	/* Only mount points: what containers can write to has its own file systems. */
	{ "tmpfs", BOOT_RUN_DIR, "mode=0700,size=1m", MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

/* The initramfs itself cannot be pivoted away from, a mount on top of it can: a copy of it. */
static int cover_root(void)
{
	cleanup_fd int root = -1;
	int r = mnt_clone(AT_FDCWD, "/", false, &root);

	if (r == 0)
		r = mnt_attach_path(root, "/");
	if (r == 0 && (fchdir(root) < 0 || chroot(".") < 0))
		r = -errno;
	return r;
}

static int lo_up(void)
{
	cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		return -errno;
	return 0;
}

int boot_run_dir(const char *run_dir, struct err *err)
{
	cleanup_free char *rootfs = str_fmt("%s/rootfs", run_dir);

	/* Where each container's own mount namespace has its root until it moves in. */
	if (!rootfs)
		return err_nomem(err);
	if (mkdir(rootfs, 0700) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "%s", rootfs);
	return 0;
}

int boot_set_up(struct err *err)
{
	const struct rlimit nofile = { NOFILE_MAX, NOFILE_MAX };
	/* The kernel's come from its memory: a pod of 256 MiB had 940 processes for each user. */
	const struct rlimit nproc = { RLIM_INFINITY, RLIM_INFINITY };
	const struct rlimit signals = { SIGPENDING_MAX, SIGPENDING_MAX };
	int r = cover_root();

	if (r < 0)
		return err_errno(err, r, "cover the initramfs");
	for (size_t i = 0; i < ARRAY_SIZE(file_systems); i++) {
		const char *path = file_systems[i].path;

		/* Made where missing: only our own initramfs is below. */
		(void)mkdir(path, 0755);
		if (mount(file_systems[i].fstype, path, file_systems[i].fstype,
			  file_systems[i].flags, file_systems[i].data) < 0)
			return err_errno(err, -errno, "mount %s", path);
	}
	r = lo_up();
	if (r < 0)
		return err_errno(err, r, "lo");
	if (setrlimit(RLIMIT_NOFILE, &nofile) < 0)
		return err_errno(err, -errno, "RLIMIT_NOFILE");
	if (setrlimit(RLIMIT_NPROC, &nproc) < 0 || setrlimit(RLIMIT_SIGPENDING, &signals) < 0)
		return err_errno(err, -errno, "RLIMIT_NPROC, RLIMIT_SIGPENDING");
	/* A container that gets hold of /vminitd or of any other file of ours (its first process
	 * was ours before exec) finds it read-only: the file system, not only this mount of
	 * it. */
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
		return err_errno(err, -errno, "make the initramfs read-only");
	return boot_run_dir(BOOT_RUN_DIR, err);
}

int boot_set_defaults(struct err *err)
{
	static const struct {
		const char *name, *value;
	} defaults[] = {
		{ "fs.file-max", "9223372036854775807" },
		{ "fs.inotify.max_user_instances", "8192" },
		{ "fs.inotify.max_user_watches", "1048576" },
		{ "fs.epoll.max_user_watches", "4194304" },
		{ "kernel.pid_max", "4194304" },
		{ "kernel.threads-max", "4194304" },
		{ "vm.max_map_count", "1048576" },
		{ "vm.overcommit_memory", "1" },
		/* What waits to be written has to fit into what the host keeps free for it. */
		{ "vm.dirty_bytes", "33554432" },
		{ "vm.dirty_background_bytes", "8388608" },
		{ "net.ipv4.ip_unprivileged_port_start", "0" },
		{ "net.ipv4.ping_group_range", "0 2147483647" },
		{ "net.ipv4.tcp_rmem", "4096 131072 6291456" },
		{ "net.ipv4.tcp_wmem", "4096 16384 4194304" },
		{ "net.ipv4.tcp_max_tw_buckets", "262144" },
		{ "net.ipv4.tcp_max_syn_backlog", "4096" },
		{ "net.netfilter.nf_conntrack_max", "262144" },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(defaults); i++) {
		r = sysctl_write(defaults[i].name, defaults[i].value, err);
		/* Somebody's own kernel (--kernel) may do without: a default is no demand. */
		if (r == -EINVAL) {
			log_warn("default not set", "err", err_text(err));
			r = 0;
		}
	}
	return r;
}

void boot_power_off(void)
{
#if defined(__x86_64__)
	/* There is no ACPI: a reset (triple fault) is how this machine ends. */
	(void)reboot(RB_AUTOBOOT);
#endif
	(void)reboot(RB_POWER_OFF);
	_exit(1); /* PID 1 ends: the kernel panics, and the machine with it */
}
