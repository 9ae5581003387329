#include "agent/clock.h"

#include <errno.h>
#include <sys/time.h>
#include <time.h>

#include "base/util.h"

int clock_set(int64_t realtime_ns, struct err *err)
{
	struct timespec ts = { .tv_sec = (time_t)(realtime_ns / (int64_t)NS_PER_S),
			       .tv_nsec = (long)(realtime_ns % (int64_t)NS_PER_S) };

	if (clock_settime(CLOCK_REALTIME, &ts) < 0)
		return err_errno(err, -errno, "set the clock");
	return 0;
}

int clock_follow(int64_t realtime_ns, struct err *err)
{
	int64_t now = now_real_ns(), diff;
	struct timeval slew;

	if (realtime_ns <= 0)
		return err_set(err, -EINVAL, "realtime_ns: more than 0 expected");
	/* Both are positive: no overflow. */
	diff = realtime_ns - now;
	if (diff >= (int64_t)CLOCK_STEP_NS || diff <= -(int64_t)CLOCK_STEP_NS)
		return clock_set(realtime_ns, err);
	/* Replaces what was left of an earlier one; tv_usec may be negative. */
	slew = (struct timeval){ .tv_usec = (suseconds_t)(diff / 1000) };
	if (adjtime(&slew, NULL) < 0)
		return err_errno(err, -errno, "slew the clock");
	return 0;
}
