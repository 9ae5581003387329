/*
 * Calls that wait for something of the pod: an exit, READY, the end. They are in the list of those
 * who wait for it, and a client that goes away leaves the list by itself. Loop thread.
 */
#ifndef HUSK_SHIM_SERVICE_PENDING_H
#define HUSK_SHIM_SERVICE_PENDING_H

#include "base/ttrpc/ttrpc.h"
#include "base/waits.h"

/* Must answer the call. code and err as the list was run with. */
typedef void (*pending_answer)(struct ttrpc_call *call, void *subject, int code,
			       const struct err *err);

/* `answer` comes when the list is run; the list is part of `subject`, or lives longer. Without
 * memory the call is answered with an error at once. */
void pending_add(struct ttrpc_call *call, struct waits *list, pending_answer answer, void *subject);

#endif
