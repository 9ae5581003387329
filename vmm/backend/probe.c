#include "vmm/backend/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/util.h"

#define FIX_OTHER "use the qemu backend (automatic with --backend auto)"
#define FIX_NESTED "enable nested virtualisation with hardware help for this machine, or " FIX_OTHER

#if defined(__x86_64__)

#include <linux/kvm.h>

/* The loop of the probe guest: two instructions a turn. */
#define LOOP_TURNS 1000000u
/* Emulating hosts run 1 to 2 million instructions a second; QEMU's emulation of a whole AMD
 * machine more than 50, hardware thousands. */
#define RATE_MIN 10e6

/* Layout of the guest's memory, 64 KiB from address 0. */
#define G_SIZE 0x10000u
#define G_PML4 0x1000u
#define G_PDPT 0x2000u
#define G_PD 0x3000u
#define G_GDT 0x4000u
#define G_IDT 0x5000u
#define G_XSAVE 0x6000u /* up to two pages */
#define G_CODE 0x8000u
#define G_STACK 0x10000u

#define PORT_DONE 0xf4u

/* What the guest has reached: in rbx. */
enum stage { ST_LOOP = 1, ST_INT3 = 2, ST_XSAVE = 3, ST_DONE = 4 };

/* The probe guest. rcx = turns, rsi = xsave area, r8 = the CPU has XSAVE, rsp = stack. */
extern const unsigned char probe_guest[], probe_guest_int3[], probe_guest_end[];
__asm__(".pushsection .rodata\n"
	".hidden probe_guest, probe_guest_int3, probe_guest_end\n"
	".globl probe_guest, probe_guest_int3, probe_guest_end\n"
	"probe_guest:\n"
	"	mov $1, %ebx\n"
	"1:	sub $1, %rcx\n"
	"	jnz 1b\n"
	"	mov $2, %ebx\n"
	"	int3\n"
	"	cmp $0x1234, %edi\n" /* set by the handler */
	"	jne 2f\n"
	"	mov $3, %ebx\n"
	"	test %r8d, %r8d\n"
	"	jz 3f\n"
	"	xor %ecx, %ecx\n"
	"	mov $3, %eax\n"
	"	xor %edx, %edx\n"
	"	xsetbv\n"
	"	xsave64 (%rsi)\n"
	"	xrstor64 (%rsi)\n"
	"3:	mov $4, %ebx\n"
	"2:	mov $0xf4, %edx\n"
	"	out %al, (%dx)\n"
	"	hlt\n"
	"probe_guest_int3:\n"
	"	mov $0x1234, %edi\n"
	"	iretq\n"
	"probe_guest_end:\n"
	".popsection\n");

/* What the child writes to its pipe, once. */
struct verdict {
	int error;	/* errno of what failed, 0 = the guest ran */
	char what[48];	/* the call that failed */
	uint32_t stage; /* reached */
	uint32_t exit_reason, suberror;
	uint64_t turns_left;
	uint64_t loop_ns; /* the whole guest, which is the loop but for a few instructions */
};

