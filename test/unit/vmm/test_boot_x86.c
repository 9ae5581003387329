/* The ELF loader and the boot tables, with a kernel of a few bytes made here. */
#include "test/lib/unit.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "vmm/backend/backend.h"
#include "vmm/x86_64/boot.h"

#define TEXT_PADDR 0x200000u
#define TEXT_OFF 0x1000u
#define TEXT_LEN 0x2345u     /* two whole pages and a piece */
#define DATA_PADDR 0x300123u /* does not agree with its place in the file: copied */
#define DATA_OFF 0x4000u
#define DATA_LEN 100u
#define DATA_MEM 5000u

struct kernel {
	_Alignas(8) uint8_t bytes[0x5000];
	Elf64_Ehdr *eh;
	Elf64_Phdr *text, *data, *note;
	Elf64_Nhdr *nhdr;
	uint32_t *entry;
};

static void make_kernel(struct kernel *k)
{
	const Elf64_Nhdr other = { .n_namesz = 4, .n_descsz = 4, .n_type = 1 };
	uint8_t *n;

	memset(k, 0, sizeof(*k));
	for (size_t i = 0; i < TEXT_LEN; i++)
		k->bytes[TEXT_OFF + i] = (uint8_t)(i * 7 + 1);
	memset(k->bytes + DATA_OFF, 0xda, DATA_LEN);
	k->eh = (Elf64_Ehdr *)k->bytes;
	*k->eh = (Elf64_Ehdr){ .e_machine = EM_X86_64,
			       .e_phoff = sizeof(Elf64_Ehdr),
			       .e_phentsize = sizeof(Elf64_Phdr),
			       .e_phnum = 3 };
	memcpy(k->eh->e_ident, ELFMAG, SELFMAG);
	k->eh->e_ident[EI_CLASS] = ELFCLASS64;
	k->eh->e_ident[EI_DATA] = ELFDATA2LSB;
	k->text = (Elf64_Phdr *)(k->bytes + sizeof(Elf64_Ehdr));
	k->data = k->text + 1;
	k->note = k->text + 2;
	*k->text = (Elf64_Phdr){ .p_type = PT_LOAD,
				 .p_offset = TEXT_OFF,
				 .p_paddr = TEXT_PADDR,
				 .p_filesz = TEXT_LEN,
				 .p_memsz = TEXT_LEN };
	*k->data = (Elf64_Phdr){ .p_type = PT_LOAD,
				 .p_offset = DATA_OFF,
				 .p_paddr = DATA_PADDR,
				 .p_filesz = DATA_LEN,
				 .p_memsz = DATA_MEM };
	*k->note = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 20 + 20, .p_align = 4
	};
	n = k->bytes + 0x800;
	memcpy(n, &other, sizeof(other));
	memcpy(n + 12, "GNU", 4);
	k->nhdr = (Elf64_Nhdr *)(n + 20);
	*k->nhdr = (Elf64_Nhdr){ .n_namesz = 4, .n_descsz = 4, .n_type = 18 };
	memcpy(n + 20 + 12, "Xen", 4);
	k->entry = (uint32_t *)(n + 20 + 16);
	*k->entry = TEXT_PADDR + 0x10;
}

static void refused(const struct kernel *k, size_t len, const char *why)
{
	struct elf_image img = { .n = 77 };
	struct err err = { 0 };

	assert_int_equal(elf_parse(k->bytes, len, &img, &err), -ENOEXEC);
	assert_text(err_text(&err), why);
	assert_int_equal(img.n, 77);
}

static void test_elf(void **state)
{
	struct kernel k;
	struct elf_image img;
	struct err err = { 0 };

	make_kernel(&k);
	assert_ok(elf_parse(k.bytes, sizeof(k.bytes), &img, &err), &err);
	assert_int_equal(img.n, 2);
	assert_int_equal(img.entry, TEXT_PADDR + 0x10);
	assert_int_equal(img.segs[0].paddr, TEXT_PADDR);
	assert_int_equal(img.segs[1].memsz, DATA_MEM);
}

