#include "shim/id.h"

#include <string.h>

#include "base/limits.h"

bool shim_id_valid(const char *id)
{
	static const char fine[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	size_t n = strlen(id);

	return n > 0 && n <= CONTAINER_ID_MAX && strspn(id, fine) == n && !strchr("_.-", id[0]);
}
