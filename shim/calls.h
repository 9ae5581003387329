/*
 * ttrpc calls that wait for the same thing (an exit, the end of the sandbox). A client that goes
 * away leaves the list by itself. Loop thread.
 */
#ifndef HUSK_SHIM_CALLS_H
#define HUSK_SHIM_CALLS_H

#include "base/ttrpc/ttrpc.h"

struct call_node;

struct calls {
	struct call_node *head; /* NULL = nobody waits; a zeroed struct is an empty list */
};

/* Keeps the call until calls_reply; without memory it is answered with an error at once. */
void calls_add(struct calls *list, struct ttrpc_call *call);
/* Answers all with `msg`, or with the error when msg is NULL. */
void calls_reply(struct calls *list, const ProtobufCMessage *msg, int code, const struct err *err);

#endif
