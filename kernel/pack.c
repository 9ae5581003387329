/*
 * pack IN OUT: a vmlinux with nothing but what is loaded. Sections and symbols go, and so does
 * filler: the linker aligns the parts of an x86_64 kernel to 2 MiB and fills the room between them
 * (3 MiB of a 13 MiB file), which would be read at each start and touched in each VM. A segment
 * with such a gap becomes two; what is not loaded reads as zeros in fresh RAM, and the kernel gives
 * these pages to its allocator anyway. Offsets in the file stay congruent to addresses modulo the
 * page size, so that a monitor can map the file.
 *
 * Used by kernel/build on its own output: input is trusted, mistakes end in a message.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define GAP_MIN (64u * 1024) /* shorter filler stays */
#define SEGMENTS_MAX 16u     /* what the monitor's loader takes (vmm/x86_64/boot.h) */

struct image {
	const uint8_t *in;
	size_t len;
	Elf64_Phdr out[SEGMENTS_MAX];
	const uint8_t *data[SEGMENTS_MAX];
	unsigned n;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "pack: %s\n", what);
	exit(1);
}

/* Bytes of filler from p on: all zero, or all int3. */
static size_t filler(const uint8_t *p, size_t len)
{
	size_t n = 0;
	if (len == 0 || (p[0] != 0 && p[0] != 0xcc))
		return 0;
	while (n < len && p[n] == p[0])
		n++;
	return n;
}

static void add(struct image *im, const Elf64_Phdr *ph, size_t from, size_t to, size_t mem_to)
{
	if (im->n == SEGMENTS_MAX)
		die("too many segments");
	Elf64_Phdr *o = &im->out[im->n];
	*o = *ph;
	o->p_vaddr += from;
	o->p_paddr += from;
	o->p_filesz = to - from;
	o->p_memsz = mem_to - from;
	o->p_align = PAGE;
	im->data[im->n++] = im->in + ph->p_offset + from;
}

/* Cuts a segment where whole pages hold nothing but filler. */
static void split(struct image *im, const Elf64_Phdr *ph)
{
	const uint8_t *p = im->in + ph->p_offset;
	size_t size = ph->p_filesz, begin = 0, at = 0;
	while (at < size) {
		size_t n = filler(p + at, size - at);
		size_t end = at + n;
		/* Page borders are those of the address. */
		size_t from = at + (-(ph->p_paddr + at) & (PAGE - 1));
		size_t to = end - ((ph->p_paddr + end) & (PAGE - 1));
		if (n < GAP_MIN || to <= from) {
			at += n > 0 ? n : 1;
			continue;
		}
		if (from > begin)
			add(im, ph, begin, from, from);
		begin = at = to;
	}
	if (begin < size || ph->p_memsz > size)
		add(im, ph, begin, size, ph->p_memsz);
}

static void write_image(struct image *im, const Elf64_Phdr *note, const char *path)
{
	Elf64_Ehdr eh;
	memcpy(&eh, im->in, sizeof(eh));
	eh.e_phoff = sizeof(eh);
	eh.e_phnum = (Elf64_Half)(im->n + 1);
	eh.e_shoff = 0;
	eh.e_shnum = eh.e_shstrndx = 0;

	Elf64_Phdr note_out = *note;
	bool found = false;
	uint64_t off = sizeof(eh) + (im->n + 1) * sizeof(Elf64_Phdr);
	for (unsigned i = 0; i < im->n; i++) {
		Elf64_Phdr *o = &im->out[i];
		off += (o->p_paddr - off) & (PAGE - 1);
		o->p_offset = off;
		off += o->p_filesz;
		if (note->p_paddr >= o->p_paddr &&
		    note->p_paddr + note->p_filesz <= o->p_paddr + o->p_filesz) {
			note_out.p_offset = o->p_offset + (note->p_paddr - o->p_paddr);
			found = true;
		}
	}
	if (!found)
		die("the notes (PVH entry) are in no segment");

	FILE *f = fopen(path, "we");
	if (!f)
		die(strerror(errno));
	fwrite(&eh, sizeof(eh), 1, f);
	fwrite(im->out, sizeof(im->out[0]), im->n, f);
	fwrite(&note_out, sizeof(note_out), 1, f);
	for (unsigned i = 0; i < im->n; i++) {
		if (fseek(f, (long)im->out[i].p_offset, SEEK_SET) != 0)
			die("seek");
		fwrite(im->data[i], 1, im->out[i].p_filesz, f);
	}
	if (ferror(f) || fclose(f) != 0)
		die("cannot write the output");
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: pack IN OUT\n");
		return 2;
	}
	static struct image im;
	int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size < sizeof(Elf64_Ehdr))
		die("cannot read the input");
	im.len = (size_t)st.st_size;
	im.in = mmap(NULL, im.len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (im.in == MAP_FAILED)
		die(strerror(errno));

	const Elf64_Ehdr *eh = (const void *)im.in;
	if (memcmp(eh->e_ident, ELFMAG, SELFMAG) != 0 || eh->e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh->e_phoff + eh->e_phnum * sizeof(Elf64_Phdr) > im.len)
		die("not a 64-bit ELF file");
	const Elf64_Phdr *ph = (const void *)(im.in + eh->e_phoff), *note = NULL;
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_offset + ph[i].p_filesz > im.len)
			die("segment beyond the end");
		if (ph[i].p_type == PT_LOAD && ph[i].p_memsz > 0)
			split(&im, &ph[i]);
		else if (ph[i].p_type == PT_NOTE)
			note = &ph[i];
	}
	if (im.n == 0 || !note)
		die("no segments, or no notes");
	write_image(&im, note, argv[2]);
	return 0;
}
