/*
 * The guest's wall clock follows the host's: set at the start of the pod, corrected when the host
 * says what time it is. CLOCK_MONOTONIC is never touched. Leaf functions; the loop's thread.
 */
#ifndef HUSK_AGENT_CLOCK_H
#define HUSK_AGENT_CLOCK_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* A smaller difference than this is slewed away (500 ppm: half a second takes 17 minutes), a larger
 * one is a step. Below the second that the guest may differ from the host. */
#define CLOCK_STEP_NS (500 * NS_PER_MS)

/* Sets CLOCK_REALTIME. -EINVAL: before the time that the guest has been up. */
int clock_set(int64_t realtime_ns, struct err *err) must_check;
/* Slews or steps towards the host's time. -EINVAL: not a time. */
int clock_follow(int64_t realtime_ns, struct err *err) must_check;

#endif
