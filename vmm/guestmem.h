/*
 * Guest memory: a small table of regions, and the one function that turns a guest address into a
 * pointer. Nothing else in the monitor translates addresses; what the function refuses cannot be
 * touched. The guest may change the bytes behind a pointer at any time: what is to be checked is
 * copied first, once.
 *
 * The table is filled before queues are enabled and does not change while one is (vhost-user stops
 * its rings first), so any thread may look up.
 */
#ifndef HUSK_VMM_GUESTMEM_H
#define HUSK_VMM_GUESTMEM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

#define GUESTMEM_REGIONS_MAX 8

/* What the device does with the bytes. */
enum guest_access { GUEST_READ, GUEST_WRITE };

struct guest_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *host;
	size_t map_size; /* > 0: owned, guestmem_fini unmaps host[0, map_size) */
	uint64_t user;	 /* vhost-user: the same region in QEMU's address space */
	bool readonly;	 /* GUEST_WRITE is refused */
};

struct guestmem {
	struct guest_region regions[GUESTMEM_REGIONS_MAX];
	unsigned n;
};

void guestmem_init(struct guestmem *m);
void guestmem_fini(struct guestmem *m); /* unmaps; the table is empty then */

/* Adds a region. -EINVAL: empty, wraps around, or the host's and the guest's
 * addresses are not equally aligned (to 16, what a ring needs); -EEXIST: overlaps; -ENOSPC: table
 * full. On failure the mapping stays the caller's. */
int guestmem_add(struct guestmem *m, const struct guest_region *r) must_check;

/* The bytes [gpa, gpa + len) when they lie in one region and `access` is allowed; NULL otherwise.
 * len 0 is refused. */
void *guestmem_at(const struct guestmem *m, uint64_t gpa, uint64_t len, enum guest_access access);

/* vhost-user: the guest address of QEMU's [user, user + len). -EFAULT. */
int guestmem_user_to_gpa(const struct guestmem *m, uint64_t user, uint64_t len,
			 uint64_t *ret_gpa) must_check;

#endif
