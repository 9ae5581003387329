/*
 * What every harness defines. Returns 0; a finding is a crash (a sanitizer, or `fuzz_assert`).
 * Run by libFuzzer (cmake -DHUSK_FUZZ=ON, clang), or over its corpus by test/fuzz/replay.c.
 */
#ifndef HUSK_TEST_FUZZ_FUZZ_H
#define HUSK_TEST_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stays in builds with NDEBUG. */
#define fuzz_assert(cond)                                                                          \
	do {                                                                                       \
		if (!(cond))                                                                       \
			__builtin_trap();                                                          \
	} while (0)

#endif
