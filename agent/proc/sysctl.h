/* Kernel parameters, by sysctl name. Leaf function. */
#ifndef HUSK_AGENT_PROC_SYSCTL_H
#define HUSK_AGENT_PROC_SYSCTL_H

#include "base/compiler.h"
#include "base/err.h"

/* Of the calling process's namespaces. "a.b.c" or "a/b.x/c", checked by validate.c. -EINVAL: no
 * such. */
int sysctl_write(const char *name, const char *value, struct err *err) must_check;

#endif
