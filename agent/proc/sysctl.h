/* Kernel parameters, by sysctl name: "a.b.c", or "a/b.x/c" where dots are part of names. Leaf
 * functions. */
#ifndef HUSK_AGENT_PROC_SYSCTL_H
#define HUSK_AGENT_PROC_SYSCTL_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* It belongs to a namespace that a container has for itself (own_ipc: also the IPC namespace), or
 * to the pod's network, which its containers share. */
bool sysctl_namespaced(const char *name, bool own_ipc);
/* In the calling process's namespaces; the name was checked by validate.c. -EINVAL: the kernel has
 * none of that name. */
int sysctl_write(const char *name, const char *value, struct err *err) must_check;

#endif
