#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

void check_failed(const char *file, int line, const char *function, const char *cond)
{
	char where[160];

	(void)snprintf(where, sizeof(where), "%s:%d (%s)", file, line, function);
	log_error("a bug in this program: an invariant is broken", "at", where, "check", cond);
	abort();
}
