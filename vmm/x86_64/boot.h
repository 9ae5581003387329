/*
 * Direct boot of an x86_64 Linux: guest memory, an ELF vmlinux entered through PVH (the Xen note
 * PHYS32_ENTRY), initramfs, start info, memory map and MP table. No firmware, no ACPI.
 * Kernel and initramfs are mapped privately from their files where the pages fit, so that VMs share
 * what they do not write: the files must not be truncated while a VM runs (replace them by rename).
 *
 * Layout: RAM from 0 to at most 3 GiB, the devices' registers from there, local APIC and IOAPIC at
 * their usual places below 4 GiB, the rest of the RAM from 4 GiB.
 *
 * The ELF file counts as foreign bytes: nothing outside it is read, nothing outside RAM written.
 */
#ifndef HUSK_VMM_X86_64_BOOT_H
#define HUSK_VMM_X86_64_BOOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "vmm/guestmem.h"

#define X86_LOW_RAM_MAX 0xc0000000ull
#define X86_MMIO_BASE 0xc0000000ull /* one page for each device */
#define X86_IRQ_BASE 5u		    /* GSI of the first device; IOAPIC pins 5..23 are free */
#define X86_IRQ_MAX 23u
#define X86_HIGH_RAM 0x100000000ull

/* ELF vmlinux */
#define ELF_SEGMENTS_MAX 16
#define ELF_KERNEL_MIN 0x100000ull /* nothing is loaded below 1 MiB */
#define KERNEL_FILE_MAX (256 * MIB)
#define INITRAMFS_FILE_MAX (1024 * MIB)

struct elf_segment {
	uint64_t offset, filesz; /* in the file, within its length */
	uint64_t paddr, memsz;	 /* memsz >= filesz; paddr + memsz <= X86_LOW_RAM_MAX */
};

struct elf_image {
	struct elf_segment segs[ELF_SEGMENTS_MAX];
	unsigned n;
	uint32_t entry; /* 32-bit PVH entry, within a segment */
};

/* `file` of `len` bytes, aligned to 8. -ENOEXEC with a text that says what is wrong. */
int elf_parse(const void *file, size_t len, struct elf_image *ret, struct err *err) must_check;

struct boot_x86 {
	const char *kernel, *initramfs; /* paths */
	const char *cmdline;		/* at most VM_CMDLINE_MAX characters */
	unsigned vcpus;
};

/* Adds RAM of `size` bytes (a multiple of 4 KiB) to an empty table. */
int boot_x86_ram(struct guestmem *mem, uint64_t size, struct err *err) must_check;
/* Fills RAM; where the first vCPU starts, and its ebx (start info). -ENOENT, -ENOEXEC, -ENOSPC
 * (does not fit the RAM). */
int boot_x86_load(struct guestmem *mem, const struct boot_x86 *b, uint32_t *ret_entry,
		  uint32_t *ret_start_info, struct err *err) must_check;

#endif
