/*
 * The guest's CLOCK_REALTIME follows the host's: it is set when the pod is up, when the host's
 * clock was set or the host woke up (the kernel tells by a timer that is cancelled then), and
 * along with each beat of liveness.h against drift. An answer that was long in coming tells that
 * the time was old when it arrived, so it is sent again. Loop thread.
 */
#ifndef HUSK_SHIM_POD_GUEST_CLOCK_H
#define HUSK_SHIM_POD_GUEST_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "shim/vm/agent_client.h"

#define GUEST_CLOCK_LATE_NS (200 * NS_PER_MS)
#define GUEST_CLOCK_TRIES 5 /* in a row, with a guest that is always late */

/* Embedded in its owner, which outlives the agent. All zero = stopped. */
struct guest_clock {
	struct agent *agent; /* borrowed; NULL = stopped */
	int fd;
	struct ev_io io;
	bool sent, again; /* the answer is due; the clock was set meanwhile */
	unsigned tries;
	uint64_t sent_ns;
};

/* Sets the guest's clock for the first time. Without the kernel's notice (returned as -errno) the
 * clock is set by guest_clock_set alone. */
int guest_clock_start(struct guest_clock *g, struct loop *loop, struct agent *agent,
		      struct err *err) must_check;
void guest_clock_set(struct guest_clock *g);  /* nothing when stopped */
void guest_clock_stop(struct guest_clock *g); /* before the agent is freed; again is fine */

#endif
