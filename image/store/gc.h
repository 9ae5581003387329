/*
 * What may go from the store: leases, collection, making room. Inside of image/, loop thread only.
 *
 * A layer or blob stays as long as an image refers to it (and holds keep images), or a lease names
 * it: every pull, load, push, save, verify takes one for what it works with. Leases live in this
 * process only, so those of a dead one are gone.
 *
 * What has come in and is part of no image yet is "pending" (its row says since when). It stays for
 * GC_PENDING_S, so that the next pull resumes one that broke, or whose huskd died.
 */
#ifndef HUSK_IMAGE_STORE_GC_H
#define HUSK_IMAGE_STORE_GC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define GC_PENDING_S (24 * 3600)

struct lease;
struct store;

int lease_new(struct store *s, struct lease **ret, struct err *err) must_check;
/* A diff id, merged id, or blob digest; there or not. Twice is fine. */
int lease_add(struct lease *l, const char *digest, struct err *err) must_check;
/* Ends it and collects. `forget`: what it names need not be kept for a later pull (the data are
 * bad, the disk is full). NULL is fine. */
void lease_end(struct lease *l, bool forget);
/* Does any lease name it? */
bool lease_covers(const struct store *s, const char *digest);

/* Deletes layers and blobs that nothing protects. */
int gc_collect(struct store *s, struct err *err) must_check;
/* The disk is full: removes all that is only kept for later pulls; what cannot be removed now, when
 * the next lease ends. */
void gc_make_room(struct store *s);
/*
 * Is there room for `need` bytes beside the reserve (space.h)? 1; 0: not yet, for what is kept for
 * later goes, which takes a moment: the caller asks again; -ENOSPC, patience_ns after the first
 * time. *until_ns is the caller's, 0 at first.
 */
int gc_wait_room(struct store *s, uint64_t need, uint64_t patience_ns, uint64_t *until_ns,
		 struct err *err) must_check;

/* ---- the store's own ---- */

void gc_make_room_at_end(struct store *s);
/* Takes the file out of sight and removes it off the loop. Its row must be gone. */
void gc_discard(struct store *s, const char *path);

#endif
