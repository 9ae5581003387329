/* The guest kernel's ELF file: what is accepted lies within the file and the RAM. */
#include "test/fuzz/fuzz.h"

#include "vmm/x86_64/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct elf_image img;
	if (elf_parse(data, size, &img, NULL) < 0)
		return 0;
	fuzz_assert(img.n > 0 && img.n <= ELF_SEGMENTS_MAX);
	for (unsigned i = 0; i < img.n; i++) {
		const struct elf_segment *s = &img.segs[i];
		fuzz_assert(s->offset <= size && s->filesz <= size - s->offset);
		fuzz_assert(s->filesz <= s->memsz && s->paddr >= ELF_KERNEL_MIN);
		fuzz_assert(s->paddr < X86_LOW_RAM_MAX && s->memsz <= X86_LOW_RAM_MAX - s->paddr);
	}
	return 0;
}
