#include "image/worker/confine.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/util.h"
#include "image/worker/confine_internal.h"

#define NOBODY 65534

static uid_t own_uid; /* 0: none was given */

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

void confine_set_uid(uid_t uid)
{
	own_uid = uid;
}

/* A uid that no other process has is the border between workers: what the kernel lets a process do
 * to others of its user, and what it counts for each user. */
static int become_nobody(const struct confine_limits *l, struct err *err)
{
	uid_t id = own_uid ? own_uid : NOBODY;
	int r;

	if (geteuid() != 0)
		return 0;
	r = own_uid ? limit(RLIMIT_NPROC, l->threads, "threads", err) : 0;
	if (r < 0)
		return r;
	if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
		return err_errno(err, -errno, "become user %u", id);
	return 0;
}

int confine_common(const struct confine_limits *l, struct err *err)
{
	pid_t parent = getppid();
	int r = limit(RLIMIT_CORE, 0, "core", err);

	/* A write beyond a limit or to a closed pipe fails, instead of killing the process. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (r == 0 && !CONFINE_SANITIZED)
		r = limit(RLIMIT_AS, l->memory, "memory", err);
	if (r == 0 && !CONFINE_SANITIZED && l->data)
		r = limit(RLIMIT_DATA, l->data, "memory", err);
	if (r == 0)
		r = limit(RLIMIT_FSIZE, l->file, "file size", err);
	if (r == 0)
		r = limit(RLIMIT_CPU, l->cpu_s, "CPU time", err);
	if (r == 0)
		r = become_nobody(l, err);
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

int confine_load(scmp_filter_ctx ctx, int r, struct err *err)
{
	if (r == 0 && !CONFINE_SANITIZED)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r < 0 ? err_errno(err, r, "install the system call filter") : 0;
}

int confine_add_all(scmp_filter_ctx ctx, uint32_t action, const int *calls, size_t n)
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
	SCMP_SYS(gettimeofday),	 SCMP_SYS(time), /* where the vDSO cannot read the clock */
	SCMP_SYS(readv),	 SCMP_SYS(writev),
	SCMP_SYS(rt_sigreturn),	 SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(sched_yield),	 SCMP_SYS(sysinfo) /* qsort asks for the size of memory */,
};

static const int decode_calls[] = { SCMP_SYS(wait4), SCMP_SYS(waitid) };

static const int build_calls[] = {
	SCMP_SYS(pread64),	   SCMP_SYS(pwrite64),	SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
	SCMP_SYS(sync_file_range), SCMP_SYS(fdatasync), SCMP_SYS(fsync),     SCMP_SYS(fstatfs),
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

int confine_allow_basics(scmp_filter_ctx ctx)
{
	int r = confine_add_all(ctx, SCMP_ACT_ALLOW, basic_calls, ARRAY_SIZE(basic_calls));

	return r < 0 ? r : allow_data(ctx);
}

static int allow_only(const int *more, size_t n, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return err_nomem(err);
	r = confine_allow_basics(ctx);
	if (r == 0)
		r = confine_add_all(ctx, SCMP_ACT_ALLOW, more, n);
	if (r == 0)
		r = confine_add_all(ctx, SCMP_ACT_ERRNO(ENOENT), refused_calls,
				    ARRAY_SIZE(refused_calls));
	return confine_load(ctx, r, err);
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
