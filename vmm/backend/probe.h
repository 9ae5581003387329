/*
 * Can /dev/kvm of this host run a guest kernel, and at a useful speed? Asks the kernel, and runs a
 * probe guest: long mode with paging, a calibrated loop, int3 through an IDT, xsave and xrstor.
 * Some hosts offer a /dev/kvm that emulates kernel code instruction by instruction; a kernel does
 * not boot there, and nothing but trying tells.
 *
 * The guest runs in a child process that is killed at a deadline, so the answer always comes.
 */
#ifndef HUSK_VMM_BACKEND_PROBE_H
#define HUSK_VMM_BACKEND_PROBE_H

#include <stdbool.h>

#define PROBE_DEADLINE_MS 250 /* of the probe guest; the whole call takes little more */

struct probe_result {
	bool usable;
	char reason[256]; /* for people: what was found, usable or not */
	char fix[256];	  /* what one can do about it; "" when usable */
};

/* Any thread. Always fills in everything. */
void probe_kvm(struct probe_result *ret);

#endif
