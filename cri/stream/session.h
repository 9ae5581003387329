/*
 * A remote command between its client and three descriptors: what the client sends goes to one,
 * what comes from the two others goes to the client, and the exit status ends it. Each side holds
 * back the other: no more is read than the other one takes, so memory has a bound however slow
 * either is. The socket belongs to a connection (conn.h), the process to whoever made the URL
 * (server.h). Loop's thread.
 */
#ifndef HUSK_CRI_STREAM_SESSION_H
#define HUSK_CRI_STREAM_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/loop.h"
#include "cri/stream/wire.h"

#define SESSION_CHUNK (32 * KIB)     /* of one read; one message or frame */
#define SESSION_OUT_HIGH (128 * KIB) /* for the client: nothing more is read from the process */
#define SESSION_OUT_MAX (1 * MIB)    /* with what answers to the client take */
#define SESSION_IN_HIGH (64 * KIB)   /* for the process: nothing more is read from the client */
#define SESSION_IN_MAX (256 * KIB)   /* with what one read of the socket gives */
/* After the exit: how long an output may be silent that something left behind keeps open. */
#define SESSION_SILENCE_MS 10000

struct stream_session;

struct stream_want {
	bool in, out, err, tty;
};

/* Of whoever made the URL. After `closed` no other is called. */
struct stream_ops {
	/* The client is there with all channels; stream_run or stream_fail is due, now or later. */
	void (*open)(struct stream_session *s, void *arg);
	void (*resize)(void *arg, unsigned width, unsigned height); /* after `open` */
	/* The client's last byte of input was written, and the descriptor is closed. */
	void (*input_ended)(void *arg);
	/*
	 * Once for each URL: the client is gone, or never came (`open` was not called), or has the
	 * exit status on its way. The session is not the owner's any more. May come inside
	 * stream_exit and stream_fail, as their last act.
	 */
	void (*closed)(void *arg);
};

/* The process runs. Takes over the descriptors, which do not block: in = -1: it takes no input, so
 * the client's is dropped; out or err = -1: there is none. */
void stream_run(struct stream_session *s, int in, int out, int err);
/* It has ended with this code: the rest of its output goes to the client, then the status. */
void stream_exit(struct stream_session *s, int exit_code);
/* It could not be started, or was lost. exit_code: 126 or 127 of a start that failed, else 0. */
void stream_fail(struct stream_session *s, const char *why, int exit_code);

/* ---- for conn.c ---- */

/* The session's buffer has something for the client, or room for more from it. */
typedef void (*session_changed_fn)(void *arg);

/* -ENOMEM. */
int session_new(struct loop *l, const struct wire_dialect *d, struct stream_want want,
		const struct stream_ops *ops, void *ops_arg, session_changed_fn changed, void *arg,
		struct stream_session **ret) must_check;
/* `closed` is called if it was not. NULL is fine. */
void session_free(struct stream_session *s);
/* The client breaks the protocol: its process is given up now, `out` may still be sent. */
void session_abandon(struct stream_session *s);
struct buf *session_out(struct stream_session *s);
/* Takes all bytes. Negative: the connection is over once `out` is sent. Never calls `changed`. */
int session_feed(struct stream_session *s, const uint8_t *data, size_t n) must_check;
/* Some of `out` was sent. */
void session_sent(struct stream_session *s);
bool session_wants_input(const struct stream_session *s);
bool session_opened(const struct stream_session *s);   /* all channels are there */
bool session_finished(const struct stream_session *s); /* what is in `out` is the last */
/* The client said that it goes. */
bool session_left(const struct stream_session *s);

#endif
