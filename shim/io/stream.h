/*
 * The standard streams of one process: from vsock connections to FIFOs, files or the CRI log, and
 * from a FIFO to the process. Each stream has a connection of its own and is pumped on its own; a
 * slow reader stops its own stream only. Bytes that a FIFO does not take are kept, at most
 * STDIO_CHUNK a stream, and nothing more is read then. Loop thread.
 *
 * URIs: "" = /dev/null; "/PATH" or "fifo://PATH" = FIFO that exists; "file://PATH" = appended to;
 * "cri-log://PATH" = CRI log lines. Input comes from a FIFO only.
 */
#ifndef HUSK_SHIM_IO_STREAM_H
#define HUSK_SHIM_IO_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "proto/agent.pb-c.h"

#define STDIO_CHUNK (64 * KIB)

struct stdio;

struct stdio_spec {
	const char *in, *out, *err; /* URIs */
	bool terminal;		    /* stderr is not used then */
};

struct stdio_ops {
	/* Both output streams have ended and everything was delivered; also when there are none.
	 * From the loop; the streams may be freed. */
	void (*drained)(void *arg);
	/* No bytes wait for a FIFO's reader any more, for now. As `drained`, and not beside it. */
	void (*flushed)(void *arg);
	/* Output could not be written; once until it can again. Nothing may be freed. */
	void (*lost)(const struct err *err, void *arg);
};

/* Opens the host's ends. -ENOENT, -EINVAL, -ENOSYS (a URI of another kind), -errno. */
int stdio_open(struct loop *l, const struct stdio_spec *spec, const struct stdio_ops *ops,
	       void *arg, struct stdio **ret, struct err *err) must_check;
/* A new connection into the guest: the host's end, non-blocking, and the id that names it there. */
typedef int (*stdio_opener)(void *arg, uint64_t *ret_id, int *ret_fd, struct err *err);
/* Opens the connections that are needed and fills in the ids to send to the agent. Output flows
 * from now on. */
int stdio_connect(struct stdio *io, stdio_opener open_stream, void *arg, Agent__Stdio *ret_ids,
		  struct err *err) must_check;
/* The process runs: input flows from now on. */
void stdio_start_input(struct stdio *io);
/* The shim no longer holds the input FIFO open for writing: end of file comes when the client
 * closed it, too. */
void stdio_close_input(struct stdio *io);
bool stdio_drained(const struct stdio *io);
/* Bytes of the process are queued that a FIFO (also a tee) did not take yet. */
bool stdio_backlog(const struct stdio *io);
/* What is written from now on goes to these FIFOs, too ("" = not wanted); see tee.h. */
int stdio_tee(struct stdio *io, const char *out, const char *err_path, struct err *err) must_check;
/* -ENOENT when no stream goes to a CRI log. */
int stdio_reopen_log(struct stdio *io, struct err *err) must_check;
/* Closes everything; queued bytes are dropped. NULL is fine. */
void stdio_free(struct stdio *io);

#endif
