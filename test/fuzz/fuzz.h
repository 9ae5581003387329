/*
 * What every harness defines. Returns 0; a finding is a crash (a sanitizer, or `fuzz_assert`).
 * Run by libFuzzer (cmake -DHUSK_FUZZ=ON, clang), or over its corpus by test/fuzz/replay.c.
 */
#ifndef HUSK_TEST_FUZZ_FUZZ_H
#define HUSK_TEST_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stays in builds with NDEBUG. */
#define fuzz_assert(cond)                                                                          \
	do {                                                                                       \
		if (!(cond))                                                                       \
			__builtin_trap();                                                          \
	} while (0)

/* An input that is read as a file; fuzz_pread is as pread(), `arg` is the input. */
struct fuzz_file {
	const uint8_t *p;
	size_t n;
};

static inline ssize_t fuzz_pread(void *arg, void *buf, size_t n, uint64_t offset)
{
	const struct fuzz_file *f = arg;

	if (offset >= f->n)
		return 0;
	if (n > f->n - offset)
		n = f->n - offset;
	memcpy(buf, f->p + offset, n);
	return (ssize_t)n;
}

#endif