static const struct {
	int cap;
	const char *name;
} needed[] = {
	{ KVM_CAP_IRQCHIP, "IRQCHIP" },
	{ KVM_CAP_USER_MEMORY, "USER_MEMORY" },
	{ KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR" },
	{ KVM_CAP_EXT_CPUID, "EXT_CPUID" },
	{ KVM_CAP_MP_STATE, "MP_STATE" },
	{ KVM_CAP_IRQFD, "IRQFD" },
	{ KVM_CAP_IOEVENTFD, "IOEVENTFD" },
	{ KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER" },
};

static void put64(uint8_t *mem, size_t off, uint64_t v)
{
	memcpy(mem + off, &v, sizeof(v));
}

static void fill_guest(uint8_t *mem)
{
	put64(mem, G_PML4, G_PDPT | 3);
	put64(mem, G_PDPT, G_PD | 3);
	put64(mem, G_PD, 0x83); /* 2 MiB from 0, present, writable */
	put64(mem, G_GDT + 8, 0x00af9b000000ffffull);
	put64(mem, G_GDT + 16, 0x00cf93000000ffffull);
	uint64_t handler = G_CODE + (uint64_t)(probe_guest_int3 - probe_guest);
	put64(mem, G_IDT + 3 * 16, (handler & 0xffff) | 8 << 16 | 0x8eull << 40);
	memcpy(mem + G_CODE, probe_guest, (size_t)(probe_guest_end - probe_guest));
}

static int set_registers(int vcpu, bool xsave)
{
	struct kvm_sregs s;
	if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0)
		return -errno;
	s.cs = (struct kvm_segment){
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	s.ds = s.es = s.ss = (struct kvm_segment){ .limit = 0xffffffff,
						   .selector = 16,
						   .type = 3,
						   .present = 1,
						   .s = 1,
						   .db = 1,
						   .g = 1 };
	s.gdt = (struct kvm_dtable){ .base = G_GDT, .limit = 23 };
	s.idt = (struct kvm_dtable){ .base = G_IDT, .limit = 4 * 16 - 1 };
	s.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
	s.cr3 = G_PML4;
	s.cr4 = 0x620 | (xsave ? 0x40000u : 0); /* OSXMMEXCPT, OSFXSR, PAE; OSXSAVE */
	s.efer = 0x500;				/* LMA, LME */
	if (ioctl(vcpu, KVM_SET_SREGS, &s) < 0)
		return -errno;
	struct kvm_regs r = { .rip = G_CODE,
			      .rsp = G_STACK,
			      .rflags = 2,
			      .rcx = LOOP_TURNS,
			      .rsi = G_XSAVE,
			      .r8 = xsave };
	return ioctl(vcpu, KVM_SET_REGS, &r) < 0 ? -errno : 0;
}

static int set_cpuid(int kvm, int vcpu, bool *ret_xsave)
{
	struct { /* struct kvm_cpuid2 */
		uint32_t nent, padding;
		struct kvm_cpuid_entry2 entries[256];
	} c;
	memset(&c, 0, sizeof(c));
	c.nent = ARRAY_SIZE(c.entries);
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &c) < 0 || ioctl(vcpu, KVM_SET_CPUID2, &c) < 0)
		return -errno;
	*ret_xsave = false;
	for (uint32_t i = 0; i < c.nent; i++)
		if (c.entries[i].function == 1)
			*ret_xsave = c.entries[i].ecx & 1u << 26;
	return 0;
}

/* The kick that ends KVM_RUN at the deadline: blocked in the process, let through in KVM_RUN. */
static int start_kick(int vcpu, timer_t *timer)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	struct { /* struct kvm_signal_mask */
		uint32_t len;
		uint8_t none[8];
	} m = { .len = sizeof(m.none) };
	if (ioctl(vcpu, KVM_SET_SIGNAL_MASK, &m) < 0)
		return -errno;
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec t = { .it_value.tv_nsec = (long)(PROBE_DEADLINE_MS * NS_PER_MS) * 4 / 5 };
	if (timer_create(CLOCK_MONOTONIC, &ev, timer) < 0 || timer_settime(*timer, 0, &t, NULL) < 0)
		return -errno;
	return 0;
}

