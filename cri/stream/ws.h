/*
 * WebSocket (RFC 6455, by libwslay) with Kubernetes' channels: the first byte of a message names
 * its channel; in the base64 dialects it is a digit and the rest is base64. v5 ends a channel with
 * a message on channel 255. Messages are passed on as they come, so none is too long. Bytes of a
 * hostile client in, calls of ws_ops out; what is to be sent goes to a buffer of the owner. No I/O.
 */
#ifndef HUSK_CRI_STREAM_WS_H
#define HUSK_CRI_STREAM_WS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"

#define WS_ACCEPT_LEN 28u
#define WS_KEY_LEN 24u
/* What one byte of input can make to be sent, at the very most: a PONG for a PING. */
#define WS_ECHO 2u

enum ws_close {
	WS_CLOSE_NORMAL = 1000,
	WS_CLOSE_PROTOCOL_ERROR = 1002,
};

struct ws;

struct ws_dialect {
	bool base64;
	bool ends_channels; /* v5 */
};

/* Called inside ws_feed. What returns int ends the connection with a negative value. */
struct ws_ops {
	int (*data)(void *arg, unsigned channel, const uint8_t *data, size_t n);
	int (*end)(void *arg, unsigned channel);
	void (*closed)(void *arg); /* the client is about to go */
};

/* `out` is borrowed; see WS_ECHO for its size. -ENOMEM. */
int ws_new(struct ws_dialect dialect, struct buf *out, const struct ws_ops *ops, void *arg,
	   struct ws **ret) must_check;
void ws_free(struct ws *w); /* NULL is fine */
/* Takes all bytes. -EPROTO, -ENOMEM, -ENOBUFS (`out` is full), or what an op returned: the
 * connection is over, and a close frame is in `out` if it fits. After `closed` all bytes are
 * ignored. */
int ws_feed(struct ws *w, const uint8_t *data, size_t n) must_check;
/* One message. -ENOBUFS, -ENOMEM; -EPIPE after a close frame of either side. */
int ws_send(struct ws *w, unsigned channel, const uint8_t *data, size_t n) must_check;
/* Nothing can be sent after it. */
int ws_close(struct ws *w, enum ws_close code) must_check;

/* The answer to Sec-WebSocket-Key. -EINVAL: it is no key. */
int ws_accept(const char *key, char ret[WS_ACCEPT_LEN + 1]) must_check;

#endif
