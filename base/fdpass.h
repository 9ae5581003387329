/*
 * Messages with file descriptors (SCM_RIGHTS) over AF_UNIX sockets, stream or SEQPACKET. How many
 * descriptors come is the receiver's decision: those that do not fit are closed here, and the
 * message is refused. Leaf functions, any thread.
 */
#ifndef HUSK_BASE_FDPASS_H
#define HUSK_BASE_FDPASS_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/compiler.h"

#define FDPASS_MAX 32u /* descriptors with one message */

/* One sendmsg of `data`, with those of the n_fds <= FDPASS_MAX descriptors that are not -1; they
 * stay the caller's. flags: 0 or MSG_DONTWAIT. Returns the bytes sent, which on a stream socket may
 * be fewer than len (the descriptors went with them); -EAGAIN, -EPIPE (never SIGPIPE), -errno. */
ssize_t fdpass_send(int sock, const void *data, size_t len, const int *fds, size_t n_fds,
		    int flags) must_check;
ssize_t fdpass_sendv(int sock, const struct iovec *iov, size_t n_iov, const int *fds, size_t n_fds,
		     int flags) must_check;

/* One recvmsg of at most `size` bytes. Descriptors, CLOEXEC and the caller's from here on, are
 * appended: fds has room for fds_max, *n_fds says how many are in use and is raised. fds_max 0 (fds
 * and n_fds may be NULL then): descriptors are not expected, and closed. flags: 0 or MSG_DONTWAIT.
 * Returns the bytes; 0 = the peer has closed, or an empty packet, which cannot be told apart (its
 * descriptors are closed). -EAGAIN; -EMSGSIZE: a packet of more than `size` bytes, or more
 * descriptors than there was room for, here or in this process, and none of that message is kept;
 * -errno. */
ssize_t fdpass_receive(int sock, void *data, size_t size, int *fds, size_t fds_max, size_t *n_fds,
		       int flags) must_check;

#endif
