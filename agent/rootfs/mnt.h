/*
 * The mount system calls as the agent needs them: file systems and copies are made as detached
 * mounts, and put in place by descriptor, never by a path that a container could bend. Leaf
 * functions: no state, any process.
 */
#ifndef HUSK_AGENT_ROOTFS_MNT_H
#define HUSK_AGENT_ROOTFS_MNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* One option of a file system; value NULL = a flag. */
struct mnt_opt {
	const char *key, *value;
};

/* A new file system as a detached mount. attr: MOUNT_ATTR_*. The text carries the kernel's own
 * words about a refused option where it has some. */
int mnt_new(const char *fstype, const struct mnt_opt *opts, size_t n, uint64_t attr, int *ret_fd,
	    struct err *err) must_check;
/* A detached copy of what is mounted at (dir, path); path "" = at `dir` itself. */
int mnt_clone(int dir, const char *path, bool recursive, int *ret_fd) must_check;
/* Attributes (MOUNT_ATTR_*) and propagation (MS_*, 0 = keep) of a mount, with all below it if
 * `recursive`. */
int mnt_attr(int fd, uint64_t set, uint64_t propagation, bool recursive) must_check;
/* Puts a detached mount on the O_PATH descriptor `where`. */
int mnt_attach(int mnt, int where) must_check;
/* ... or on a path of ours. */
int mnt_attach_path(int mnt, const char *path) must_check;

#endif
