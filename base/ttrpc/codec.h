/*
 * The ttrpc wire format without I/O: bytes in, frames out; messages in, bytes out. Not thread-safe.
 *
 * A frame is a header of 10 bytes, big-endian, and a payload of at most TTRPC_MESSAGE_MAX bytes:
 *	u32 length of the payload, u32 stream id, u8 type, u8 flags
 * REQUEST carries ttrpc.Request, RESPONSE ttrpc.Response (ttrpc.proto), DATA a message as it
 * is. Clients choose odd, growing stream ids. A frame of an unknown type is skipped.
 */
#ifndef HUSK_BASE_TTRPC_CODEC_H
#define HUSK_BASE_TTRPC_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/ttrpc.pb-c.h"

#define TTRPC_HEADER_LEN 10u
#define TTRPC_FRAME_MAX (TTRPC_HEADER_LEN + TTRPC_MESSAGE_MAX)
/* Memory that one message of a peer may take when it is unpacked. */
#define TTRPC_UNPACKED_MAX (64u << 20)

enum ttrpc_type { TTRPC_REQUEST = 1, TTRPC_RESPONSE = 2, TTRPC_DATA = 3 };

enum ttrpc_flag {
	TTRPC_REMOTE_CLOSED = 1, /* REQUEST, DATA: the sender sends no more on this stream */
	TTRPC_REMOTE_OPEN = 2,	 /* REQUEST: DATA frames of the client follow */
	TTRPC_NO_DATA = 4,	 /* DATA: there is no message in this frame */
};

struct ttrpc_frame {
	uint32_t stream_id;
	uint8_t type, flags;
	bool oversize; /* longer than allowed: payload is NULL, its bytes are thrown away */
	uint32_t len;
	const uint8_t *payload; /* valid until the next ttrpc_decode */
};

struct ttrpc_decoder {
	uint32_t used; /* bytes of the frame handed out last */
	uint32_t skip; /* bytes of an oversize payload still to come */
};

/* The next whole frame in `in`; false = more bytes are needed. `in` must have room for
 * TTRPC_FRAME_MAX: then it is never full when this returns false. The decoder starts zeroed. */
bool ttrpc_decode(struct ttrpc_decoder *d, struct buf *in, struct ttrpc_frame *ret) must_check;

/* Each appends one frame to `out`, or nothing. -EMSGSIZE: payload above TTRPC_MESSAGE_MAX;
 * -ENOBUFS: no room up to the buffer's maximum; -ENOMEM. A NULL body is an empty one. In all but
 * requests, strings that are not UTF-8 are repaired on the way. */
int ttrpc_put_request(struct buf *out, uint32_t stream_id, uint8_t flags,
		      const Ttrpc__Request *head, const ProtobufCMessage *body) must_check;
int ttrpc_put_response(struct buf *out, uint32_t stream_id,
		       const ProtobufCMessage *body) must_check;
int ttrpc_put_status(struct buf *out, uint32_t stream_id, enum rpc_code code, const char *msg,
		     const char *detail_type, const ProtobufCMessage *detail) must_check;
int ttrpc_put_data(struct buf *out, uint32_t stream_id, uint8_t flags,
		   const ProtobufCMessage *body) must_check;

#endif
