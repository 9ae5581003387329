/* Backend kvm on x86_64. */
#include "vmm/backend/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "vmm/x86_64/boot.h"

#define TSS_ADDR 0xfffbd000ul /* three pages that the guest does not see; Intel wants them */
#define IDENTITY_MAP_ADDR 0xfffbc000ul
#define CPUID_ENTRIES 256

static const struct {
	int cap;
	const char *name;
} needed[] = {
	{ KVM_CAP_IRQCHIP, "IRQCHIP" },
	{ KVM_CAP_USER_MEMORY, "USER_MEMORY" },
	{ KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR" },
	{ KVM_CAP_SET_IDENTITY_MAP_ADDR, "SET_IDENTITY_MAP_ADDR" },
	{ KVM_CAP_EXT_CPUID, "EXT_CPUID" },
	{ KVM_CAP_MP_STATE, "MP_STATE" },
	{ KVM_CAP_IRQFD, "IRQFD" },
	{ KVM_CAP_IOEVENTFD, "IOEVENTFD" },
	{ KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER" },
};

int kvm_arch_check(int kvm_fd, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return err_set(err, -EOPNOTSUPP, "KVM of this host lacks KVM_CAP_%s",
				       needed[i].name);
	return 0;
}

int kvm_arch_create(struct backend *b, struct err *err)
{
	uint64_t identity = IDENTITY_MAP_ADDR;

	if (ioctl(b->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
		return err_errno(err, -errno, "KVM_SET_IDENTITY_MAP_ADDR");
	if (ioctl(b->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0)
		return err_errno(err, -errno, "KVM_SET_TSS_ADDR");
	/* PIC, IOAPIC and local APICs in the kernel; no PIT: kvm-clock and the TSC deadline timer.
	 */
	if (ioctl(b->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return err_errno(err, -errno, "KVM_CREATE_IRQCHIP");
	return 0;
}

int kvm_arch_ram(struct backend *b, uint64_t size, struct err *err)
{
	return boot_x86_ram(&b->mem, size, err);
}

uint64_t kvm_arch_mmio_base(size_t device)
{
	return X86_MMIO_BASE + device * VIRTIO_MMIO_SIZE;
}

unsigned kvm_arch_irq(size_t device)
{
	_Static_assert(X86_IRQ_BASE + KVM_DEVICES_MAX - 1 <= X86_IRQ_MAX, "a GSI per device");
	return X86_IRQ_BASE + (unsigned)device;
}

/* ---- CPUID ---- */

struct cpuid { /* struct kvm_cpuid2 with room */
	uint32_t nent, padding;
	struct kvm_cpuid_entry2 entries[CPUID_ENTRIES];
};

/* Bits to number n things: the shift between levels of the topology. */
static uint32_t id_bits(uint32_t n)
{
	uint32_t bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

/* Leaf 0xb: one thread a core, all cores in one package. KVM offers it without its levels. */
static void put_topology(struct cpuid *c, unsigned id, unsigned vcpus)
{
	const struct kvm_cpuid_entry2 levels[] = {
		{ .index = 0, .eax = 0, .ebx = 1, .ecx = 0 | 1 << 8 },			/* SMT */
		{ .index = 1, .eax = id_bits(vcpus), .ebx = vcpus, .ecx = 1 | 2 << 8 }, /* core */
		{ .index = 2, .ecx = 2 }, /* the end */
	};
	uint32_t n = 0;
	bool room = false;

	for (uint32_t i = 0; i < c->nent; i++) {
		if (c->entries[i].function == 0)
			room = c->entries[i].eax >= 0xb;
		if (c->entries[i].function != 0xb && c->entries[i].function != 0x1f)
			c->entries[n++] = c->entries[i];
	}
	c->nent = n;
	if (!room || n > CPUID_ENTRIES - ARRAY_SIZE(levels))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[c->nent++];

		*e = levels[i];
		e->function = 0xb;
		e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e->edx = id;
	}
}

/* What the host's KVM offers, made into this vCPU's. No nested virtualisation, no PMU. */
static void fix_cpuid(struct kvm_cpuid_entry2 *e, unsigned id, unsigned vcpus)
{
	bool shared;

	switch (e->function) {
	case 0x1:
		e->ebx = (e->ebx & 0x0000ffff) | vcpus << 16 | id << 24;
		e->ecx |= 1u << 31 | 1u << 24; /* hypervisor; TSC deadline, which KVM leaves out */
		e->ecx &= ~(1u << 5);	       /* VMX */
		e->edx = vcpus > 1 ? e->edx | 1u << 28 : e->edx & ~(1u << 28); /* HTT */
		break;
	case 0x4:	 /* Intel: caches; cores of the package, CPUs that share this cache */
	case 0x8000001d: /* AMD: the same without the cores */
		if ((e->eax & 0x1f) == 0)
			break;
		shared = ((e->eax >> 5) & 7) >= 3;
		e->eax = (e->eax & 0x3fff) | (shared ? vcpus - 1 : 0) << 14;
		if (e->function == 0x4)
			e->eax |= (vcpus - 1) << 26;
		break;
	case 0xa:
		e->eax = e->ebx = e->ecx = e->edx = 0;
		break;
	case 0x80000001:
		e->ecx &= ~(1u << 2); /* SVM */
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffu) | id_bits(vcpus) << 12 | (vcpus - 1);
		break;
	case 0x8000000a:
		e->eax = e->ebx = e->ecx = e->edx = 0;
		break;
	case 0x8000001e:
		e->eax = id;
		e->ebx = id;
		e->ecx = 0;
		break;
	default:
		break;
	}
}

static int get_cpuid(int kvm_fd, struct cpuid **ret, struct err *err)
{
	struct cpuid *c cleanup_free = calloc(1, sizeof(*c));

	if (!c)
		return err_nomem(err);
	c->nent = CPUID_ENTRIES;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0)
		return err_errno(err, -errno, "KVM_GET_SUPPORTED_CPUID");
	*ret = take_ptr(&c);
	return 0;
}

static int set_cpuid(struct kvm_vcpu *v, const struct cpuid *offered, struct err *err)
{
	struct cpuid *c cleanup_free = malloc(sizeof(*c));

	if (!c)
		return err_nomem(err);
	memcpy(c, offered, sizeof(*c));
	for (uint32_t i = 0; i < c->nent; i++)
		fix_cpuid(&c->entries[i], v->id, v->vm->n_vcpus);
	put_topology(c, v->id, v->vm->n_vcpus);
	if (ioctl(v->fd, KVM_SET_CPUID2, c) < 0)
		return err_errno(err, -errno, "KVM_SET_CPUID2");
	return 0;
}

/* ---- registers ---- */

#define MSR_MISC_ENABLE 0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff

static int set_msrs(struct kvm_vcpu *v, struct err *err)
{
	struct { /* struct kvm_msrs */
		uint32_t nmsrs, padding;
		struct kvm_msr_entry entries[2];
	} m = {
		.nmsrs = 2,
		.entries = {
			{ .index = MSR_MISC_ENABLE, .data = 1 }, /* fast strings */
			/* Write-back by default, or all memory is uncached. */
			{ .index = MSR_MTRR_DEF_TYPE, .data = 0x806 },
		},
	};

	if (ioctl(v->fd, KVM_SET_MSRS, &m) != 2)
		return err_errno(err, errno ? -errno : -EINVAL, "KVM_SET_MSRS");
	return 0;
}

/* The PVH entry: 32-bit protected mode, flat segments, no paging, ebx = start info. */
static int set_boot_registers(struct kvm_vcpu *v, uint32_t entry, uint32_t start_info,
			      struct err *err)
{
	const struct kvm_segment data = { .limit = 0xffffffff,
					  .selector = 16,
					  .type = 3,
					  .present = 1,
					  .db = 1,
					  .s = 1,
					  .g = 1 };
	struct kvm_regs r = { .rip = entry, .rbx = start_info, .rflags = 2 };
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_SREGS, &s) < 0)
		return err_errno(err, -errno, "KVM_GET_SREGS");
	s.cs = data;
	s.cs.selector = 8;
	s.cs.type = 11;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr = (struct kvm_segment){ .limit = 0x67, .selector = 24, .type = 11, .present = 1 };
	s.cr0 = 0x11; /* ET, PE */
	s.cr4 = 0;
	s.efer = 0;
	if (ioctl(v->fd, KVM_SET_SREGS, &s) < 0)
		return err_errno(err, -errno, "KVM_SET_SREGS");
	if (ioctl(v->fd, KVM_SET_REGS, &r) < 0)
		return err_errno(err, -errno, "KVM_SET_REGS");
	return 0;
}

int kvm_arch_load(struct backend *b, const struct backend_boot *boot, const char *cmdline,
		  struct err *err)
{
	struct boot_x86 args = {
		.kernel = boot->kernel,
		.initramfs = boot->initramfs,
		.cmdline = cmdline,
		.vcpus = boot->vcpus,
	};
	struct cpuid *offered cleanup_free = NULL;
	uint32_t entry, start_info;
	int r = boot_x86_load(&b->mem, &args, &entry, &start_info, err);

	if (r == 0)
		r = get_cpuid(b->kvm_fd, &offered, err);
	for (unsigned i = 0; i < b->n_vcpus && r == 0; i++) {
		r = set_cpuid(&b->vcpus[i], offered, err);
		if (r == 0)
			r = set_msrs(&b->vcpus[i], err);
	}
	/* The others wait for INIT and SIPI from the first. */
	return r < 0 ? r : set_boot_registers(&b->vcpus[0], entry, start_info, err);
}

void kvm_arch_describe(const struct kvm_vcpu *v, char *buf, size_t size)
{
	struct kvm_regs r;
	struct kvm_sregs s;

	if (ioctl(v->fd, KVM_GET_REGS, &r) < 0 || ioctl(v->fd, KVM_GET_SREGS, &s) < 0) {
		snprintf(buf, size, "registers: %s", strerror(errno));
		return;
	}
	snprintf(buf, size, "rip 0x%llx rsp 0x%llx rflags 0x%llx cr0 0x%llx cr2 0x%llx cr3 0x%llx",
		 r.rip, r.rsp, r.rflags, s.cr0, s.cr2, s.cr3);
}

#define PORT_I8042 0x64
#define I8042_RESET 0xfe
#define PORT_UART 0x3f8
#define UART_LCR 3
#define UART_LCR_DLAB 0x80 /* the first two registers are the divisor's */
#define UART_LSR 5
#define UART_LSR_EMPTY 0x60 /* ready for the next byte */

/* The console: of a 16550 what writing to it without a driver takes. */
static void uart_write(struct backend *b, uint16_t port, const uint8_t *data, size_t n)
{
	if (port == PORT_UART + UART_LCR)
		atomic_store(&b->uart_lcr, data[0]);
	else if (port == PORT_UART && !(atomic_load(&b->uart_lcr) & UART_LCR_DLAB))
		kvm_console_put(b, data, n);
}

static uint8_t uart_read(struct backend *b, uint16_t port)
{
	if (port == PORT_UART + UART_LCR)
		return atomic_load(&b->uart_lcr);
	return port == PORT_UART + UART_LSR ? UART_LSR_EMPTY : 0;
}

static bool is_uart(uint16_t port)
{
	return port >= PORT_UART && port < PORT_UART + 8;
}

/* There are no other I/O ports, but the write by which the kernel resets a PC is understood. */
bool kvm_arch_port_io(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	size_t len = (size_t)run->io.size * run->io.count;
	uint64_t off = run->io.data_offset;
	uint8_t *data;

	if (off > v->vm->run_size || len > v->vm->run_size - off)
		return false;
	data = (uint8_t *)run + off;
	if (run->io.direction == KVM_EXIT_IO_IN) {
		memset(data, is_uart(run->io.port) ? uart_read(v->vm, run->io.port) : 0xff, len);
		return false;
	}
	if (is_uart(run->io.port) && len > 0)
		uart_write(v->vm, run->io.port, data, len);
	return run->io.port == PORT_I8042 && len == 1 && data[0] == I8042_RESET;
}
