/* The probe guest on x86_64. */
#include "vmm/backend/probe.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "base/compiler.h"
#include "base/util.h"

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

/* The probe guest. rcx = turns, rsi = xsave area, r8 = the CPU has XSAVE, rsp = stack; rbx = the
 * stage that it has reached (enum probe_stage). */
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

static void put64(uint8_t *mem, size_t off, uint64_t v)
{
	memcpy(mem + off, &v, sizeof(v));
}

static void fill_guest(uint8_t *mem)
{
	uint64_t handler = G_CODE + (uint64_t)(probe_guest_int3 - probe_guest);

	put64(mem, G_PML4, G_PDPT | 3);
	put64(mem, G_PDPT, G_PD | 3);
	put64(mem, G_PD, 0x83); /* 2 MiB from 0, present, writable */
	put64(mem, G_GDT + 8, 0x00af9b000000ffffull);
	put64(mem, G_GDT + 16, 0x00cf93000000ffffull);
	put64(mem, G_IDT + 3 * 16, (handler & 0xffff) | 8 << 16 | 0x8eull << 40);
	memcpy(mem + G_CODE, probe_guest, (size_t)(probe_guest_end - probe_guest));
}

static int set_registers(int vcpu, bool xsave)
{
	struct kvm_regs r = { .rip = G_CODE,
			      .rsp = G_STACK,
			      .rflags = 2,
			      .rcx = PROBE_LOOP_TURNS,
			      .rsi = G_XSAVE,
			      .r8 = xsave };
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
	struct { /* struct kvm_signal_mask */
		uint32_t len;
		uint8_t none[8];
	} m = { .len = sizeof(m.none) };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec t = { .it_value.tv_nsec = (long)(PROBE_DEADLINE_MS * NS_PER_MS) * 4 / 5 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || ioctl(vcpu, KVM_SET_SIGNAL_MASK, &m) < 0 ||
	    timer_create(CLOCK_MONOTONIC, &ev, timer) < 0 || timer_settime(*timer, 0, &t, NULL) < 0)
		return -errno;
	return 0;
}

static void run_guest(int vcpu, struct kvm_run *run, struct probe_verdict *v)
{
	uint64_t start = now_mono_ns();
	int error = ioctl(vcpu, KVM_RUN, NULL) < 0 ? errno : 0;
	struct kvm_regs regs;

	v->loop_ns = now_mono_ns() - start;
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

static int failed(struct probe_verdict *v, int error, const char *what)
{
	v->error = error;
	snprintf(v->what, sizeof(v->what), "%s", what);
	return -error;
}

/* A VM with one vCPU, ready to run. */
static int make_guest(int kvm, int *ret_vcpu, struct kvm_run **ret_run, struct probe_verdict *v)
{
	struct kvm_userspace_memory_region region = { .memory_size = G_SIZE };
	int vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu, size;
	uint8_t *mem;
	void *run;

	if (vm < 0)
		return failed(v, errno, "KVM_CREATE_VM");
	mem = mmap(NULL, G_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return failed(v, errno, "mmap");
	fill_guest(mem);
	region.userspace_addr = (uintptr_t)mem;
	if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0)
		return failed(v, errno, "KVM_SET_TSS_ADDR");
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return failed(v, errno, "KVM_SET_USER_MEMORY_REGION");
	/* Not needed here, but the first vCPU without a local APIC makes the host patch its kernel.
	 */
	if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
		return failed(v, errno, "KVM_CREATE_IRQCHIP");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return failed(v, errno, "KVM_CREATE_VCPU");
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return failed(v, EIO, "KVM_GET_VCPU_MMAP_SIZE");
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return failed(v, errno, "mmap of a vCPU");
	*ret_vcpu = vcpu;
	*ret_run = run;
	return 0;
}

void probe_arch_run(int kvm, struct probe_verdict *v)
{
	struct kvm_run *run = NULL;
	timer_t timer;
	bool xsave;
	int vcpu = -1, r;

	if (make_guest(kvm, &vcpu, &run, v) < 0)
		return;
	r = set_cpuid(kvm, vcpu, &xsave);
	if (r < 0) {
		(void)failed(v, -r, "CPUID");
		return;
	}
	r = set_registers(vcpu, xsave);
	if (r < 0) {
		(void)failed(v, -r, "registers");
		return;
	}
	r = start_kick(vcpu, &timer);
	if (r < 0)
		(void)failed(v, -r, "timer");
	else
		run_guest(vcpu, run, v);
}
