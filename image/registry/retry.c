#include "image/registry/retry.h"

#include "base/util.h"

bool retry_status(long status)
{
	return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

uint64_t retry_delay_ms(unsigned base_ms, unsigned failures, uint32_t random, uint64_t after_s)
{
	uint64_t ms = base_ms;

	for (unsigned k = 1; k < failures && ms < RETRY_CAP_MS; k++)
		ms *= 2;
	ms = MIN_OF(ms, (uint64_t)RETRY_CAP_MS);
	ms -= ms / 2 * random / UINT32_MAX;
	return MAX_OF(ms, MIN_OF(after_s, (uint64_t)RETRY_MAX_AFTER_S) * 1000);
}
