#include "vmm/x86_64/boot.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/util.h"
#include "vmm/backend/cmdline.h"

/* Below 1 MiB, as Firecracker and Cloud Hypervisor have it. */
#define A_START_INFO 0x6000u
#define A_MODULES 0x6040u
#define A_MEMMAP 0x7000u
#define A_CMDLINE 0x20000u
#define A_LOW_END 0x9fc00u /* RAM ends here; what follows was the BIOS's */
#define A_MP_TABLE 0xf0000u
#define A_MP_TABLE_END 0x100000u

#define PAGE 4096ull
#define HUGE_PAGE (2 * MIB)

#define XEN_ELFNOTE_PHYS32_ENTRY 18

/* ---- ELF ---- */

static int bad(struct err *err, const char *what)
{
	return err_set(err, -ENOEXEC, "%s", what);
}

/* Notes of one PT_NOTE segment: name "Xen", type PHYS32_ENTRY, 4 or 8 bytes. */
static void find_entry(const uint8_t *p, size_t len, uint64_t align, uint64_t *ret)
{
	struct cur c = cur_of(p, len), d;
	size_t pad = align == 8 ? 8 : 4, used, skip;
	uint32_t namesz, descsz, type;
	const uint8_t *name, *desc;

	while (cur_left(&c) >= sizeof(Elf64_Nhdr) && !c.bad) {
		namesz = cur_le32(&c);
		descsz = cur_le32(&c);
		type = cur_le32(&c);
		if (namesz > len || descsz > len)
			return;
		name = cur_bytes(&c, (namesz + 3ull) & ~3ull);
		desc = cur_bytes(&c, descsz);
		if (c.bad)
			return;
		used = len - cur_left(&c);
		skip = (pad - used % pad) % pad;
		if (type == XEN_ELFNOTE_PHYS32_ENTRY && namesz == 4 &&
		    memcmp(name, "Xen", 4) == 0) {
			d = cur_of(desc, descsz);
			if (descsz == 4)
				*ret = cur_le32(&d);
			else if (descsz == 8)
				*ret = cur_le64(&d);
		}
		(void)cur_bytes(&c, MIN_OF(skip, cur_left(&c)));
	}
}

static int add_segment(const Elf64_Phdr *ph, struct elf_image *img, struct err *err)
{
	if (ph->p_memsz == 0)
		return 0;
	if (ph->p_filesz > ph->p_memsz)
		return bad(err, "segment bigger in the file than in memory");
	if (ph->p_paddr < ELF_KERNEL_MIN || ph->p_paddr >= X86_LOW_RAM_MAX ||
	    ph->p_memsz > X86_LOW_RAM_MAX - ph->p_paddr)
		return bad(err, "segment outside of 1 MiB to 3 GiB");
	if (img->n == ELF_SEGMENTS_MAX)
		return bad(err, "too many segments");
	img->segs[img->n++] = (struct elf_segment){
		.offset = ph->p_offset,
		.filesz = ph->p_filesz,
		.paddr = ph->p_paddr,
		.memsz = ph->p_memsz,
	};
	return 0;
}

static bool entry_in_segment(const struct elf_image *img, uint64_t entry)
{
	for (unsigned i = 0; i < img->n; i++)
		if (entry >= img->segs[i].paddr && entry - img->segs[i].paddr < img->segs[i].filesz)
			return true;
	return false;
}

