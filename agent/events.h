/*
 * The event stream: numbered news, the last AGENT_EVENTS_KEPT of them kept for a client that comes
 * back. A client that asks for what is gone gets the oldest that is left; the gap shows in the
 * numbers. Loop thread only.
 */
#ifndef HUSK_AGENT_EVENTS_H
#define HUSK_AGENT_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/limits.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/ttrpc/ttrpc.h"

struct event {
	uint64_t seq;
	bool oom; /* else an exit */
	char id[CONTAINER_ID_MAX + 1];
	char exec_id[CONTAINER_ID_MAX + 1];
	uint32_t pid;
	uint32_t exit_status;
	int64_t exited_at_ns;
	bool oom_killed;
};

struct events {
	struct event *ring; /* AGENT_EVENTS_KEPT, made at the first event */
	uint64_t last;	    /* seq of the newest, 0 = none yet */
	struct ttrpc_call *subs[AGENT_SUBSCRIBERS_MAX];
	size_t n_subs;
};

void events_fini(struct events *e); /* ends all streams */
/* Numbers, keeps and sends it. -ENOMEM only for the first one. */
int events_add(struct events *e, const struct event *ev) must_check;
/* The oldest kept event with a number above `after`, NULL = none. */
const struct event *events_next(const struct events *e, uint64_t after);
/* Answers the call now (an error) or streams to it until it goes away. */
void events_subscribe(struct events *e, struct ttrpc_call *call, uint64_t after);

#endif
