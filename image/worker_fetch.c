#include "image/worker.h"
int worker_fetch(void)
{
	return 1;
}
