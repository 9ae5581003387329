#include "image/failure.h"

#include <errno.h>

bool failure_unavailable(int code)
{
	return code == -EHOSTUNREACH || code == -ECONNREFUSED || code == -ETIMEDOUT ||
	       code == -EREMOTEIO;
}