static void test_elf_refused(void **state)
{
	struct kernel k;
#define REFUSED(change, why)                                                                       \
	do {                                                                                       \
		make_kernel(&k);                                                                   \
		change;                                                                            \
		refused(&k, sizeof(k.bytes), why);                                                 \
	} while (0)
	make_kernel(&k);
	refused(&k, 0, "shorter");
	refused(&k, 63, "shorter");
	refused(&k, 64, "cut off");
	refused(&k, 100, "cut off");
	refused(&k, TEXT_OFF, "beyond the end");
	REFUSED(k.bytes[0] = 'M', "not an ELF file");
	REFUSED(k.eh->e_ident[EI_CLASS] = ELFCLASS32, "x86_64");
	REFUSED(k.eh->e_machine = EM_AARCH64, "x86_64");
	REFUSED(k.eh->e_phentsize = 1, "program headers");
	REFUSED(k.eh->e_phoff = UINT64_MAX - 8, "program headers");
	REFUSED(k.eh->e_phnum = 65535, "cut off");
	REFUSED(k.text->p_offset = UINT64_MAX - 100, "beyond the end");
	REFUSED(k.text->p_filesz = UINT64_MAX, "beyond the end");
	REFUSED(k.text->p_memsz = 1, "bigger in the file");
	REFUSED(k.text->p_paddr = 0x1000, "outside");
	REFUSED(k.text->p_paddr = UINT64_MAX - 0x1000, "outside");
	REFUSED(k.data->p_memsz = UINT64_MAX - DATA_PADDR + 1, "outside");
	REFUSED(k.data->p_memsz = X86_LOW_RAM_MAX, "outside");
	REFUSED(k.note->p_type = PT_NULL, "no PVH");
	REFUSED(k.nhdr->n_type = 17, "no PVH");
	REFUSED(k.nhdr->n_namesz = UINT32_MAX, "no PVH");
	REFUSED(k.nhdr->n_descsz = UINT32_MAX - 2, "no PVH");
	REFUSED(k.nhdr->n_descsz = 3, "no PVH");
	REFUSED(*k.entry = TEXT_PADDR - 1, "outside of the kernel");
	REFUSED(*k.entry = DATA_PADDR + DATA_LEN, "outside of the kernel");
	REFUSED(k.text->p_type = k.data->p_type = PT_NULL, "nothing to load");
#undef REFUSED
}

static char dir[] = "/tmp/test_boot_x86.XXXXXX";

static void put_file(const char *name, const void *data, size_t len, char *ret_path, size_t size)
{
	struct err err = { 0 };

	snprintf(ret_path, size, "%s/%s", dir, name);
	assert_ok(write_file_atomic(ret_path, data, len, 0600, false, &err), &err);
}

static uint32_t le32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}
static uint64_t le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static void test_load(void **state)
{
	static const char initramfs_text[5000] = "070701";
	struct kernel k;
	struct guestmem mem;
	struct err err = { 0 };
	char kernel[100], initramfs[100], *again;
	const struct boot_x86 b = {
		.kernel = kernel, .initramfs = initramfs, .cmdline = "hello world", .vcpus = 3
	};
	const uint8_t *ram, *mod, *map, *mp, *table;
	uint32_t entry, info, len;
	uint8_t *w, sum = 0;

	make_kernel(&k);
	put_file("vmlinux", k.bytes, sizeof(k.bytes), kernel, sizeof(kernel));
	put_file("initramfs", initramfs_text, sizeof(initramfs_text), initramfs, sizeof(initramfs));
	guestmem_init(&mem);
	assert_ok(boot_x86_ram(&mem, 64 * MIB, &err), &err);
	assert_ok(boot_x86_load(&mem, &b, &entry, &info, &err), &err);
	assert_int_equal(entry, TEXT_PADDR + 0x10);

	ram = guestmem_at(&mem, 0, 64 * MIB, GUEST_READ);
	assert_non_null(ram);
	assert_memory_equal(ram + TEXT_PADDR, k.bytes + TEXT_OFF, TEXT_LEN);
	assert_int_equal(ram[TEXT_PADDR + TEXT_LEN], 0);
	assert_memory_equal(ram + DATA_PADDR, k.bytes + DATA_OFF, DATA_LEN);
	assert_int_equal(ram[DATA_PADDR + DATA_LEN], 0);
	/* Start info: magic, one module at the top, command line, map. */
	assert_int_equal(le32(ram + info), 0x336ec578);
	assert_string_equal((const char *)ram + le64(ram + info + 24), "hello world");
	mod = ram + le64(ram + info + 16);
	assert_int_equal(le64(mod), 64 * MIB - 8192);
	assert_int_equal(le64(mod + 8), sizeof(initramfs_text));
	assert_memory_equal(ram + le64(mod), initramfs_text, sizeof(initramfs_text));
	map = ram + le64(ram + info + 40);
	assert_int_equal(le32(ram + info + 48), 2);
	assert_int_equal(le64(map + 24) + le64(map + 32), 64 * MIB);
	/* MP table: both parts sum up to 0; three CPUs. */
	mp = ram + 0xf0000;
	assert_memory_equal(mp, "_MP_", 4);
	for (int i = 0; i < 16; i++)
		sum = (uint8_t)(sum + mp[i]);
	assert_int_equal(sum, 0);
	table = ram + le32(mp + 4);
	assert_memory_equal(table, "PCMP", 4);
	len = table[4] | (uint32_t)table[5] << 8;
	for (uint32_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + table[i]);
	assert_int_equal(sum, 0);
	assert_int_equal(table[34], 3 + 1 + 1 + 24 + 2);
	/* What the guest writes stays its own. */
	w = guestmem_at(&mem, TEXT_PADDR, 1, GUEST_WRITE);
	*w = (uint8_t) ~*w;
	guestmem_fini(&mem);
	assert_ok(read_file(kernel, MIB, &again, NULL, &err), &err);
	assert_memory_equal(again, k.bytes, sizeof(k.bytes));
	free(again);
}

