/*
 * Paths below a root that a container controls. Everything goes through openat2 with
 * RESOLVE_IN_ROOT and without magic links, so a symlink in an image can neither leave the root nor
 * reach another process through /proc. Leaf functions: no state, any process.
 */
#ifndef HUSK_AGENT_ROOTFS_PATH_H
#define HUSK_AGENT_ROOTFS_PATH_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

enum path_kind { PATH_DIR, PATH_FILE };

/* flags as of open(2); O_CLOEXEC is added, symlinks are followed within `root`. */
int path_open(int root, const char *path, int flags, int *ret_fd) must_check;
/* An O_PATH descriptor of `path` below `root`; what is missing on the way is made (directories
 * 0755, a file 0644), also behind symlinks that point nowhere. -ENOTDIR, -EISDIR if the last one is
 * of another kind. */
int path_make(int root, const char *path, enum path_kind kind, int *ret_fd) must_check;
/* The whole of a regular file below `root`, NUL behind its end. Nothing that is not a regular file
 * is opened for reading (a FIFO would block). -ENOENT, -EFBIG, -EINVAL: not a regular file. */
int path_read(int root, const char *path, size_t max, char **ret, size_t *ret_len) must_check;
/* openat + write + close of a short text, for files of /proc, /sys and cgroups. */
int write_at(int dir, const char *name, const char *text) must_check;
/* An unsigned number out of "key N" lines of such a file ("oom_kill 3"); key NULL: the file's first
 * word. */
int read_number_at(int dir, const char *name, const char *key, uint64_t *ret) must_check;

#endif
