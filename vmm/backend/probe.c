#include "vmm/backend/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/util.h"

#define FIX_OTHER "use the qemu backend (automatic with --backend auto)"
#define FIX_NESTED "enable nested virtualisation with hardware help for this machine, or " FIX_OTHER

#ifdef HUSK_BACKEND_KVM
#include "vmm/backend/kvm.h"

/* Fork without exec: the child only makes system calls on memory that it has. */
static pid_t start_child(int kvm, int *ret_fd)
{
	struct probe_verdict v;
	pid_t parent = getpid(), pid;
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		memset(&v, 0, sizeof(v));
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(0);
		probe_arch_run(kvm, &v);
		if (write(p[1], &v, sizeof(v)) < 0)
			_exit(1);
		_exit(0);
	}
	r = pid < 0 ? -errno : pid;
	close(p[1]);
	if (r < 0)
		close(p[0]);
	else
		*ret_fd = p[0];
	return r;
}

/* Also when the child cannot be killed (it hangs in the kernel) this returns: then it stays behind
 * as a zombie to be. */
static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	for (int i = 0; i < 50 && waitpid(pid, NULL, WNOHANG) == 0; i++)
		nanosleep(&(struct timespec){ .tv_nsec = NS_PER_MS }, NULL);
}

static void refuse(struct probe_result *ret, const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void refuse(struct probe_result *ret, const char *fix, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ret->reason, sizeof(ret->reason), fmt, ap);
	va_end(ap);
	snprintf(ret->fix, sizeof(ret->fix), "%s", fix);
}

static const char *stage_name(uint32_t stage)
{
	switch (stage) {
	case PROBE_LOOP:
		return "a loop in long mode";
	case PROBE_INT3:
		return "the INT3 instruction";
	case PROBE_XSAVE:
		return "XSAVE/XRSTOR";
	default:
		return "the first instructions";
	}
}

void probe_judge(const struct probe_verdict *v, struct probe_result *ret)
{
	double turns =
		(double)PROBE_LOOP_TURNS - (v->stage <= PROBE_LOOP ? (double)v->turns_left : 0);
	double rate = 2 * turns / ((double)v->loop_ns / (double)NS_PER_S + 1e-9);
	bool done = v->exit_reason == KVM_EXIT_IO && v->stage == PROBE_DONE;

	if (v->error)
		refuse(ret, FIX_OTHER, "KVM does not start a guest: %s: %s", v->what,
		       strerror(v->error));
	else if (v->exit_reason == KVM_EXIT_INTR || (done && rate < PROBE_RATE_MIN))
		refuse(ret, FIX_NESTED,
		       "KVM runs kernel code at %.1f M instructions/s, emulated: nested "
		       "virtualisation without hardware help",
		       rate / 1e6);
	else if (v->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		refuse(ret, FIX_NESTED,
		       "KVM cannot run %s in kernel mode (internal error %u): nested "
		       "virtualisation without hardware help",
		       stage_name(v->stage), v->suberror);
	else if (!done)
		refuse(ret, FIX_OTHER, "KVM runs the probe guest wrongly: %s ended with exit %u",
		       stage_name(v->stage), v->exit_reason);
	else {
		ret->usable = true;
		snprintf(ret->reason, sizeof(ret->reason),
			 "KVM runs kernel code at %.0f M instructions/s", rate / 1e6);
	}
}

static void refuse_open(struct probe_result *ret, int error)
{
	switch (error) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		refuse(ret,
		       "turn virtualisation on in the firmware (in a VM: nested virtualisation) "
		       "and load kvm_intel or kvm_amd",
		       "no /dev/kvm on this host");
		return;
	case EACCES:
	case EPERM:
		refuse(ret, "run as root, or add the user to the group that owns /dev/kvm",
		       "/dev/kvm: no permission");
		return;
	default:
		refuse(ret, FIX_OTHER, "/dev/kvm: %s", strerror(error));
	}
}

/* The probe guest's verdict, 0 = it came. */
static int run_probe(int kvm, struct probe_verdict *v, struct err *err)
{
	cleanup_fd int out = -1;
	pid_t pid = start_child(kvm, &out);
	struct pollfd p = { .fd = out, .events = POLLIN };
	bool answered;

	if (pid < 0)
		return err_errno(err, pid, "KVM probe");
	answered = poll(&p, 1, PROBE_DEADLINE_MS) > 0 &&
		   read(out, v, sizeof(*v)) == (ssize_t)sizeof(*v);
	end_child(pid);
	return answered ? 0 : -ETIMEDOUT;
}

void probe_kvm(struct probe_result *ret)
{
	cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int error = errno, version, r;
	struct probe_verdict v;
	struct err err = { 0 };

	memset(ret, 0, sizeof(*ret));
	if (kvm < 0) {
		refuse_open(ret, error);
		return;
	}
	version = ioctl(kvm, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		refuse(ret, FIX_OTHER, "/dev/kvm speaks version %d, not %d", version,
		       KVM_API_VERSION);
		return;
	}
	if (kvm_arch_check(kvm, &err) < 0) {
		refuse(ret, "use a newer host kernel, or " FIX_OTHER, "%s", err_text(&err));
		return;
	}
	r = run_probe(kvm, &v, &err);
	if (r == 0)
		probe_judge(&v, ret);
	else if (r == -ETIMEDOUT)
		refuse(ret, FIX_NESTED, "KVM hangs on the probe guest (no answer after %d ms)",
		       PROBE_DEADLINE_MS);
	else
		refuse(ret, FIX_OTHER, "%s", err_text(&err));
}

#else

void probe_kvm(struct probe_result *ret)
{
	*ret = (struct probe_result){ .reason = "the kvm backend runs on x86_64 only",
				      .fix = FIX_OTHER };
}

#endif
