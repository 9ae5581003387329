#include "vmm/guestmem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

void guestmem_init(struct guestmem *m)
{
	memset(m, 0, sizeof(*m));
}

void guestmem_fini(struct guestmem *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		struct guest_region *r = &m->regions[i];

		if (r->map_size > 0)
			munmap(r->host, r->map_size);
	}
	guestmem_init(m);
}

int guestmem_add(struct guestmem *m, const struct guest_region *r)
{
	if (!r->host || r->size == 0 || r->gpa + r->size < r->gpa || r->user + r->size < r->user)
		return -EINVAL;
	if (r->size > UINTPTR_MAX - (uintptr_t)r->host || ((uintptr_t)r->host - r->gpa) % 16 != 0)
		return -EINVAL;
	for (unsigned i = 0; i < m->n; i++) {
		const struct guest_region *o = &m->regions[i];

		if (r->gpa < o->gpa + o->size && o->gpa < r->gpa + r->size)
			return -EEXIST;
	}
	if (m->n == GUESTMEM_REGIONS_MAX)
		return -ENOSPC;
	m->regions[m->n++] = *r;
	return 0;
}

void *guestmem_at(const struct guestmem *m, uint64_t gpa, uint64_t len, enum guest_access access)
{
	if (len == 0)
		return NULL;
	for (unsigned i = 0; i < m->n; i++) {
		const struct guest_region *r = &m->regions[i];
		uint64_t off = gpa - r->gpa; /* huge when gpa is below */

		/* Subtractions only: neither gpa + len nor r->gpa + r->size may wrap here. */
		if (gpa < r->gpa || off >= r->size)
			continue;
		if (len > r->size - off || (access == GUEST_WRITE && r->readonly))
			return NULL;
		return r->host + off;
	}
	return NULL;
}

int guestmem_user_to_gpa(const struct guestmem *m, uint64_t user, uint64_t len, uint64_t *ret_gpa)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct guest_region *r = &m->regions[i];
		uint64_t off = user - r->user;

		if (user < r->user || off >= r->size)
			continue;
		if (len > r->size - off)
			return -EFAULT;
		*ret_gpa = r->gpa + off;
		return 0;
	}
	return -EFAULT;
}
