/*
 * Every allocation fails once: a function runs again and again, the first time with its first
 * allocation failing, then with its second, until a run needs no more. Link the test with torture.c
 * and
 * ${HUSK_TORTURE} (CMakeLists.txt): the linker then wraps malloc and its relatives in our code.
 * Memory that a shared library allocates for itself is not counted.
 */
#ifndef HUSK_TEST_LIB_TORTURE_H
#define HUSK_TEST_LIB_TORTURE_H

#include <stdbool.h>

/* 0 or -errno. Must leave nothing behind, fail or not. -ENOMEM is what a failed allocation should
 * give; 0 is fine, too, if the function can do without. */
typedef int (*torture_fn)(void *arg);

/* Fails the test when fn gives another error than -ENOMEM in a run with a failing allocation, any
 * error in the last run, or (leaks) when blocks are still allocated after a run. Returns the number
 * of runs; at most `most` (the test fails beyond it). */
unsigned torture(torture_fn fn, void *arg, bool leaks, unsigned most);

/* True in a run whose allocation has failed already. */
bool torture_failed(void);

#endif