int elf_parse(const void *file, size_t len, struct elf_image *ret, struct err *err)
{
	const uint8_t *bytes = file;
	struct elf_image img = { 0 };
	uint64_t entry = UINT64_MAX;
	struct cur c = cur_of(file, len);
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	int r;

	if (!cur_copy(&c, &eh, sizeof(eh)))
		return bad(err, "shorter than an ELF header");
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0)
		return bad(err, "not an ELF file (a bzImage? the uncompressed vmlinux is needed)");
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB ||
	    eh.e_machine != EM_X86_64)
		return bad(err, "not an x86_64 ELF file");
	if (eh.e_phentsize != sizeof(Elf64_Phdr) || eh.e_phoff > len)
		return bad(err, "no program headers");

	c = cur_of(bytes + eh.e_phoff, len - eh.e_phoff);
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (!cur_copy(&c, &ph, sizeof(ph)))
			return bad(err, "program headers cut off");
		if (ph.p_type != PT_LOAD && ph.p_type != PT_NOTE)
			continue;
		if (ph.p_offset > len || ph.p_filesz > len - ph.p_offset)
			return bad(err, "segment beyond the end of the file");
		if (ph.p_type == PT_NOTE) {
			find_entry(bytes + ph.p_offset, ph.p_filesz, ph.p_align, &entry);
			continue;
		}
		r = add_segment(&ph, &img, err);
		if (r < 0)
			return r;
	}
	if (img.n == 0)
		return bad(err, "nothing to load");
	if (entry == UINT64_MAX)
		return bad(err, "no PVH entry point (CONFIG_PVH)");
	if (!entry_in_segment(&img, entry))
		return bad(err, "PVH entry point outside of the kernel");
	img.entry = (uint32_t)entry;
	*ret = img;
	return 0;
}

/* ---- files into guest memory ---- */

struct boot_file {
	int fd;
	uint8_t *data;
	size_t len;
};

static void boot_file_unmap(struct boot_file *f)
{
	if (f->data)
		munmap(f->data, f->len);
	fd_close(&f->fd);
}
#define cleanup_boot_file cleanup_with(boot_file_unmap)

static int boot_file_map(const char *path, size_t max, struct boot_file *ret, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(err, -errno, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		return err_set(err, -ENOEXEC, "%s: not a file, or empty", path);
	if ((uint64_t)st.st_size > max)
		return err_set(err, -EFBIG, "%s: larger than %zu MiB", path, max / MIB);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return err_errno(err, -errno, "%s: mmap", path);
	*ret = (struct boot_file){ .fd = take_fd(&fd), .data = p, .len = (size_t)st.st_size };
	return 0;
}

/* Bytes [off, off + len) of the file, checked by the caller, at gpa: whole pages are mapped when
 * file and memory agree about their borders, the rest is copied. */
static int place(const struct guestmem *mem, const struct boot_file *f, uint64_t off, uint64_t len,
		 uint64_t gpa, struct err *err)
{
	uint64_t head = MIN_OF((PAGE - off % PAGE) % PAGE, len);
	uint64_t whole = (len - head) / PAGE * PAGE;
	uint64_t tail = len - head - whole;
	uint8_t *host;

	if (len == 0)
		return 0;
	host = guestmem_at(mem, gpa, len, GUEST_WRITE);
	if (!host)
		return err_set(err, -ENOSPC, "does not fit the VM's memory");
	if ((uintptr_t)host % PAGE != off % PAGE) {
		memcpy(host, f->data + off, len);
		return 0;
	}
	memcpy(host, f->data + off, head);
	if (whole > 0) {
		if (mmap(host + head, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, f->fd,
			 (off_t)(off + head)) == MAP_FAILED)
			return err_errno(err, -errno, "mmap into guest memory");
		(void)madvise(host + head, whole, MADV_DONTDUMP);
	}
	memcpy(host + head + whole, f->data + off + head + whole, tail);
	return 0;
}

static int load_kernel(const struct guestmem *mem, const char *path, uint32_t *ret_entry,
		       uint64_t *ret_end, struct err *err)
{
	cleanup_boot_file struct boot_file f = { .fd = -1 };
	struct elf_image img;
	uint64_t end = 0;
	int r = boot_file_map(path, KERNEL_FILE_MAX, &f, err);

	if (r < 0)
		return r;
	r = elf_parse(f.data, f.len, &img, err);
	if (r < 0)
		return err_wrap(err, r, "%s", path);
	for (unsigned i = 0; i < img.n; i++) {
		const struct elf_segment *s = &img.segs[i];

		/* What follows the file's part (bss) is fresh memory: zeros already. */
		if (!guestmem_at(mem, s->paddr, s->memsz, GUEST_WRITE))
			return err_set(err, -ENOSPC, "%s: does not fit the VM's memory", path);
		r = place(mem, &f, s->offset, s->filesz, s->paddr, err);
		if (r < 0)
			return err_wrap(err, r, "%s", path);
		end = MAX_OF(end, s->paddr + s->memsz);
	}
	*ret_entry = img.entry;
	*ret_end = end;
	return 0;
}

/* At the top of low RAM, far from where the kernel puts its first things. */
static int load_initramfs(const struct guestmem *mem, const char *path, uint64_t kernel_end,
			  uint64_t *ret_gpa, uint64_t *ret_len, struct err *err)
{
	cleanup_boot_file struct boot_file f = { .fd = -1 };
	uint64_t top = mem->regions[0].size, room;
	int r = boot_file_map(path, INITRAMFS_FILE_MAX, &f, err);

	if (r < 0)
		return r;
	room = (f.len + PAGE - 1) / PAGE * PAGE;
	if (room > top || top - room < kernel_end)
		return err_set(err, -ENOSPC, "%s: does not fit the VM's memory", path);
	r = place(mem, &f, 0, f.len, top - room, err);
	if (r < 0)
		return err_wrap(err, r, "%s", path);
	*ret_gpa = top - room;
	*ret_len = f.len;
	return 0;
}

/* ---- tables ---- */

/* Xen's public/arch-x86/hvm/start_info.h */
struct hvm_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};
struct hvm_modlist_entry {
	uint64_t paddr, size, cmdline_paddr, reserved;
};
struct hvm_memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};
#define HVM_START_MAGIC 0x336ec578u
#define HVM_MEMMAP_RAM 1u

