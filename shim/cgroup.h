/*
 * The pod's cgroup on the host: monitor and QEMU are in it, so that one pod's memory is one pod's
 * end, and so that all of it can be killed at once. cgroup v2, or v1's memory controller; where the
 * host has neither, or does not let us, a pod does without. Leaf functions; a path is that of the
 * cgroup's directory, below /sys/fs/cgroup.
 */
#ifndef HUSK_SHIM_CGROUP_H
#define HUSK_SHIM_CGROUP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

#define CGROUP_OWN "/husk" /* the parent where the client names none, or one that is not there */

/* Where the cgroup of a pod is to be: "<parent>/husk-<id>". parent: of the CRI, a path, or the name
 * of a systemd slice ("a-b.slice" lies in "a.slice"); "" = none. One that is not there, or whose
 * own limit has no room for `bytes` (a pod whose overhead was not told), is not taken. The caller
 * frees *ret. -EOPNOTSUPP: the host has no cgroups that serve; -EINVAL: parent is no such name. */
int cgroup_path(const char *parent, const char *id, uint64_t bytes, char **ret,
		struct err *err) must_check;
/* Makes the directory, and its parent where that is our own. */
int cgroup_make(const char *path, struct err *err) must_check;
/* More than this ends what is in there, all together on v2. */
int cgroup_limit_memory(const char *path, uint64_t bytes, struct err *err) must_check;
int cgroup_add(const char *path, pid_t pid, struct err *err) must_check;
/* SIGKILLs everything that is in there. A path that is gone is fine. */
int cgroup_kill(const char *path) must_check;
/* -EBUSY: something is in there still. Gone already is fine. */
int cgroup_remove(const char *path) must_check;

#endif
