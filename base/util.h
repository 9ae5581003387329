/*
 * Ownership helpers, strings, files and clocks. Leaf functions: no state, any thread.
 *
 * A local that owns something carries a cleanup attribute; ownership leaves through take_fd or
 * take_ptr only:
 *	cleanup_fd int fd = open(...);
 *	...
 *	*ret_fd = take_fd(&fd);
 */
#ifndef HUSK_BASE_UTIL_H
#define HUSK_BASE_UTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

void fd_close(int *fd); /* closes when >= 0, sets -1, keeps errno */
void free_ptr(void *p); /* p is the address of a pointer: frees, sets NULL */
#define cleanup_fd cleanup_with(fd_close)
#define cleanup_free cleanup_with(free_ptr)
#define cleanup_strv cleanup_with(strv_freep)

static inline int take_fd(int *fd)
{
	int r = *fd;
	*fd = -1;
	return r;
}

#define take_ptr(p)                                                                                \
	({                                                                                         \
		__typeof__(*(p)) *take_p = (p);                                                    \
		__typeof__(*(p)) take_v = *take_p;                                                 \
		*take_p = NULL;                                                                    \
		take_v;                                                                            \
	})

/* ---- strings ---- */
static inline bool str_empty(const char *s)
{
	return !s || !*s;
}
bool str_eq(const char *a, const char *b); /* NULL equals NULL only */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
/* snprintf that allocates. NULL only when out of memory; the caller frees. */
char *str_fmt(const char *fmt, ...) printf_like(1, 2) must_check;
/* Whole of `s` as a number in [min, max], base 10 (0x for 16, 0 for 8 not accepted). -EINVAL,
 * -ERANGE. */
int str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret) must_check;
int str_to_i64(const char *s, int64_t min, int64_t max, int64_t *ret) must_check;
/* Null-terminated string vectors. strv_free frees the strings, too. */
void strv_free(char **v);
void strv_freep(char ***v);
size_t strv_len(char *const *v);
/* Writes 2 * n hex digits and a NUL. */
void hex_encode(const void *data, size_t n, char *out);
/* 64 random hex digits and a NUL (ids of pods and containers). -errno of getrandom. */
int random_id(char out[65]) must_check;

/* ---- descriptors and files; all made CLOEXEC ---- */
/* Reads all of a file of at most `max` bytes; NUL after the end (not in *ret_len). -EFBIG if
 * larger. ret_len may be NULL. The caller frees *ret. */
int read_file(const char *path, size_t max, char **ret, size_t *ret_len,
	      struct err *err) must_check;
int read_fd(int fd, size_t max, char **ret, size_t *ret_len) must_check;
/* Writes path.tmp.<random>, fsync when `durable`, renames over path. */
int write_file_atomic(const char *path, const void *data, size_t len, mode_t mode, bool durable,
		      struct err *err) must_check;
/* Gives the file (made with 0600 if it is missing) blocks for its first n bytes, so that writing
 * them cannot fail for lack of room later. Its size stays. -ENOSPC; -EOPNOTSUPP of some file
 * systems. */
int file_reserve(const char *path, uint64_t n) must_check;
/* Free bytes that a file system of `total` bytes must have for a new pod or container: an
 * eightieth, from 256 MiB to 2 GiB, but a fortieth of a small one at most. What runs needs them:
 * the database, writes of containers, and the removals that make room again. Pulls stop well before
 * (images.reserve-mib); what runs stops writing when half of it is gone, too. */
uint64_t disk_reserve(uint64_t total);
/* write() until done; -errno. For blocking descriptors. */
int write_all(int fd, const void *data, size_t len) must_check;
int mkdir_p(const char *path, mode_t mode, struct err *err) must_check;
/* Removes a tree of ours; never follows a symlink, never crosses into another mount. Missing = 0.
 */
int remove_tree(const char *path, struct err *err) must_check;
int fd_set_nonblock(int fd, bool on) must_check;
/* Connects/listens on AF_UNIX SOCK_STREAM; accepts "unix://PATH" and PATH. -ENAMETOOLONG from 108
 * bytes on. Connecting never waits: -EAGAIN is a process that does not take the connections that it
 * has. The descriptor blocks. Listening unlinks a stale socket (one that refuses connections) and
 * sets `mode`. */
int unix_connect(const char *addr, int *ret_fd, struct err *err) must_check;
int unix_listen(const char *addr, mode_t mode, int *ret_fd, struct err *err) must_check;
/* Directory of the running program, without trailing slash. The caller frees. */
int program_dir(char **ret, struct err *err) must_check;

/* ---- clocks, ns ---- */
uint64_t now_mono_ns(void);
int64_t now_real_ns(void);

#endif
