/*
 * What protobuf-c leaves to its users: reading foreign messages within a limit, copies of our own,
 * type names. Not thread-safe.
 *
 * Foreign messages are unpacked into an arena with a maximum. A few bytes on the wire can ask for
 * fifty times as much memory (an empty element of a repeated message field is two bytes), so the
 * size of the packed bytes alone is no limit. The arena is given back as a whole.
 */
#ifndef HUSK_BASE_PB_H
#define HUSK_BASE_PB_H

#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/compiler.h"

struct Wkt__Any;
struct Wkt__Timestamp;
struct pb_chunk;

struct pb_arena {
	struct pb_chunk *chunks; /* newest first */
	uint8_t *next;		 /* free part of the newest */
	size_t left;
	size_t used, max; /* bytes handed out, and how many may be */
	bool full, oom;	  /* why an allocation was refused */
};

void pb_arena_init(struct pb_arena *a, size_t max);
void pb_arena_fini(struct pb_arena *a); /* everything unpacked into it is gone */
#define cleanup_pb_arena cleanup_with(pb_arena_fini)

/* 16-byte aligned, not zeroed; NULL beyond the maximum or without memory. */
void *pb_arena_alloc(struct pb_arena *a, size_t n) must_check;

/* *ret lives as long as the arena; never give it to protobuf_c_message_free_unpacked.
 * -EBADMSG: not a message of this type; -ENOBUFS: it needs more than the arena may hold; -ENOMEM.
 */
int pb_unpack(struct pb_arena *a, const ProtobufCMessageDescriptor *desc, const void *data,
	      size_t len, ProtobufCMessage **ret) must_check;

/* The packed bytes, *ret_len of them (may be 0); the caller frees. NULL: out of memory. */
uint8_t *pb_pack(const ProtobufCMessage *m, size_t *ret_len) must_check;
/* A deep copy of a message of ours, on the heap; the caller gives it to
 * protobuf_c_message_free_unpacked. NULL: out of memory. */
ProtobufCMessage *pb_clone(const ProtobufCMessage *m) must_check;

/* Go refuses a message with a string that is not UTF-8, down to the innermost one. Such a *m (NULL
 * is fine) is replaced by a copy with strings as utf8_repair leaves them, which is also *ret_copy,
 * for the caller to free; else that is NULL. -ENOMEM. */
int pb_repair(const ProtobufCMessage **m, ProtobufCMessage **ret_copy) must_check;

/* What pb_clone and pb_repair gave; NULL is fine. */
void pb_freep(ProtobufCMessage **m);
#define cleanup_pb cleanup_with(pb_freep)

/* The full name of the message inside, without the "type.googleapis.com/" that some put in front.
 * NULL has the type "". Valid as long as `any`. */
const char *pb_any_type(const struct Wkt__Any *any);

/* google.protobuf.Timestamp and nanoseconds of CLOCK_REALTIME. 0 for NULL, and for a time before
 * 1970 or beyond what fits. */
void pb_timestamp_set(struct Wkt__Timestamp *t, int64_t real_ns);
int64_t pb_timestamp_ns(const struct Wkt__Timestamp *t);

#endif
