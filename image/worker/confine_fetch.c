/*
 * The walls of the fetch process: it speaks TLS with anybody, so it is the one whose libraries a
 * stranger reaches first. What they need is listed; whatever else they try does not exist (ENOSYS,
 * which they take as an old kernel), and what none of them has a use for ends the process.
 */
#include "image/worker/confine.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/util.h"
#include "image/worker/confine_internal.h"

#define NSSWITCH "/etc/nsswitch.conf"
#define NSSWITCH_MAX (64 * KIB)

/* ---- before: what the resolver would load later, when nothing can be loaded any more ---- */

/* "files", "mdns4_minimal", "[NOTFOUND=return]": the last one is no module. One that is not there
 * is the resolver's business. It stays loaded. */
static void load_module(const char *name, size_t len)
{
	char file[64];

	if (!len || *name == '[' || len > 32 || memchr(name, '/', len))
		return;
	(void)snprintf(file, sizeof(file), "libnss_%.*s.so.2", (int)len, name);
	(void)!dlopen(file, RTLD_NOW);
}

void confine_fetch_prepare(void)
{
	cleanup_fd int fd = open(NSSWITCH, O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;
	char *line, *rest;

	if (fd < 0 || read_fd(fd, NSSWITCH_MAX, &text, NULL) < 0)
		return;
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		line[strcspn(line, "#")] = 0;
		line += strspn(line, " \t");
		if (!str_starts(line, "hosts:"))
			continue;
		for (line += strlen("hosts:"); *line;) {
			size_t len;

			line += strspn(line, " \t");
			len = strcspn(line, " \t");
			load_module(line, len);
			line += len;
		}
	}
}

/* ---- Landlock ---- */

/* Numbers of the kernel's interface, for headers that are older than the kernel. */
#define FS_READ_FILE (1ull << 2)
#define FS_READ_DIR (1ull << 3)
#define NET_BIND_TCP (1ull << 0)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ull << 0)
#define SCOPE_SIGNAL (1ull << 1)
#define RULE_PATH_BENEATH 1
#define CREATE_RULESET_VERSION 1u

struct ruleset {
	uint64_t fs, net, scoped;
};

struct __attribute__((packed)) path_beneath {
	uint64_t allowed;
	int32_t parent;
};

int confine_landlock_abi(void)
{
	long r = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);

	return r < 0 ? 0 : (int)r;
}

/* All that this version knows; bits that it does not know are refused. */
static struct ruleset ruleset_of(int abi, size_t *ret_size)
{
	/* 13 kinds of access at first; then REFER, TRUNCATE, IOCTL_DEV. */
	struct ruleset a = { .fs = (1ull << 13) - 1 };

	*ret_size = sizeof(a.fs);
	if (abi >= 2)
		a.fs |= 1ull << 13;
	if (abi >= 3)
		a.fs |= 1ull << 14;
	if (abi >= 4) {
		a.net = NET_BIND_TCP;
		*ret_size = sizeof(a.fs) + sizeof(a.net);
	}
	if (abi >= 5)
		a.fs |= 1ull << 15;
	if (abi >= 6) {
		a.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
		*ret_size = sizeof(a);
	}
	return a;
}

static int landlock_allow(int ruleset, const char *path)
{
	cleanup_fd int fd = open(path, O_PATH | O_CLOEXEC);
	struct path_beneath a = { .allowed = FS_READ_FILE | FS_READ_DIR, .parent = fd };

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	return syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &a, 0) < 0 ? -errno : 0;
}

static int restrict_files(struct err *err)
{
	static const char *const paths[] = { "/etc",
					     "/usr",
					     "/lib",
					     "/lib64",
					     "/run/systemd/resolve",
					     "/run/resolvconf",
					     "/run/NetworkManager" };
	int abi = confine_landlock_abi();
	size_t size;
	struct ruleset a = ruleset_of(abi, &size);
	cleanup_fd int fd = -1;

	if (!abi) /* user, system calls and limits remain; `husk check` tells */
		return 0;
	fd = (int)syscall(SYS_landlock_create_ruleset, &a, size, 0);
	if (fd < 0)
		return err_errno(err, -errno, "Landlock");
	for (size_t k = 0; k < ARRAY_SIZE(paths); k++) {
		int r = landlock_allow(fd, paths[k]);

		if (r < 0)
			return err_errno(err, r, "Landlock rule for %s", paths[k]);
	}
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_errno(err, -errno, "Landlock");
	return 0;
}

/* ---- system calls ---- */

/* Beside the basic ones: waiting, sockets that are open, looking at files, being a thread. */
static const int fetch_calls[] = {
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(select),
	SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(eventfd2),
	SCMP_SYS(pipe2),
	SCMP_SYS(connect),
	SCMP_SYS(sendto),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg),
	SCMP_SYS(getsockopt),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	SCMP_SYS(shutdown),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(sync_file_range),
	SCMP_SYS(fadvise64),
	SCMP_SYS(access),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(stat),
	SCMP_SYS(lstat),
	SCMP_SYS(statx),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(getdents64),
	SCMP_SYS(uname),
	SCMP_SYS(gettid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(nanosleep),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(clock_getres),
};

