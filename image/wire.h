/*
 * Frames and messages of base/proto/image_worker.proto, which specifies them, for both ends. A
 * message that is returned here keeps the limits of that file, so that nobody has to check them
 * again. Whether it fits the requests that are under way is for its receiver to check. Pure but for
 * wire_write; any thread.
 */
#ifndef HUSK_IMAGE_WIRE_H
#define HUSK_IMAGE_WIRE_H

#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/pb.h"
#include "image/limits.h"
#include "proto/image_worker.pb-c.h"

#define WIRE_HEADER 4u
#define WIRE_MAX_COMMAND (64 * KIB)
#define WIRE_MAX_SMALL (64 * KIB) /* an event without Document and Images in it; a report */
#define WIRE_MAX_EVENT (IMAGE_MAX_DOCUMENT + WIRE_MAX_SMALL)
#define WIRE_MAX_OPTIONS (16 * MIB)
#define WIRE_MAX_NAME 1024u
#define WIRE_MAX_TEXT (sizeof(((struct err *)0)->msg) - 1)
#define WIRE_MAX_FDS 2u	      /* of one command */
#define WIRE_MAX_REQUESTS 16u /* under way */
/* What an unpacked message may take, with its pointers: for pb_arena_init. */
#define WIRE_COMMAND_MEMORY (256 * KIB)
#define WIRE_EVENT_MEMORY (8 * MIB)
#define WIRE_REPORT_MEMORY (256 * KIB)
#define WIRE_OPTIONS_MEMORY (32 * MIB)

/* ---- frames ---- */

/*
 * The first message in `in`: its length, and *ret, valid until `in` changes; it takes WIRE_HEADER
 * more bytes of `in`. 0: not all of it is there. -EPROTO: an empty one, or one of more than `max`
 * bytes.
 */
ssize_t wire_next(const struct buf *in, size_t max, const uint8_t **ret) must_check;
/* A frame on the heap, *ret_len bytes, which the caller frees. -EFBIG: a message of more than `max`
 * bytes; -ENOMEM. */
int wire_frame(const ProtobufCMessage *m, size_t max, uint8_t **ret, size_t *ret_len) must_check;
/* Writes a frame to a blocking descriptor; a small one needs no memory. -EFBIG, -ENOMEM, -errno. */
int wire_write(int fd, const ProtobufCMessage *m, size_t max) must_check;

/* ---- what huskd reads ----
 * *ret lives as long as the arena. -EPROTO, with a text: against the rules; -ENOMEM. */

int wire_event(struct pb_arena *a, const uint8_t *data, size_t len, const Worker__Event **ret,
	       struct err *err) must_check;
int wire_unpack_report(struct pb_arena *a, const uint8_t *data, size_t len,
		       const Worker__UnpackReport **ret, struct err *err) must_check;
int wire_check_report(struct pb_arena *a, const uint8_t *data, size_t len,
		      const Worker__CheckReport **ret, struct err *err) must_check;
/* The error that a failure tells, with its text as UTF-8; returns it (a negative errno). */
int wire_failure(const Worker__Failure *f, struct err *err);

/* ---- what the worker reads: as above ---- */

int wire_command(struct pb_arena *a, const uint8_t *data, size_t len, const Worker__Command **ret,
		 struct err *err) must_check;
/* How many descriptors belong to a command. */
size_t wire_command_fds(const Worker__Command *c);
int wire_options(struct pb_arena *a, const uint8_t *data, size_t len, const Worker__Options **ret,
		 struct err *err) must_check;
/* Bytes of wire_options, which have no NUL, as a text in the arena. *ret: NULL when empty. */
int wire_text(struct pb_arena *a, ProtobufCBinaryData b, char **ret) must_check;

/* ---- what the worker writes ---- */

/* Fills `f`, which borrows the text of err. code: a negative errno; any other becomes EIO. */
void wire_failure_of(Worker__Failure *f, int code, const struct err *err);
/* Writes `rep`, or what has failed when code < 0; as wire_write. */
int wire_write_unpack_report(int fd, Worker__UnpackReport *rep, int code,
			     const struct err *err) must_check;

#endif
