/*
 * Moves bytes one way from one non-blocking descriptor to another, until the source ends or the
 * destination breaks. Pipes are spliced, so a stream holds no memory of ours; for terminals there
 * is a small buffer. A full destination stops the reading of its own source and nothing else.
 * Embedded in its owner. Loop thread only.
 */
#ifndef HUSK_AGENT_IO_RELAY_H
#define HUSK_AGENT_IO_RELAY_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/loop.h"

enum relay_end { RELAY_SOURCE_END, RELAY_BROKEN };

struct relay {
	int src, dst; /* borrowed */
	bool splice;
	struct loop *loop;
	struct ev_io
		src_io; /* only while we wait for the source: its hang-up would spin otherwise */
	struct ev_io dst_io; /* always, for its errors; with EPOLLOUT while we wait for it */
	struct buf buf;
	/* Once; the relay is stopped already and may be freed inside. */
	void (*done)(struct relay *r, enum relay_end how);
};

/* Both descriptors must be non-blocking and open until relay_stop or `done`. splice: one is a pipe.
 */
int relay_start(struct relay *r, struct loop *l, int src, int dst, bool splice,
		void (*done)(struct relay *, enum relay_end)) must_check;
void relay_stop(struct relay *r); /* not started = nothing */

#endif
