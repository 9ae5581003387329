/*
 * Lists of buffers (struct iovec) of one request: bytes out of them, into them, and parts of them.
 * Leaf functions; the buffers may be guest memory, which changes while it is read.
 */
#ifndef HUSK_VMM_IOV_H
#define HUSK_VMM_IOV_H

#include <stddef.h>
#include <sys/uio.h>

#define IOV_ENTRIES_MAX 130 /* of one request: 128 buffers of data, head and status */

/* Copies out of / into iov from byte `off`. Bytes copied (less at the end). */
size_t iov_read(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len);
/* The part [off, off + len) of iov in `out` (at most `max` entries). Number of entries. */
unsigned iov_slice(const struct iovec *iov, unsigned n, size_t off, size_t len, struct iovec *out,
		   unsigned max);

#endif
