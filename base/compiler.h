/* Attributes and small macros, with no code behind them. */
#ifndef HUSK_BASE_COMPILER_H
#define HUSK_BASE_COMPILER_H

#include <stddef.h>

#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define must_check __attribute__((warn_unused_result))
#define noreturn_fn __attribute__((noreturn))
#define cleanup_with(fn) __attribute__((cleanup(fn)))

/* For code that runs on a stack of its own, or between clone and exec. */
#define no_sanitize __attribute__((no_sanitize("address", "thread")))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

#endif
