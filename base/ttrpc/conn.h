/*
 * One ttrpc connection on the loop: a socket with a bounded queue in each direction, cut into
 * frames. Client and server embed it. What frames mean is their business.
 *
 * Reading: at most 64 KiB in one callback. Writing: queued in `out`, sent at once when the socket
 * takes it. An error ends the connection by `closed`, always from the loop, never inside a call of
 * the owner.
 */
#ifndef HUSK_BASE_TTRPC_CONN_H
#define HUSK_BASE_TTRPC_CONN_H

#include "base/buf.h"
#include "base/loop.h"
#include "base/ttrpc/codec.h"

struct ttrpc_conn;

struct ttrpc_conn_ops {
	/* May call ttrpc_conn_fini. */
	void (*frame)(struct ttrpc_conn *c, const struct ttrpc_frame *f);
	/* Once, unless ttrpc_conn_fini came first. code 0: the peer closed; else -errno. The owner
	 * calls ttrpc_conn_fini. */
	void (*closed)(struct ttrpc_conn *c, int code);
	/* When the peer has shut down its sending side, the connection stays open while this is
	 * true (answers are owed) or bytes are queued. NULL: it ends. */
	bool (*busy)(const struct ttrpc_conn *c);
	/* No frame is taken while the peer leaves more than TTRPC_QUEUE_MAX / 4 bytes unread. */
	bool throttle;
};

struct ttrpc_conn {
	struct loop *loop;
	int fd; /* owned; -1 = finished */
	struct ev_io io;
	const struct ttrpc_conn_ops *ops;
	struct buf in, out;
	struct ttrpc_decoder dec;
	bool throttled;
	bool eof;     /* the peer sends no more */
	bool ended;   /* `closed` comes next */
	bool in_call; /* inside the callback: what is queued is sent at its end */
	int code;     /* for `closed` */
	bool *gone;   /* set when the connection is finished inside the callback */
};

/* Takes fd over, also on failure. */
int ttrpc_conn_init(struct ttrpc_conn *c, struct loop *l, int fd,
		    const struct ttrpc_conn_ops *ops) must_check;
/* Closes. Twice is fine, also inside a callback. */
void ttrpc_conn_fini(struct ttrpc_conn *c);
/* After something was put into c->out, or when the owner's busy() became false. */
void ttrpc_conn_flush(struct ttrpc_conn *c);
/* Nothing is sent or read any more; `closed(code)` follows. */
void ttrpc_conn_end(struct ttrpc_conn *c, int code);

#endif