static int put(const struct guestmem *mem, uint64_t gpa, const void *data, size_t len)
{
	void *p = guestmem_at(mem, gpa, len, GUEST_WRITE);

	if (!p)
		return -ENOSPC;
	memcpy(p, data, len);
	return 0;
}

static int put_start_info(const struct guestmem *mem, const char *cmdline, uint64_t initramfs,
			  uint64_t initramfs_len)
{
	struct hvm_memmap_entry map[2 + GUESTMEM_REGIONS_MAX] = {
		{ .addr = 0, .size = A_LOW_END, .type = HVM_MEMMAP_RAM },
		{ .addr = ELF_KERNEL_MIN,
		  .size = mem->regions[0].size - ELF_KERNEL_MIN,
		  .type = HVM_MEMMAP_RAM },
	};
	const struct hvm_modlist_entry mod = { .paddr = initramfs, .size = initramfs_len };
	struct hvm_start_info info = {
		.magic = HVM_START_MAGIC,
		.version = 1,
		.nr_modules = 1,
		.modlist_paddr = A_MODULES,
		.cmdline_paddr = A_CMDLINE,
		.memmap_paddr = A_MEMMAP,
		.memmap_entries = 2,
	};
	int r;

	for (unsigned i = 1; i < mem->n; i++)
		map[info.memmap_entries++] =
			(struct hvm_memmap_entry){ .addr = mem->regions[i].gpa,
						   .size = mem->regions[i].size,
						   .type = HVM_MEMMAP_RAM };
	r = put(mem, A_START_INFO, &info, sizeof(info));
	if (r == 0)
		r = put(mem, A_MODULES, &mod, sizeof(mod));
	if (r == 0)
		r = put(mem, A_MEMMAP, map, info.memmap_entries * sizeof(map[0]));
	if (r == 0)
		r = put(mem, A_CMDLINE, cmdline, strlen(cmdline) + 1);
	return r;
}

/* Intel MultiProcessor Specification 1.4, chapter 4: how the kernel finds CPUs and the IOAPIC
 * without ACPI. Every structure is naturally aligned: no packing needed. */
