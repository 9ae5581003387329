/*
 * Invariants as code. check(cond) tests what only a bug of our own can break: the arrows of a state
 * machine, exactly one reply for each call, who owns what, membership in a list. It stays in
 * release builds: a process whose own books are wrong stops at once, instead of going on with
 * memory that it no longer understands.
 *
 * Never for what a peer, a guest, an image, a disk, a user or a full memory can cause: those get an
 * error. Any thread, also between fork and exec.
 */
#ifndef HUSK_BASE_CHECK_H
#define HUSK_BASE_CHECK_H

#include "base/compiler.h"

#define check(cond) ((cond) ? (void)0 : check_failed(__FILE_NAME__, __LINE__, __func__, #cond))

/* Logs the place and the condition as an error, then aborts (log.c). */
noreturn_fn void check_failed(const char *file, int line, const char *function, const char *cond);

#endif
