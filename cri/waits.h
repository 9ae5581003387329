/*
 * Who waits for something to happen once: a list of callbacks, run and emptied together. Embedded
 * in the thing waited for; all zero is an empty list. Loop's thread.
 */
#ifndef HUSK_CRI_WAITS_H
#define HUSK_CRI_WAITS_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* code and err say how it went; err is never NULL. */
typedef void (*wait_fn)(void *arg, int code, const struct err *err);

struct wait;
struct waits {
	struct wait *first, **last;
};

int waits_add(struct waits *w, wait_fn fn, void *arg) must_check; /* -ENOMEM */
/* Forgets the first entry with this arg; its callback is not called. */
void waits_remove(struct waits *w, void *arg);
/* Calls all, oldest first. One that is added meanwhile waits for the next time. */
void waits_run(struct waits *w, int code, const struct err *err);
bool waits_empty(const struct waits *w);

#endif
