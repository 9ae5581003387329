/*
 * The client's side of SPDY/3.1, for tests: frames into a buffer, with the header compression of
 * one connection, and what the server sent taken apart.
 */
#ifndef HUSK_TEST_LIB_SPDY_CLIENT_H
#define HUSK_TEST_LIB_SPDY_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <zlib.h>

#include "base/buf.h"

enum {
	SPDY_SYN_STREAM = 1,
	SPDY_SYN_REPLY = 2,
	SPDY_RST_STREAM = 3,
	SPDY_SETTINGS = 4,
	SPDY_PING = 6,
	SPDY_GOAWAY = 7,
	SPDY_HEADERS = 8,
	SPDY_WINDOW_UPDATE = 9,
};
#define SPDY_FIN 1u

struct spdy_client {
	struct buf out;
	z_stream z, back;
};

struct spdy_frame {
	unsigned type; /* 0 = data */
	uint32_t id;   /* of a data frame; the first word of a control frame */
	uint32_t second;
	uint8_t flags;
	const uint8_t *payload;
	size_t len;
};

void spdy_client_init(struct spdy_client *c);
void spdy_client_fini(struct spdy_client *c);
void spdy_client_control(struct spdy_client *c, unsigned type, uint8_t flags, const void *payload,
			 size_t n);
void spdy_client_data(struct spdy_client *c, uint32_t id, uint8_t flags, const void *data,
		      size_t n);
/* Compresses a block into `out` (of `size` bytes); its length. */
size_t spdy_client_block(struct spdy_client *c, const void *plain, size_t n, uint8_t *out,
			 size_t size);
/* SYN_STREAM with streamType TYPE, as spdystream sends it. */
void spdy_client_open(struct spdy_client *c, uint32_t id, const char *type);
void spdy_client_two(struct spdy_client *c, unsigned type, uint32_t a, uint32_t b);
/* The next whole frame in `in`, to be consumed by spdy_frame_len. */
bool spdy_frame_next(const struct buf *in, struct spdy_frame *ret);
size_t spdy_frame_len(const struct spdy_frame *f);
/* The block of a SYN_REPLY has no pairs and is well compressed. */
bool spdy_client_reply_ok(struct spdy_client *c, const struct spdy_frame *f);

#endif
