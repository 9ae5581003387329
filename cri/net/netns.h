/*
 * Named network namespaces, as `ip netns` has them: a file on which the namespace is mounted, in a
 * directory whose mounts are shared, so that processes in other mount namespaces see them, too.
 */
#ifndef HUSK_CRI_NET_NETNS_H
#define HUSK_CRI_NET_NETNS_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* Makes the directory and its mount, where they are not there yet. */
int netns_dir_prepare(const char *dir, struct err *err) must_check;
/* Makes the namespace, with `lo` up; one that is there already stays. Puts the calling thread into
 * it, so it must be a thread that ends after this. Waits for the kernel's lock of all networks. */
int netns_create(const char *path, struct err *err) must_check;
/* Is a network namespace there? A file alone is none. */
bool netns_there(const char *path);
/* Also when only a part of it is there, or nothing. */
int netns_remove(const char *path, struct err *err) must_check;

#endif
