/* Bytes of a peer in pieces: the first byte gives their size, the rest is the stream. */
#include <string.h>

#include "base/buf.h"
#include "base/pb.h"
#include "base/ttrpc/codec.h"
#include "test/fuzz/fuzz.h"

static void unpack(const ProtobufCMessageDescriptor *desc, const struct ttrpc_frame *f)
{
	cleanup_pb_arena struct pb_arena arena;
	ProtobufCMessage *msg;

	pb_arena_init(&arena, 1 * MIB);
	if (pb_unpack(&arena, desc, f->payload, f->len, &msg) == 0)
		fuzz_assert(msg->descriptor == desc);
	fuzz_assert(arena.used <= arena.max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_buf struct buf in;
	struct ttrpc_decoder dec = { 0 };
	struct ttrpc_frame f;
	size_t piece, n;

	buf_init(&in, TTRPC_FRAME_MAX);
	if (size == 0)
		return 0;
	piece = (size_t)data[0] + 1;
	data++;
	size--;
	for (; size > 0; data += n, size -= n) {
		n = MIN_OF(size, piece);
		if (buf_put(&in, data, n) < 0)
			break;
		while (ttrpc_decode(&dec, &in, &f)) {
			fuzz_assert(f.oversize == (f.len > TTRPC_MESSAGE_MAX));
			fuzz_assert(f.oversize || f.payload);
			if (f.oversize)
				continue;
			unpack(f.type == TTRPC_RESPONSE ? &ttrpc__response__descriptor
							: &ttrpc__request__descriptor,
			       &f);
		}
		fuzz_assert(buf_len(&in) < TTRPC_FRAME_MAX);
	}
	return 0;
}
