/* Bytes that host and guest both know, and a hash over them. No dependencies: the guest uses it. */
#ifndef HUSK_TEST_LIB_VMM_PATTERN_H
#define HUSK_TEST_LIB_VMM_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START 14695981039346656037ull

/* FNV-1a. */
static inline uint64_t hash_add(uint64_t h, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 1099511628211ull;
	return h;
}

/* Byte `at` of the pattern with this seed: no period that a lost page could hide in. */
static inline uint8_t pattern_byte(uint64_t at, unsigned seed)
{
	return (uint8_t)(at * 31 + (at >> 8) * 7 + (at >> 20) * 13 + seed);
}

static inline void pattern_fill(uint8_t *p, size_t n, uint64_t at, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = pattern_byte(at + i, seed);
}

#endif
