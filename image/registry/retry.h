/* When a request to a registry is tried again, and after how long. Pure. */
#ifndef HUSK_IMAGE_REGISTRY_RETRY_H
#define HUSK_IMAGE_REGISTRY_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#define RETRY_BASE_MS 500u
#define RETRY_CAP_MS 30000u
#define RETRY_ROUNDS 6u	      /* in a row without progress, when the registry has answered before */
#define RETRY_ROUNDS_FIRST 3u /* of a registry that never answered: a wrong name, perhaps */
#define RETRY_MAX_AFTER_S 120 /* a Retry-After beyond that is a refusal */
#define RETRY_PROGRESS (16 * 1024u) /* bytes of a blob that count as progress */

/* Of an HTTP status: may another try help? (Of a failed connection: failure_unavailable.) */
bool retry_status(long status);
/*
 * Before try number `failures` + 1: base_ms, doubled each time, RETRY_CAP_MS at most, of which
 * `random` takes away up to a half so that many clients do not come back together; not less than
 * what the registry asked for (`after_s`, 0 = nothing).
 */
uint64_t retry_delay_ms(unsigned base_ms, unsigned failures, uint32_t random, uint64_t after_s);

#endif
