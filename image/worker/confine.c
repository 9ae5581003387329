#include "image/worker/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/util.h"

#define NOBODY 65534

/* Sanitizers need system calls and memory that the filters and limits refuse. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static int limit(__rlimit_resource_t resource, uint64_t value, const char *name, struct err *err)
{
	struct rlimit l;

	if (getrlimit(resource, &l) < 0)
		return err_errno(err, -errno, "limit %s", name);
	if (l.rlim_max != RLIM_INFINITY && l.rlim_max < value)
		value = l.rlim_max;
	l.rlim_cur = l.rlim_max = value;
	if (setrlimit(resource, &l) < 0)
		return err_errno(err, -errno, "limit %s", name);
	return 0;
}

static int become_nobody(struct err *err)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	    setresuid(NOBODY, NOBODY, NOBODY) < 0)
		return err_errno(err, -errno, "become nobody");
	return 0;
}

int confine_common(const struct confine_limits *l, struct err *err)
{
	pid_t parent = getppid();
	int r = limit(RLIMIT_CORE, 0, "core", err);

	/* A write beyond a limit or to a closed pipe fails, instead of killing the process. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (r == 0 && !SANITIZED)
		r = limit(RLIMIT_AS, l->memory, "memory", err);
	if (r == 0 && !SANITIZED && l->data)
		r = limit(RLIMIT_DATA, l->data, "memory", err);
	if (r == 0)
		r = limit(RLIMIT_FSIZE, l->file, "file size", err);
	if (r == 0)
		r = limit(RLIMIT_CPU, l->cpu_s, "CPU time", err);
	if (r == 0)
		r = become_nobody(err);
	if (r < 0)
		return r;
	/* After the change of user, which resets PDEATHSIG. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0) < 0)
		return err_errno(err, -errno, "give up privileges");
	if (getppid() != parent)
		return err_set(err, -ESRCH, "the parent has died");
	return 0;
}

static int load(scmp_filter_ctx ctx, int r, struct err *err)
{
	if (r == 0 && !SANITIZED)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r < 0 ? err_errno(err, r, "install the system call filter") : 0;
}

static int add_all(scmp_filter_ctx ctx, uint32_t action, const int *calls, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		int r = seccomp_rule_add(ctx, action, calls[k], 0);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Memory (mmap and mprotect: see allow_data), descriptors that are open, exit. */
static const int basic_calls[] = {
	SCMP_SYS(read),		 SCMP_SYS(write),
	SCMP_SYS(close),	 SCMP_SYS(brk),
	SCMP_SYS(munmap),	 SCMP_SYS(mremap),
	SCMP_SYS(madvise),	 SCMP_SYS(futex),
	SCMP_SYS(exit),		 SCMP_SYS(exit_group),
	SCMP_SYS(getrandom),	 SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),	 SCMP_SYS(lseek),
	SCMP_SYS(getpid),	 SCMP_SYS(getrusage),
	SCMP_SYS(clock_gettime), SCMP_SYS(restart_syscall),
	SCMP_SYS(readv),	 SCMP_SYS(writev),
	SCMP_SYS(rt_sigreturn),	 SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(sched_yield),	 SCMP_SYS(sysinfo) /* qsort asks for the size of memory */,
};

static const int decode_calls[] = { SCMP_SYS(wait4), SCMP_SYS(waitid) };

static const int build_calls[] = {
	SCMP_SYS(pread64),	   SCMP_SYS(pwrite64),	SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
	SCMP_SYS(sync_file_range), SCMP_SYS(fdatasync), SCMP_SYS(fsync),
};

/* A library that looks for a file at an odd moment finds none. Any other call kills the process. */
static const int refused_calls[] = { SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(access),
				     SCMP_SYS(readlink) };

static const int archive_calls[] = { SCMP_SYS(recvmsg), SCMP_SYS(pread64), SCMP_SYS(ftruncate),
				     SCMP_SYS(fcntl) };

static int allow_data(scmp_filter_ctx ctx)
{
	static const int calls[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect) };

	for (size_t k = 0; k < ARRAY_SIZE(calls); k++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[k], 1,
					 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

		if (r < 0)
			return r;
	}
	return 0;
}

static int allow_only(const int *more, size_t n, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return err_nomem(err);
	r = add_all(ctx, SCMP_ACT_ALLOW, basic_calls, ARRAY_SIZE(basic_calls));
	if (r == 0)
		r = allow_data(ctx);
	if (r == 0)
		r = add_all(ctx, SCMP_ACT_ALLOW, more, n);
	if (r == 0)
		r = add_all(ctx, SCMP_ACT_ERRNO(ENOENT), refused_calls, ARRAY_SIZE(refused_calls));
	return load(ctx, r, err);
}

int confine_decode(struct err *err)
{
	return allow_only(decode_calls, ARRAY_SIZE(decode_calls), err);
}

int confine_build(struct err *err)
{
	return allow_only(build_calls, ARRAY_SIZE(build_calls), err);
}

int confine_archive(struct err *err)
{
	return allow_only(archive_calls, ARRAY_SIZE(archive_calls), err);
}

/* ---- fetch ---- */

static int landlock_allow(int ruleset, const char *path)
{
	cleanup_fd int fd = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr a = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
		.parent_fd = fd,
	};

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &a, 0) < 0
		       ? -errno
		       : 0;
}

static int restrict_files(struct err *err)
{
	static const char *const paths[] = {
		"/etc", "/usr", "/lib", "/lib64", "/run/systemd/resolve", "/run/resolvconf"
	};
	struct landlock_ruleset_attr a = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
				     LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
				     LANDLOCK_ACCESS_FS_REMOVE_DIR |
				     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
				     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
				     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
				     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM
	};
	cleanup_fd int fd = (int)syscall(SYS_landlock_create_ruleset, &a, sizeof(a), 0);

	if (fd < 0) /* this kernel has no Landlock; user and limits remain */
		return errno == ENOSYS || errno == EOPNOTSUPP ? 0
							      : err_errno(err, -errno, "Landlock");
	for (size_t k = 0; k < ARRAY_SIZE(paths); k++) {
		int r = landlock_allow(fd, paths[k]);

		if (r < 0)
			return err_errno(err, r, "Landlock rule for %s", paths[k]);
	}
	if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_errno(err, -errno, "Landlock");
	return 0;
}

static const int fetch_denied[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(kill),
	SCMP_SYS(tkill),
	SCMP_SYS(pidfd_open),
	SCMP_SYS(pidfd_getfd),
	SCMP_SYS(mount),
	SCMP_SYS(umount2),
	SCMP_SYS(pivot_root),
	SCMP_SYS(chroot),
	SCMP_SYS(unshare),
	SCMP_SYS(setns),
	SCMP_SYS(open_tree),
	SCMP_SYS(move_mount),
	SCMP_SYS(fsopen),
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

int confine_fetch(struct err *err)
{
	scmp_filter_ctx ctx;
	int r = SANITIZED ? 0 : restrict_files(err);

	if (r < 0)
		return r;
	ctx = seccomp_init(SCMP_ACT_ALLOW);
	if (!ctx)
		return err_nomem(err);
	r = add_all(ctx, SCMP_ACT_KILL_PROCESS, fetch_denied, ARRAY_SIZE(fetch_denied));
	return load(ctx, r, err);
}
