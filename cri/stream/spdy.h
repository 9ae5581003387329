/*
 * SPDY/3.1 as Kubernetes' clients speak it: streams over one connection, opened by the client
 * alone, with no flow control but the connection's own. SETTINGS and WINDOW_UPDATE are read and
 * mean nothing. Bytes of a hostile client in, calls of spdy_ops out; what is to be sent goes to a
 * buffer of the owner. No I/O.
 */
#ifndef HUSK_CRI_STREAM_SPDY_H
#define HUSK_CRI_STREAM_SPDY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "cri/stream/spdy_block.h"

#define SPDY_CONTROL_MAX (SPDY_BLOCK_MAX + 10) /* payload of a control frame */
#define SPDY_DATA_MAX 0xffffffu		       /* of a data frame; passed on as it comes */
#define SPDY_REFUSED_MAX 100u		       /* streams of a connection; one more ends it */
#define SPDY_HEADERS_FRAMES_MAX 16	       /* of a connection; no client of ours sends any */
/* What one byte of input can make to be sent, at the very most. */
#define SPDY_ECHO 4u

enum spdy_reset {
	SPDY_RST_PROTOCOL_ERROR = 1,
	SPDY_RST_REFUSED_STREAM = 3,
	SPDY_RST_CANCEL = 5,
};
enum spdy_goaway { SPDY_GOAWAY_OK = 0, SPDY_GOAWAY_PROTOCOL_ERROR = 1 };

struct spdy;

/* Called inside spdy_feed. What returns int ends the connection with a negative value. */
struct spdy_ops {
	/* A stream of the client: 0 = taken, or a spdy_reset to refuse it. It is answered right
	 * after, so nothing may be sent on it inside. */
	int (*open)(void *arg, uint32_t id, const struct spdy_pairs *pairs);
	int (*data)(void *arg, uint32_t id, const uint8_t *data, size_t n);
	int (*end)(void *arg, uint32_t id);    /* the client's direction is closed */
	void (*reset)(void *arg, uint32_t id); /* the stream is no more */
	void (*goaway)(void *arg);	       /* the client is about to go */
};

/* max_streams: open ones. `out` is borrowed; see SPDY_ECHO for its size. -ENOMEM. */
int spdy_new(unsigned max_streams, struct buf *out, const struct spdy_ops *ops, void *arg,
	     struct spdy **ret) must_check;
void spdy_free(struct spdy *s); /* NULL is fine */
/* Takes all bytes. -EPROTO, -EMSGSIZE, -ENOMEM, -ENOBUFS (`out` is full), or what an op returned:
 * the connection is over; GOAWAY is in `out` if it fits. */
int spdy_feed(struct spdy *s, const uint8_t *data, size_t n) must_check;
/* The following are for streams that are open; of others they do nothing. -ENOBUFS, -ENOMEM. */
int spdy_send(struct spdy *s, uint32_t id, const uint8_t *data, size_t n) must_check;
int spdy_end(struct spdy *s, uint32_t id) must_check; /* closes our direction */
int spdy_goaway(struct spdy *s, enum spdy_goaway status) must_check;

#endif