static void test_load_refused(void **state)
{
	static const char big[2 * 1024 * 1024] = "x";
	struct kernel k;
	struct guestmem mem;
	struct err err = { 0 };
	char kernel[100], initramfs[100], empty[100];
	uint32_t entry = 5, info = 6;
	struct boot_x86 b;

	make_kernel(&k);
	put_file("vmlinux", k.bytes, sizeof(k.bytes), kernel, sizeof(kernel));
	put_file("initramfs", big, sizeof(big), initramfs, sizeof(initramfs));
	put_file("empty", "", 0, empty, sizeof(empty));
	guestmem_init(&mem);
	assert_int_equal(boot_x86_ram(&mem, 4096, &err), -EINVAL);
	assert_int_equal(boot_x86_ram(&mem, 4 * MIB + 1, &err), -EINVAL);
	assert_ok(boot_x86_ram(&mem, 4 * MIB, &err), &err);
	b = (struct boot_x86){
		.kernel = kernel, .initramfs = initramfs, .cmdline = "", .vcpus = 1
	};
	/* Kernel up to 3 MiB and a bit, initramfs of 2: one MiB short. */
	assert_int_equal(boot_x86_load(&mem, &b, &entry, &info, &err), -ENOSPC);
	assert_text(err_text(&err), "initramfs");
	b.initramfs = empty;
	assert_int_equal(boot_x86_load(&mem, &b, &entry, &info, &err), -ENOEXEC);
	b.initramfs = dir;
	assert_int_equal(boot_x86_load(&mem, &b, &entry, &info, &err), -ENOEXEC);
	b.kernel = "/nonexistent/vmlinux";
	assert_int_equal(boot_x86_load(&mem, &b, &entry, &info, &err), -ENOENT);
	assert_text(err_text(&err), "/nonexistent/vmlinux");
	b.kernel = initramfs;
	assert_int_equal(boot_x86_load(&mem, &b, &entry, &info, &err), -ENOEXEC);
	b.kernel = kernel;
	b.vcpus = VM_VCPUS_MAX + 1;
	assert_int_equal(boot_x86_load(&mem, &b, &entry, &info, &err), -EINVAL);
	assert_true(entry == 5 && info == 6);
	guestmem_fini(&mem);

	guestmem_init(&mem);
	assert_ok(boot_x86_ram(&mem, 2 * MIB, &err), &err);
	b.vcpus = 1;
	assert_int_equal(boot_x86_load(&mem, &b, &entry, &info, &err), -ENOSPC);
	assert_text(err_text(&err), "does not fit");
	guestmem_fini(&mem);
}

/* More than 3 GiB: the rest is above the devices, and in the map. Nothing of it is touched. */
static void test_high_ram(void **state)
{
	struct guestmem mem;
	struct err err = { 0 };

	guestmem_init(&mem);
	assert_ok(boot_x86_ram(&mem, 8 * GIB, &err), &err);
	assert_int_equal(mem.n, 2);
	assert_non_null(guestmem_at(&mem, X86_LOW_RAM_MAX - 1, 1, GUEST_READ));
	assert_null(guestmem_at(&mem, X86_MMIO_BASE, 1, GUEST_READ));
	assert_null(guestmem_at(&mem, X86_HIGH_RAM - 1, 2, GUEST_READ));
	assert_non_null(guestmem_at(&mem, 9 * GIB - 1, 1, GUEST_WRITE));
	assert_null(guestmem_at(&mem, 9 * GIB, 1, GUEST_WRITE));
	guestmem_fini(&mem);
}

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}
static int teardown(void **state)
{
	return remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_elf),	 cmocka_unit_test(test_elf_refused),
		cmocka_unit_test(test_load),	 cmocka_unit_test(test_load_refused),
		cmocka_unit_test(test_high_ram),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
