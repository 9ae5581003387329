/*
 * Threads of the monitor beside its main loop: with all signals blocked, which are the loop's, and
 * a small stack, because they call nothing deep. On any thread.
 */
#ifndef HUSK_VMM_THREAD_H
#define HUSK_VMM_THREAD_H

#include <pthread.h>

#include "base/compiler.h"

/* 0 or -errno. The caller joins it. */
int thread_start(pthread_t *ret, void *(*thread_main)(void *arg), void *arg) must_check;

#endif
