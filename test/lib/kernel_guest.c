/*
 * Guest of test_kernel: PID 1 that asks the kernel for what a pod relies on, and for what must not
 * be there. One line of the kernel's log for each thing that is wrong, then "kernel: N checks, M
 * wrong".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define IPT_SO_GET_INFO 64 /* linux/netfilter_ipv4/ip_tables.h wants macros of its own */
#define TABLE_INFO_SIZE 84

static unsigned n_checks, n_wrong;

static void check(bool ok, const char *what, const char *name)
{
	n_checks++;
	if (ok)
		return;
	n_wrong++;
	printf("wrong: %s %s (%s)\n", what, name, strerror(errno));
}

static bool has_word(const char *path, const char *word)
{
	char text[8192], *s, *save = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n < 0)
		return false;
	text[n] = '\0';
	for (s = strtok_r(text, " \t\n", &save); s; s = strtok_r(NULL, " \t\n", &save))
		if (strcmp(s, word) == 0)
			return true;
	errno = ENOENT;
	return false;
}

static void check_mounts(void)
{
	static const struct {
		const char *type, *at, *options;
	} mounts[] = {
		{ "proc", "/proc", NULL },
		{ "sysfs", "/sys", NULL },
		{ "devtmpfs", "/dev", NULL },
		{ "devpts", "/dev/pts", "newinstance,ptmxmode=666,mode=620,gid=5" },
		{ "tmpfs", "/dev/shm", "size=64m,mode=1777" },
		{ "mqueue", "/dev/mqueue", NULL },
		{ "hugetlbfs", "/dev/hugepages", NULL },
		{ "cgroup2", "/sys/fs/cgroup", "nsdelegate" },
		{ "bpf", "/sys/fs/bpf", NULL },
		{ "binfmt_misc", "/proc/sys/fs/binfmt_misc", NULL },
		{ "tmpfs", "/t", NULL },
	};
	static const char *const types[] = { "ext4", "erofs", "overlay", "fuse", "virtiofs" };
	static const char *const controllers[] = { "cpuset",  "cpu",  "io",  "memory",
						   "hugetlb", "pids", "misc" };

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].at, 0755);
		check(mount(mounts[i].type, mounts[i].at, mounts[i].type, 0, mounts[i].options) ==
			      0,
		      "mount", mounts[i].at);
	}
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		check(has_word("/proc/filesystems", types[i]), "file system", types[i]);
	for (size_t i = 0; i < sizeof(controllers) / sizeof(controllers[0]); i++)
		check(has_word("/sys/fs/cgroup/cgroup.controllers", controllers[i]), "controller",
		      controllers[i]);

	mkdir("/t/lower", 0755);
	mkdir("/t/upper", 0755);
	mkdir("/t/work", 0755);
	mkdir("/t/merged", 0755);
	check(mount("overlay", "/t/merged", "overlay", 0,
		    "lowerdir=/t/lower,upperdir=/t/upper,workdir=/t/work") == 0,
	      "mount", "overlay");
	check(setxattr("/t/lower", "user.x", "1", 1, 0) == 0 || errno == EOPNOTSUPP, "xattr",
	      "user");
	check(setxattr("/t/lower", "trusted.x", "1", 1, 0) == 0, "xattr", "trusted");
	check(setxattr("/t/lower", "security.x", "1", 1, 0) == 0, "xattr", "security");
	check(access("/proc/pressure/cpu", F_OK) < 0, "off by default:", "PSI");
}

static void check_namespaces(void)
{
	static const struct {
		int flag;
		const char *name;
	} ns[] = {
		{ CLONE_NEWNS, "mount" }, { CLONE_NEWUTS, "uts" },	 { CLONE_NEWIPC, "ipc" },
		{ CLONE_NEWPID, "pid" },  { CLONE_NEWUSER, "user" },	 { CLONE_NEWNET, "net" },
		{ 0x80, "time" },	  { CLONE_NEWCGROUP, "cgroup" },
	};
	for (size_t i = 0; i < sizeof(ns) / sizeof(ns[0]); i++) {
		pid_t pid = fork();
		int status = -1;
		if (pid == 0)
			_exit(unshare(ns[i].flag) == 0 ? 0 : errno);
		waitpid(pid, &status, 0);
		errno = WEXITSTATUS(status);
		check(status == 0, "namespace", ns[i].name);
	}
}

static void check_fd(long fd, const char *name)
{
	check(fd >= 0, "call", name);
	if (fd >= 0)
		close((int)fd);
}