struct mp_floating {
	char sig[4];
	uint32_t table;
	uint8_t length, spec, checksum, features[5];
};
struct mp_header {
	char sig[4];
	uint16_t length;
	uint8_t spec, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_size, entries;
	uint32_t lapic;
	uint16_t ext_length;
	uint8_t ext_checksum, reserved;
};
struct mp_cpu {
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features, reserved[2];
};
struct mp_bus {
	uint8_t type, id;
	char name[6];
};
struct mp_ioapic {
	uint8_t type, id, version, flags;
	uint32_t address;
};
struct mp_irq { /* I/O and local interrupt assignment */
	uint8_t type, kind;
	uint16_t flags;
	uint8_t bus, bus_irq, apic, pin;
};
enum { MP_CPU = 0, MP_BUS = 1, MP_IOAPIC = 2, MP_IOINT = 3, MP_LINT = 4 };
enum { MP_INT = 0, MP_NMI = 1, MP_EXTINT = 3 };

#define MP_TABLE_MAX                                                                               \
	(sizeof(struct mp_header) + VM_VCPUS_MAX * sizeof(struct mp_cpu) + sizeof(struct mp_bus) + \
	 sizeof(struct mp_ioapic) + (X86_IRQ_MAX + 1 + 2) * sizeof(struct mp_irq))
_Static_assert(sizeof(struct mp_floating) + MP_TABLE_MAX <= A_MP_TABLE_END - A_MP_TABLE,
	       "MP table");

static uint8_t mp_checksum(const void *data, size_t n)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	while (n-- > 0)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

struct mp_writer {
	uint8_t bytes[MP_TABLE_MAX];
	size_t len;
	uint16_t entries;
};

static void mp_add(struct mp_writer *w, const void *entry, size_t n)
{
	check(n <= sizeof(w->bytes) - w->len);
	memcpy(w->bytes + w->len, entry, n);
	w->len += n;
	w->entries++;
}

static void mp_add_cpus(struct mp_writer *w, unsigned vcpus)
{
	for (unsigned i = 0; i < vcpus; i++) {
		const struct mp_cpu cpu = { .type = MP_CPU,
					    .apic_id = (uint8_t)i,
					    .apic_version = 0x14,
					    .flags = i == 0 ? 3 : 1, /* enabled, boot processor */
					    .signature = 0x600,
					    .features = 0x201 }; /* FPU, APIC */

		mp_add(w, &cpu, sizeof(cpu));
	}
}

/* The ISA bus, the IOAPIC and what is wired to which of its pins. */
static void mp_add_interrupts(struct mp_writer *w, uint8_t ioapic_id)
{
	const struct mp_bus bus = { .type = MP_BUS, .name = { 'I', 'S', 'A', ' ', ' ', ' ' } };
	const struct mp_ioapic ioapic = { .type = MP_IOAPIC,
					  .id = ioapic_id,
					  .version = 0x11,
					  .flags = 1,
					  .address = 0xfec00000 };
	const struct mp_irq lint0 = { .type = MP_LINT, .kind = MP_EXTINT };
	const struct mp_irq lint1 = { .type = MP_LINT, .kind = MP_NMI, .apic = 0xff, .pin = 1 };

	mp_add(w, &bus, sizeof(bus));
	mp_add(w, &ioapic, sizeof(ioapic));
	for (unsigned i = 0; i <= X86_IRQ_MAX; i++) {
		const struct mp_irq irq = { .type = MP_IOINT,
					    .kind = MP_INT, /* edge, active high: ISA's default */
					    .bus_irq = (uint8_t)i,
					    .apic = ioapic_id,
					    .pin = (uint8_t)i };

		mp_add(w, &irq, sizeof(irq));
	}
	mp_add(w, &lint0, sizeof(lint0));
	mp_add(w, &lint1, sizeof(lint1));
}

