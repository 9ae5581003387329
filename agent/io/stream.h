/*
 * Standard streams. The host opens a connection for each and sends the stream's 8-byte id first; a
 * process claims ids for its ends of pipes or its terminal. Either may come first; when both are
 * there a relay joins them, and lives until its side is drained, also after the process.
 *
 *	output:	the last writer is gone -> our direction is shut down; the connection is closed when
 *		the host has closed its side. The host closed before: the process gets EPIPE.
 *	input:	the host's direction ends -> the process reads end of file (a terminal keeps quiet).
 *
 * Loop thread only.
 */
#ifndef HUSK_AGENT_IO_STREAM_H
#define HUSK_AGENT_IO_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"

#define STDIO_BUCKETS 256u
#define STDIO_PREAMBLE 8u /* bytes: the id, little-endian */

struct stream;
struct conn;

struct stdio {
	struct loop *loop;
	int listener; /* owned */
	bool vsock;   /* refuse peers that are not the host */
	struct ev_io io;
	struct stream *streams[STDIO_BUCKETS];
	size_t n_streams;
	struct conn *conns; /* without a claim, newest first */
	size_t n_conns;
};

/* Takes the listener over, also on failure. */
int stdio_init(struct stdio *s, struct loop *l, int listener, bool vsock,
	       struct err *err) must_check;
void stdio_fini(struct stdio *s);

enum stream_dir { STREAM_INPUT, STREAM_OUTPUT };

/* Joins `fd` (taken over, also on failure; made non-blocking) to the stream. `owner` is any pointer
 * that stdio_drop gets later. -EEXIST: the id was claimed before; -ENOBUFS. */
int stdio_claim(struct stdio *s, const void *owner, uint64_t id, enum stream_dir dir, int fd,
		bool tty, struct err *err) must_check;
/* Closes all streams of `owner`. */
void stdio_drop(struct stdio *s, const void *owner);
/* Closes whatever there is of an id, because its process could not be started; 0 = nothing. */
void stdio_forget(struct stdio *s, uint64_t id);
/* Streams of `owner` that still have something to carry. */
size_t stdio_count(const struct stdio *s, const void *owner);

/* The id in the first bytes of a connection. False: the id is 0, which is not valid. */
bool stdio_preamble(const uint8_t bytes[STDIO_PREAMBLE], uint64_t *ret_id);

#endif
