/*
 * The channels of a remote command over one of the two protocols: which dialect is spoken, SPDY's
 * streams or WebSocket's first bytes. No I/O.
 */
#ifndef HUSK_CRI_STREAM_WIRE_H
#define HUSK_CRI_STREAM_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "cri/stream/http.h"
#include "cri/stream/remote.h"

#define WIRE_ECHO 4u	  /* SPDY_ECHO, WS_ECHO */
#define WIRE_WORDS_MAX 32 /* dialects that a client may offer */

struct wire_dialect {
	const char *name;
	unsigned version; /* 1 to 5 */
	bool spdy, base64;
};

/* The first of those that the client offers and we know. `field` has them, in the order of the
 * client. NULL = none. */
const struct wire_dialect *wire_choose(const struct http_head *h, const char *field, bool spdy);
/* Our own, with commas between, for the client that offers none of them. */
extern const char wire_spdy_names[];

struct wire;

/* Called inside wire_feed. What returns int ends the connection with a negative value. */
struct wire_ops {
	int (*data)(void *arg, enum channel ch, const uint8_t *data, size_t n);
	int (*end)(void *arg, enum channel ch); /* the client sends no more on it; once */
	void (*closed)(void *arg);		/* the client says that it goes; once */
};

/* wanted: bits of the channels that the client must open. -ENOMEM. */
int wire_new(const struct wire_dialect *d, unsigned wanted, struct buf *out,
	     const struct wire_ops *ops, void *arg, struct wire **ret) must_check;
void wire_free(struct wire *w); /* NULL is fine */
/* Takes all bytes; as spdy_feed and ws_feed. */
int wire_feed(struct wire *w, const uint8_t *data, size_t n) must_check;
/* All wanted channels are there. */
bool wire_ready(const struct wire *w);
/* A channel that the client did not open or has closed takes all and sends nothing. */
int wire_send(struct wire *w, enum channel ch, const uint8_t *data, size_t n) must_check;
int wire_end(struct wire *w, enum channel ch) must_check;
/* The last word, after all channels of ours have ended. */
int wire_close(struct wire *w) must_check;

#endif
