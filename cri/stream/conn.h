/*
 * One connection of the streaming server: the head of a request, the upgrade, a session, the end.
 * The socket is read and written here alone (which is where TLS would have its place). Loop's
 * thread.
 */
#ifndef HUSK_CRI_STREAM_CONN_H
#define HUSK_CRI_STREAM_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/loop.h"
#include "cri/stream/tokens.h"

#define CONN_HEAD_MS 10000   /* until the head of the request is there */
#define CONN_OPEN_MS 30000   /* from the upgrade until all channels are */
#define CONN_LINGER_MS 5000  /* for the client to see the end and to close */
#define CONN_READ (64 * KIB) /* one read of the socket */

struct conn;

/* Takes fd over, also on failure. idle_ms: how long a session may be without a byte. gone: the
 * connection has ended and is freed after the call; not called by conn_free. -ENOMEM, -errno. */
int conn_new(struct loop *l, int fd, struct tokens *tokens, uint64_t idle_ms,
	     void (*gone)(struct conn *c, void *arg), void *arg, struct conn **ret) must_check;
void conn_free(struct conn *c);
/* It has shown a token. */
bool conn_admitted(const struct conn *c);

#endif
