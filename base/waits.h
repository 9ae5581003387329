/*
 * Who waits for something to happen once: a list of callbacks, run and emptied together. Embedded
 * in the thing waited for; all zero is an empty list. Loop's thread.
 */
#ifndef HUSK_BASE_WAITS_H
#define HUSK_BASE_WAITS_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* code and err say how it went; err is never NULL. */
typedef void (*wait_fn)(void *arg, int code, const struct err *err);

struct wait;
struct waits {
	struct wait *first, **last;
};

/* Appends an entry. fn may be NULL in a list that only waits_pop empties. -ENOMEM. */
int waits_add(struct waits *w, wait_fn fn, void *arg) must_check;
/* Forgets the oldest entry with this arg, which must be there; its callback is not called. An entry
 * that waits_run has taken is not there any more: its callback is called in any case. */
void waits_remove(struct waits *w, const void *arg);
/* Calls all, oldest first. One that is added meanwhile waits for the next time. A callback may free
 * the list's owner. */
void waits_run(struct waits *w, int code, const struct err *err);
/* Takes the oldest entry out without calling it, for an owner who has more to say than a code: its
 * arg, NULL when the list is empty. What follows it can still be removed. */
void *waits_pop(struct waits *w) must_check;
bool waits_empty(const struct waits *w);

#endif
