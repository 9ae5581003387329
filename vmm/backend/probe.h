/*
 * Can /dev/kvm of this host run a guest kernel, and at a useful speed? Asks the kernel, and runs a
 * probe guest (x86_64/probe.c): long mode with paging, a calibrated loop, int3 through an IDT,
 * xsave and xrstor. Some hosts offer a /dev/kvm that emulates kernel code instruction by
 * instruction; a kernel does not boot there, and nothing but trying tells.
 *
 * The guest runs in a child process that is killed at a deadline, so the answer always comes.
 */
#ifndef HUSK_VMM_BACKEND_PROBE_H
#define HUSK_VMM_BACKEND_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#define PROBE_DEADLINE_MS 250	  /* of the probe guest; the whole call takes little more */
#define PROBE_LOOP_TURNS 1000000u /* of its loop: two instructions each */
/* Instructions a second. Emulating hosts run 1 to 2 million; QEMU's emulation of a whole AMD
 * machine more than 50, hardware thousands. */
#define PROBE_RATE_MIN 10e6

struct probe_result {
	bool usable;
	char reason[256]; /* for people: what was found, usable or not */
	char fix[256];	  /* what one can do about it; "" when usable */
};

/* What the guest has reached. */
enum probe_stage { PROBE_LOOP = 1, PROBE_INT3 = 2, PROBE_XSAVE = 3, PROBE_DONE = 4 };

/* How the guest ended. */
struct probe_verdict {
	int error;			/* errno of what failed before it ran, 0 = it ran */
	char what[48];			/* the call that failed */
	uint32_t stage;			/* enum probe_stage; 0 = not even the loop */
	uint32_t exit_reason, suberror; /* KVM_EXIT_x; KVM_EXIT_INTR = stopped at the deadline */
	uint64_t turns_left;		/* of the loop */
	uint64_t loop_ns; /* the whole guest, which is the loop but for a few instructions */
};

/* Any thread. Always fills in everything. */
void probe_kvm(struct probe_result *ret);

/* The parts. What a verdict means, in words. Pure. */
void probe_judge(const struct probe_verdict *v, struct probe_result *ret);
/* The architecture's: runs the guest, until it has ended or a signal that the architecture has made
 * for that comes at four fifths of the deadline. In a child of its own: what it opens, blocks and
 * maps ends with it. */
void probe_arch_run(int kvm, struct probe_verdict *v);

#endif