/* No library of ours has a use for these: whoever calls one is not the program that we started. */
static const int killing_calls[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(fork),
	SCMP_SYS(vfork),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(kill),
	SCMP_SYS(tkill),
	SCMP_SYS(rt_sigqueueinfo),
	SCMP_SYS(rt_tgsigqueueinfo),
	SCMP_SYS(pidfd_open),
	SCMP_SYS(pidfd_getfd),
	SCMP_SYS(pidfd_send_signal),
	SCMP_SYS(mount),
	SCMP_SYS(umount2),
	SCMP_SYS(pivot_root),
	SCMP_SYS(chroot),
	SCMP_SYS(unshare),
	SCMP_SYS(setns),
	SCMP_SYS(open_tree),
	SCMP_SYS(move_mount),
	SCMP_SYS(fsopen),
	SCMP_SYS(fsconfig),
	SCMP_SYS(fsmount),
	SCMP_SYS(fspick),
	SCMP_SYS(mount_setattr),
	SCMP_SYS(bpf),
	SCMP_SYS(perf_event_open),
	SCMP_SYS(userfaultfd),
	SCMP_SYS(io_uring_setup),
	SCMP_SYS(keyctl),
	SCMP_SYS(add_key),
	SCMP_SYS(request_key),
	SCMP_SYS(init_module),
	SCMP_SYS(finit_module),
	SCMP_SYS(kexec_load),
	SCMP_SYS(open_by_handle_at),
};

#define ALLOW(call, n, ...)                                                                        \
	do {                                                                                       \
		int rule_r =                                                                       \
			seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(call), n, __VA_ARGS__);     \
		if (rule_r < 0)                                                                    \
			return rule_r;                                                             \
	} while (0)

/* TCP and UDP, and a pair of connected ones for libcurl to wake itself. Any other family is one
 * that this machine does not have. */
static int allow_sockets(scmp_filter_ctx ctx)
{
	static const struct {
		unsigned type, protocol;
	} kinds[] = { { SOCK_STREAM, 0 },
		      { SOCK_STREAM, IPPROTO_TCP },
		      { SOCK_DGRAM, 0 },
		      { SOCK_DGRAM, IPPROTO_UDP } };
	static const unsigned families[] = { AF_INET, AF_INET6 };
	const uint64_t type_bits = ~(uint64_t)(SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r = 0;

	ALLOW(socketpair, 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
			ALLOW(socket, 3, SCMP_A0(SCMP_CMP_EQ, families[f]),
			      SCMP_A1(SCMP_CMP_MASKED_EQ, type_bits, kinds[k].type),
			      SCMP_A2(SCMP_CMP_EQ, kinds[k].protocol));
	for (unsigned f = 0; f < AF_INET6 && r == 0; f++)
		if (f != AF_INET)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
					     SCMP_A0(SCMP_CMP_EQ, f));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
				     SCMP_A0(SCMP_CMP_GT, AF_INET6));
	return r;
}

/* What libcurl and the resolver set. TCP_ULP and its like reach far more of the kernel. */
static int allow_socket_options(scmp_filter_ctx ctx)
{
	static const int tcp[] = { TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT };

	ALLOW(setsockopt, 1, SCMP_A1(SCMP_CMP_EQ, SOL_SOCKET));
	for (size_t k = 0; k < ARRAY_SIZE(tcp); k++)
		ALLOW(setsockopt, 2, SCMP_A1(SCMP_CMP_EQ, IPPROTO_TCP),
		      SCMP_A2(SCMP_CMP_EQ, (scmp_datum_t)tcp[k]));
	ALLOW(setsockopt, 2, SCMP_A1(SCMP_CMP_EQ, IPPROTO_IP), SCMP_A2(SCMP_CMP_EQ, IP_RECVERR));
	ALLOW(setsockopt, 2, SCMP_A1(SCMP_CMP_EQ, IPPROTO_IPV6),
	      SCMP_A2(SCMP_CMP_EQ, IPV6_RECVERR));
	return 0;
}

/* Reading only, also where there is no Landlock. */
static int allow_files(scmp_filter_ctx ctx)
{
	const uint64_t bits =
		~(uint64_t)(O_CLOEXEC | O_NONBLOCK | O_LARGEFILE | O_NOFOLLOW | O_DIRECTORY);
	static const int fcntls[] = {
		F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD, F_DUPFD_CLOEXEC
	};

	ALLOW(open, 1, SCMP_A1(SCMP_CMP_MASKED_EQ, bits, O_RDONLY));
	ALLOW(openat, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, bits, O_RDONLY));
	for (size_t k = 0; k < ARRAY_SIZE(fcntls); k++)
		ALLOW(fcntl, 1, SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)fcntls[k]));
	ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_EQ, FIONBIO));
	ALLOW(ioctl, 1, SCMP_A1(SCMP_CMP_EQ, FIONREAD));
	return 0;
}

/* Threads of this process, in its namespaces. clone3 hides its flags from a filter: libc goes back
 * to clone when it is not there. */
static int allow_threads(scmp_filter_ctx ctx)
{
	const uint64_t must = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
	const uint64_t never = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
			       CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE;

	ALLOW(clone, 1, SCMP_A0(SCMP_CMP_MASKED_EQ, must | never, must));
	ALLOW(prlimit64, 2, SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0)); /* only asks */
	return 0;
}

int confine_fetch(struct err *err)
{
	scmp_filter_ctx ctx;
	int r = CONFINE_SANITIZED ? 0 : restrict_files(err);

	if (r < 0)
		return r;
	ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	if (!ctx)
		return err_nomem(err);
	r = confine_allow_basics(ctx);
	if (r == 0)
		r = confine_add_all(ctx, SCMP_ACT_ALLOW, fetch_calls, ARRAY_SIZE(fetch_calls));
	if (r == 0)
		r = confine_add_all(ctx, SCMP_ACT_KILL_PROCESS, killing_calls,
				    ARRAY_SIZE(killing_calls));
	if (r == 0)
		r = allow_sockets(ctx);
	if (r == 0)
		r = allow_socket_options(ctx);
	if (r == 0)
		r = allow_files(ctx);
	if (r == 0)
		r = allow_threads(ctx);
	return confine_load(ctx, r, err);
}