static int put_mp_table(const struct guestmem *mem, unsigned vcpus)
{
	struct mp_writer w = { .len = sizeof(struct mp_header) };
	struct mp_header h = { .sig = { 'P', 'C', 'M', 'P' },
			       .spec = 4,
			       .oem = { 'H', 'U', 'S', 'K', ' ', ' ', ' ', ' ' },
			       .product = "husk-vmm   ",
			       .lapic = 0xfee00000 };
	struct mp_floating f = { .sig = { '_', 'M', 'P', '_' },
				 .table = A_MP_TABLE + sizeof(f),
				 .length = 1,
				 .spec = 4 };
	int r;

	mp_add_cpus(&w, vcpus);
	mp_add_interrupts(&w, (uint8_t)vcpus);
	h.length = (uint16_t)w.len;
	h.entries = w.entries;
	memcpy(w.bytes, &h, sizeof(h));
	h.checksum = mp_checksum(w.bytes, w.len);
	memcpy(w.bytes, &h, sizeof(h));
	f.checksum = mp_checksum(&f, sizeof(f));
	r = put(mem, A_MP_TABLE, &f, sizeof(f));
	return r < 0 ? r : put(mem, A_MP_TABLE + sizeof(f), w.bytes, w.len);
}

/* ---- entry points ---- */

/* Address space for `size` bytes at a multiple of HUGE_PAGE: a huge page of the host can be one of
 * the guest's only when both agree about its borders. */
static void *map_aligned(uint64_t size)
{
	uint8_t *p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t head;

	if (p == MAP_FAILED)
		return NULL;
	head = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
	if (head > 0)
		munmap(p, head);
	munmap(p + head + size, HUGE_PAGE - head);
	return p + head;
}

static int add_ram(struct guestmem *mem, uint64_t gpa, uint64_t size, struct err *err)
{
	struct guest_region r = { .gpa = gpa, .size = size, .map_size = size };
	void *p = map_aligned(size);
	int e;

	if (!p)
		return err_errno(err, -errno, "guest memory");
	/* A guest's memory has no place in a core dump of the monitor; in smaps it is known by
	 * "dd". */
	(void)madvise(p, size, MADV_DONTDUMP);
	/* For people who look at /proc/PID/smaps; kernels without the option refuse. */
	(void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, size, "husk-guest");
	r.host = p;
	e = guestmem_add(mem, &r);
	if (e < 0) {
		munmap(p, size);
		return err_errno(err, e, "guest memory");
	}
	return 0;
}

int boot_x86_ram(struct guestmem *mem, uint64_t size, struct err *err)
{
	uint64_t low = MIN_OF(size, X86_LOW_RAM_MAX);
	int r;

	if (size < 2 * MIB || size % PAGE != 0)
		return err_set(err, -EINVAL, "guest memory: %" PRIu64 " bytes", size);
	r = add_ram(mem, 0, low, err);
	if (r == 0 && size > low)
		r = add_ram(mem, X86_HIGH_RAM, size - low, err);
	return r;
}

int boot_x86_load(struct guestmem *mem, const struct boot_x86 *b, uint32_t *ret_entry,
		  uint32_t *ret_start_info, struct err *err)
{
	uint64_t kernel_end = 0, initramfs = 0, initramfs_len = 0;
	uint32_t entry;
	int r;

	if (mem->n == 0 || b->vcpus == 0 || b->vcpus > VM_VCPUS_MAX ||
	    strlen(b->cmdline) > VM_CMDLINE_MAX)
		return err_set(err, -EINVAL, "boot: bad arguments");
	r = load_kernel(mem, b->kernel, &entry, &kernel_end, err);
	if (r < 0)
		return err_wrap(err, r, "kernel");
	r = load_initramfs(mem, b->initramfs, kernel_end, &initramfs, &initramfs_len, err);
	if (r < 0)
		return err_wrap(err, r, "initramfs");
	r = put_start_info(mem, b->cmdline, initramfs, initramfs_len);
	if (r == 0)
		r = put_mp_table(mem, b->vcpus);
	if (r < 0)
		return err_errno(err, r, "boot tables");
	*ret_entry = entry;
	*ret_start_info = A_START_INFO;
	return 0;
}
