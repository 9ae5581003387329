#include "base/ttrpc/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/pb.h"
#include "base/util.h"

/* Field tags (number << 3 | 2, length-delimited) of the payload in ttrpc.Request and
 * ttrpc.Response. */
#define REQUEST_PAYLOAD_TAG (3 << 3 | 2)
#define RESPONSE_PAYLOAD_TAG (2 << 3 | 2)

bool ttrpc_decode(struct ttrpc_decoder *d, struct buf *in, struct ttrpc_frame *ret)
{
	struct cur c;
	size_t n;

	buf_consume(in, d->used);
	d->used = 0;
	if (d->skip) {
		n = MIN_OF(buf_len(in), (size_t)d->skip);
		buf_consume(in, n);
		d->skip -= (uint32_t)n;
		if (d->skip)
			return false;
	}
	if (buf_len(in) < TTRPC_HEADER_LEN)
		return false;
	c = cur_of(buf_data(in), buf_len(in));
	*ret = (struct ttrpc_frame){ .len = cur_be32(&c) };
	ret->stream_id = cur_be32(&c);
	ret->type = cur_u8(&c);
	ret->flags = cur_u8(&c);
	if (ret->len > TTRPC_MESSAGE_MAX) {
		ret->oversize = true;
		d->used = TTRPC_HEADER_LEN;
		d->skip = ret->len;
		return true;
	}
	ret->payload = cur_bytes(&c, ret->len);
	if (!ret->payload)
		return false;
	d->used = TTRPC_HEADER_LEN + ret->len;
	return true;
}

static size_t put_varint(uint8_t *p, size_t v)
{
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		p[n++] = (uint8_t)(v | 0x80);
	p[n++] = (uint8_t)v;
	return n;
}

/* `head`, then `body` as its bytes field `tag`; tag 0: the body alone. The fields of a message may
 * come in any order, so the body is packed in place, behind the others. */
static int put_frame(struct buf *out, uint32_t stream_id, enum ttrpc_type type, uint8_t flags,
		     const ProtobufCMessage *head, uint8_t tag, const ProtobufCMessage *body)
{
	size_t head_len = head ? protobuf_c_message_get_packed_size(head) : 0;
	size_t body_len = body ? protobuf_c_message_get_packed_size(body) : 0;
	uint8_t prefix[1 + 10], *p;
	size_t prefix_len = 0, len;
	int r;

	if (head_len > TTRPC_MESSAGE_MAX || body_len > TTRPC_MESSAGE_MAX)
		return -EMSGSIZE;
	if (tag && body_len) {
		prefix[0] = tag;
		prefix_len = 1 + put_varint(prefix + 1, body_len);
	}
	len = head_len + prefix_len + body_len;
	if (len > TTRPC_MESSAGE_MAX)
		return -EMSGSIZE;
	r = buf_reserve(out, TTRPC_HEADER_LEN + len, &p);
	if (r < 0)
		return r;
	put_be32(p, (uint32_t)len);
	put_be32(p + 4, stream_id);
	p[8] = type;
	p[9] = flags;
	p += TTRPC_HEADER_LEN;
	if (head)
		p += protobuf_c_message_pack(head, p);
	memcpy(p, prefix, prefix_len);
	if (body)
		(void)protobuf_c_message_pack(body, p + prefix_len);
	buf_commit(out, TTRPC_HEADER_LEN + len);
	return 0;
}

/* What goes back to a client may have a guest's text in it, or half a character of it where it was
 * cut. A Go client would refuse the whole message, with the exit code that it asked for. */
static int put_answer(struct buf *out, uint32_t stream_id, enum ttrpc_type type, uint8_t flags,
		      const ProtobufCMessage *head, uint8_t tag, const ProtobufCMessage *body)
{
	cleanup_pb ProtobufCMessage *head_copy = NULL;
	cleanup_pb ProtobufCMessage *body_copy = NULL;
	int r = pb_repair(&head, &head_copy);

	if (r == 0)
		r = pb_repair(&body, &body_copy);
	return r == 0 ? put_frame(out, stream_id, type, flags, head, tag, body) : r;
}

int ttrpc_put_request(struct buf *out, uint32_t stream_id, uint8_t flags,
		      const Ttrpc__Request *head, const ProtobufCMessage *body)
{
	return put_frame(out, stream_id, TTRPC_REQUEST, flags, &head->base, REQUEST_PAYLOAD_TAG,
			 body);
}

int ttrpc_put_response(struct buf *out, uint32_t stream_id, const ProtobufCMessage *body)
{
	return put_answer(out, stream_id, TTRPC_RESPONSE, 0, NULL, RESPONSE_PAYLOAD_TAG, body);
}

int ttrpc_put_status(struct buf *out, uint32_t stream_id, enum rpc_code code, const char *msg,
		     const char *detail_type, const ProtobufCMessage *detail)
{
	Ttrpc__Response resp = TTRPC__RESPONSE__INIT;
	Rpc__Status status = RPC__STATUS__INIT;
	Wkt__Any any = WKT__ANY__INIT, *any_p = &any;
	cleanup_pb ProtobufCMessage *copy = NULL;
	cleanup_free uint8_t *packed = NULL;
	size_t n;
	int r;

	status.code = (int32_t)code;
	status.message = (char *)msg;
	resp.status = &status;
	r = pb_repair(&detail, &copy);
	if (r < 0)
		return r;
	if (detail) {
		n = protobuf_c_message_get_packed_size(detail);
		if (n > TTRPC_MESSAGE_MAX)
			return -EMSGSIZE;
		packed = malloc(n + 1);
		if (!packed)
			return -ENOMEM;
		any.type_url = (char *)detail_type;
		any.value.len = protobuf_c_message_pack(detail, packed);
		any.value.data = packed;
		status.details = &any_p;
		status.n_details = 1;
	}
	return put_answer(out, stream_id, TTRPC_RESPONSE, 0, &resp.base, 0, NULL);
}

int ttrpc_put_data(struct buf *out, uint32_t stream_id, uint8_t flags, const ProtobufCMessage *body)
{
	return put_answer(out, stream_id, TTRPC_DATA, flags, NULL, 0, body);
}
