/*
 * The process's end of its socket to huskd (worker.h): lines of JSON in, with descriptors; events
 * out. Blocking, one thread.
 */
#ifndef HUSK_IMAGE_WORKER_CHANNEL_H
#define HUSK_IMAGE_WORKER_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"

#define CHANNEL_FD 0
#define CHANNEL_MAX_FDS 32u

struct channel {
	struct buf in;
	int fds[CHANNEL_MAX_FDS]; /* that came with commands not read yet, oldest first */
	size_t n_fds;
	bool eof, broken; /* nobody sends, nobody hears */
};

void channel_init(struct channel *c);
void channel_fini(struct channel *c);
/* What is there now; waits for it when `wait`. -EPROTO. */
int channel_receive(struct channel *c, bool wait, struct err *err) must_check;
/* The next whole line, NUL-terminated, for the caller to free; NULL when there is none. */
int channel_line(struct channel *c, char **ret, struct err *err) must_check;
/* The oldest descriptor, -1 when there is none. The caller closes it. */
int channel_take_fd(struct channel *c) must_check;

void channel_send(struct channel *c, json_t *j); /* takes `j` over */
void channel_send_error(struct channel *c, uint32_t id, int code, bool again,
			const struct err *err);
void channel_send_document(struct channel *c, uint32_t id, const void *data, size_t len,
			   const char *media_type);

#endif