static void run_guest(int vcpu, struct kvm_run *run, struct verdict *v)
{
	uint64_t start = now_mono_ns();
	int r = ioctl(vcpu, KVM_RUN, NULL);
	int error = r < 0 ? errno : 0;

	v->loop_ns = now_mono_ns() - start;
	struct kvm_regs regs;
	memset(&regs, 0, sizeof(regs));
	if (ioctl(vcpu, KVM_GET_REGS, &regs) < 0)
		regs.rbx = 0;
	v->stage = (uint32_t)regs.rbx;
	v->turns_left = regs.rcx;
	if (error && error != EINTR) {
		v->error = error;
		snprintf(v->what, sizeof(v->what), "KVM_RUN");
		return;
	}
	v->exit_reason = error ? KVM_EXIT_INTR : run->exit_reason;
	if (v->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		v->suberror = run->internal.suberror;
}

static int failed(struct verdict *v, int error, const char *what)
{
	v->error = error;
	snprintf(v->what, sizeof(v->what), "%s", what);
	return -error;
}

/* In the child; what it opens ends with it. */
static int try_guest(int kvm, struct verdict *v)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return failed(v, errno, "KVM_CREATE_VM");
	uint8_t *mem =
		mmap(NULL, G_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return failed(v, errno, "mmap");
	fill_guest(mem);
	struct kvm_userspace_memory_region region = { .memory_size = G_SIZE,
						      .userspace_addr = (uintptr_t)mem };
	if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0)
		return failed(v, errno, "KVM_SET_TSS_ADDR");
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return failed(v, errno, "KVM_SET_USER_MEMORY_REGION");
	/* Not needed here, but the first vCPU without a local APIC makes the host patch its kernel.
	 */
	if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
		return failed(v, errno, "KVM_CREATE_IRQCHIP");
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return failed(v, errno, "KVM_CREATE_VCPU");
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return failed(v, EIO, "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return failed(v, errno, "mmap of a vCPU");
	bool xsave;
	int r = set_cpuid(kvm, vcpu, &xsave);
	if (r < 0)
		return failed(v, -r, "CPUID");
	r = set_registers(vcpu, xsave);
	if (r < 0)
		return failed(v, -r, "registers");
	timer_t timer;
	r = start_kick(vcpu, &timer);
	if (r < 0)
		return failed(v, -r, "timer");
	run_guest(vcpu, run, v);
	return 0;
}

/* Fork without exec: the child only makes system calls on memory that it has. */
static pid_t start_child(int kvm, int *ret_fd)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid == 0) {
		struct verdict v;
		memset(&v, 0, sizeof(v));
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(0);
		(void)try_guest(kvm, &v);
		if (write(p[1], &v, sizeof(v)) < 0)
			_exit(1);
		_exit(0);
	}
	int r = pid < 0 ? -errno : pid;
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
	case ST_LOOP:
		return "a loop in long mode";
	case ST_INT3:
		return "the INT3 instruction";
	case ST_XSAVE:
		return "XSAVE/XRSTOR";
	default:
		return "the first instructions";
	}
}

static void judge(const struct verdict *v, struct probe_result *ret)
{
	double turns = (double)LOOP_TURNS - (v->stage <= ST_LOOP ? (double)v->turns_left : 0);
	double rate = 2 * turns / ((double)v->loop_ns / (double)NS_PER_S + 1e-9);
	bool done = v->exit_reason == KVM_EXIT_IO && v->stage == ST_DONE;

	if (v->error)
		refuse(ret, FIX_OTHER, "KVM does not start a guest: %s: %s", v->what,
		       strerror(v->error));
	else if (v->exit_reason == KVM_EXIT_INTR || (done && rate < RATE_MIN))
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

void probe_kvm(struct probe_result *ret)
{
	memset(ret, 0, sizeof(*ret));
	cleanup_fd int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0) {
		refuse_open(ret, errno);
		return;
	}
	int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		refuse(ret, FIX_OTHER, "/dev/kvm speaks version %d, not %d", version,
		       KVM_API_VERSION);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (ioctl(kvm, KVM_CHECK_EXTENSION, needed[i].cap) <= 0) {
			refuse(ret, "use a newer host kernel, or " FIX_OTHER,
			       "KVM of this host lacks KVM_CAP_%s", needed[i].name);
			return;
		}
	}
	cleanup_fd int out = -1;
	pid_t pid = start_child(kvm, &out);
	if (pid < 0) {
		refuse(ret, FIX_OTHER, "KVM probe: %s", strerror(-pid));
		return;
	}
	struct verdict v;
	struct pollfd p = { .fd = out, .events = POLLIN };
	int n = poll(&p, 1, PROBE_DEADLINE_MS);
	bool answered = n > 0 && read(out, &v, sizeof(v)) == (ssize_t)sizeof(v);
	end_child(pid);
	if (answered)
		judge(&v, ret);
	else
		refuse(ret, FIX_NESTED, "KVM hangs on the probe guest (no answer after %d ms)",
		       PROBE_DEADLINE_MS);
}

#else

void probe_kvm(struct probe_result *ret)
{
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->reason, sizeof(ret->reason), "the kvm backend runs on x86_64 only");
	snprintf(ret->fix, sizeof(ret->fix), "%s", FIX_OTHER);
}

#endif
