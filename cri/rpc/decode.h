/*
 * Requests of CRI clients are foreign bytes: they are decoded into bounded memory, and every string
 * is checked. No I/O; any thread.
 */
#ifndef HUSK_CRI_RPC_DECODE_H
#define HUSK_CRI_RPC_DECODE_H

#include "base/compiler.h"
#include "base/err.h"
#include "base/pb.h"

#define RPC_DECODED_MAX (64u << 20) /* memory of one decoded request */

/*
 * Decodes into the arena and checks that every string is UTF-8 (protobuf-c does not, and an echo of
 * one that is not would make the client refuse a whole list). -EINVAL, -ENOBUFS, -ENOMEM.
 */
int rpc_decode(struct pb_arena *arena, const ProtobufCMessageDescriptor *desc, const uint8_t *data,
	       size_t len, ProtobufCMessage **ret, struct err *err) must_check;

#endif
