/* The other side of a ttrpc connection, by hand: frames as a test wants them, also wrong ones. */
#ifndef HUSK_TEST_LIB_RAWPEER_H
#define HUSK_TEST_LIB_RAWPEER_H

#include "base/buf.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/ttrpc/codec.h"

struct rawpeer {
	struct loop *loop;
	int fd;	       /* ours; the tested side has the other end */
	struct buf in; /* received, not yet taken */
	struct ttrpc_decoder dec;
	struct pb_arena arena; /* of the answers */
	bool eof;
};

/* Returns the descriptor for the tested side. */
int rawpeer_init(struct rawpeer *p, struct loop *l);
void rawpeer_fini(struct rawpeer *p);
/* Runs the loop until nothing happens any more. */
void settle(struct loop *l);

/* A frame; len may differ from the payload given. Pumps the loop while the socket is full. */
void rawpeer_send(struct rawpeer *p, uint32_t len, uint32_t id, uint8_t type, uint8_t flags,
		  const void *payload, size_t n);
void rawpeer_request(struct rawpeer *p, uint32_t id, uint8_t flags, const char *service,
		     const char *method, int64_t timeout_ns, const ProtobufCMessage *req);
/* The next frame, false if none comes. */
bool rawpeer_recv(struct rawpeer *p, struct ttrpc_frame *f);
/* The next frame must be a RESPONSE of this stream with this status. Returns it (until the next
 * call). */
const Ttrpc__Response *rawpeer_expect(struct rawpeer *p, uint32_t id, enum rpc_code code);
/* Nothing may come. */
void rawpeer_expect_nothing(struct rawpeer *p);

#endif