static void check_calls(void)
{
	char uring[512] = { 0 };
	unsigned int action = SECCOMP_RET_USER_NOTIF;
	static const struct bpf_insn allow[] = {
		{ .code = 0xb7, .dst_reg = 0, .imm = 1 }, /* r0 = 1 */
		{ .code = 0x95 },			  /* exit */
	};
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE };
	struct perf_event_attr pe = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(pe) };

	attr.insn_cnt = 2;
	attr.insns = (unsigned long)allow;
	attr.license = (unsigned long)"Apache-2.0";
	check_fd(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)), "bpf (device rules)");
	check(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0, "call", "seccomp");
	check_fd(syscall(SYS_io_uring_setup, 4, uring), "io_uring_setup");
	check_fd(syscall(SYS_perf_event_open, &pe, 0, -1, -1, 0), "perf_event_open");
	check_fd(syscall(SYS_memfd_create, "x", 0), "memfd_create");
	check_fd(syscall(SYS_userfaultfd, 0), "userfaultfd");
	check_fd(syscall(SYS_pidfd_open, 1, 0), "pidfd_open");
	check_fd(syscall(SYS_fanotify_init, 0, 0), "fanotify_init");
	check_fd(syscall(SYS_inotify_init1, 0), "inotify_init1");
	check_fd(syscall(SYS_timerfd_create, 0, 0), "timerfd_create");
	check_fd(syscall(SYS_eventfd2, 0, 0), "eventfd2");
	check_fd(syscall(SYS_epoll_create1, 0), "epoll_create1");
	check(syscall(SYS_keyctl, 0, -3, 1) >= 0, "call", "keyctl");
	check(syscall(SYS_shmget, 0, 4096, 0600) >= 0, "call", "shmget");
	check(syscall(SYS_membarrier, 0, 0, 0) > 0, "call", "membarrier");
	check(syscall(SYS_kcmp, 1, 1, 0, 0, 0) == 0, "call", "kcmp");
	/* What nobody in a pod may have. */
	check(syscall(SYS_init_module, NULL, 0, "") < 0 && errno == ENOSYS, "out:", "init_module");
	check(syscall(SYS_kexec_load, 0, 0, NULL, 0) < 0 && errno == ENOSYS, "out:", "kexec_load");
	check(access("/dev/mem", F_OK) < 0, "out:", "/dev/mem");
	check(access("/proc/kcore", F_OK) < 0, "out:", "/proc/kcore");
#ifdef __x86_64__
	check(syscall(SYS_ioperm, 0x80, 1, 1) < 0, "out:", "ioperm");
	check(has_word("/proc/sys/abi/vsyscall32", "1"), "32-bit programs:", "vsyscall32");
#endif
	check(!has_word("/proc/sys/kernel/unprivileged_bpf_disabled", "0"),
	      "off:", "unprivileged bpf");
	check(access("/proc/config.gz", F_OK) == 0, "file", "/proc/config.gz");
}

/* RTM_NEWLINK of this kind; the kernel's answer as errno. */
static int new_link(int nl, const char *kind)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
		char data[64];
	} q = { .h = { .nlmsg_type = RTM_NEWLINK,
		       .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK } };
	struct rtattr *info = (void *)q.data, *k = (void *)(q.data + sizeof(*info));
	size_t len = strlen(kind);
	char answer[4096];

	*k = (struct rtattr){ .rta_type = IFLA_INFO_KIND,
			      .rta_len = (unsigned short)RTA_LENGTH(len) };
	memcpy(RTA_DATA(k), kind, len);
	*info = (struct rtattr){ .rta_type = IFLA_LINKINFO,
				 .rta_len = (unsigned short)RTA_LENGTH(RTA_ALIGN(k->rta_len)) };
	q.h.nlmsg_len = (unsigned int)(NLMSG_LENGTH(sizeof(q.i)) + RTA_ALIGN(info->rta_len));
	if (send(nl, &q, q.h.nlmsg_len, 0) < 0 || recv(nl, answer, sizeof(answer), 0) < 0)
		return errno;
	const struct nlmsghdr *h = (const void *)answer;
	return h->nlmsg_type == NLMSG_ERROR ? -((const struct nlmsgerr *)NLMSG_DATA(h))->error
					    : EPROTO;
}

static void check_network(void)
{
	static const struct {
		int family, type, protocol;
		const char *name;
	} sockets[] = {
		{ AF_INET, SOCK_STREAM, 0, "tcp" },
		{ AF_INET, SOCK_DGRAM, 0, "udp" },
		{ AF_INET6, SOCK_STREAM, 0, "tcp6" },
		{ AF_INET, SOCK_RAW, IPPROTO_ICMP, "raw" },
		{ AF_UNIX, SOCK_SEQPACKET, 0, "unix" },
		{ AF_PACKET, SOCK_RAW, 0, "packet" },
		{ AF_VSOCK, SOCK_STREAM, 0, "vsock" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, "route" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER, "netfilter" },
		{ AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, "diag" },
	};
	static const char *const kinds[] = { "bridge", "veth",	"vlan",	    "macvlan",
					     "ipvlan", "vxlan", "wireguard" };
	static const char *const tables[] = { "filter", "nat", "mangle", "raw" };

	for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++) {
		int fd = socket(sockets[i].family, sockets[i].type, sockets[i].protocol);
		check(fd >= 0, "socket", sockets[i].name);
		close(fd);
	}
	check(has_word("/proc/net/dev", "lo:"), "interface", "lo");
	check(!has_word("/proc/net/dev", "dummy0:"), "no interface", "dummy0");
	check(!has_word("/proc/net/dev", "sit0:"), "no interface", "sit0");
	check(access("/dev/net/tun", F_OK) == 0, "device", "/dev/net/tun");
	int nl = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		/* Some want more attributes, and say so; an unknown kind is EOPNOTSUPP. */
		errno = new_link(nl, kinds[i]);
		check(errno != EOPNOTSUPP, "link", kinds[i]);
	}
	close(nl);
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		for (int v6 = 0; v6 < 2; v6++) {
			char info[TABLE_INFO_SIZE] = { 0 };
			socklen_t len = sizeof(info);
			int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW, IPPROTO_RAW);
			strncpy(info, tables[i], 31);
			check(getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, IPT_SO_GET_INFO, info,
					 &len) == 0,
			      v6 ? "ip6tables" : "iptables", tables[i]);
			close(fd);
		}
	}
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0); /* each write is a record of the log */
	check_mounts();
	check_namespaces();
	check_calls();
	check_network();
	printf("kernel: %u checks, %u wrong\n", n_checks, n_wrong);
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	return 1;
}
