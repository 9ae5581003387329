/*
 * The process's end of its socket to huskd (base/proto/image_worker.proto): commands in, with their
 * descriptors; events out. Blocking, one thread.
 */
#ifndef HUSK_IMAGE_WORKER_CHANNEL_H
#define HUSK_IMAGE_WORKER_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/pb.h"
#include "image/wire.h"

#define CHANNEL_FD 0
#define CHANNEL_MAX_FDS 32u

struct channel {
	struct buf in;
	struct pb_arena arena;	  /* of the last command */
	int fds[CHANNEL_MAX_FDS]; /* that came, and were not taken yet; oldest first */
	size_t n_fds;
	bool eof;    /* huskd sends no more commands */
	bool broken; /* huskd takes no more events */
};

void channel_init(struct channel *c);
void channel_fini(struct channel *c);
/* Reads what is there; `wait`: waits until there is something. -EPROTO. */
int channel_receive(struct channel *c, bool wait, struct err *err) must_check;
/* The next whole command, valid until the next call; NULL when there is none. All its descriptors
 * are there. -EPROTO, -ENOMEM. */
int channel_next(struct channel *c, const Worker__Command **ret, struct err *err) must_check;
/* The oldest descriptor, which the caller closes; there must be one. */
int channel_take_fd(struct channel *c) must_check;

/* Events of a request. Failures to send make the channel `broken`. */
void channel_send(struct channel *c, const Worker__Event *e);
void channel_send_progress(struct channel *c, uint32_t id, uint64_t bytes);
void channel_send_document(struct channel *c, uint32_t id, const void *data, size_t len);
void channel_send_done(struct channel *c, uint32_t id, uint64_t bytes);
/* id 0: of the process itself. */
void channel_send_failure(struct channel *c, uint32_t id, int code, bool again,
			  const struct err *err);

#endif
