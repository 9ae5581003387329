/*
 * Creating containers, with the requests that have to wait: for a disk that another create is just
 * attaching, or a removal is detaching, or because many are being created. Loop thread only.
 */
#ifndef HUSK_AGENT_CREATES_H
#define HUSK_AGENT_CREATES_H

#include "agent/agent.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/agent.pb-c.h"

/* Validates, creates, answers `call`: now or later. A call that waits here and is cancelled makes
 * no container. */
void creates_handle(struct agent *a, const Agent__CreateContainerRequest *req,
		    struct ttrpc_call *call);
/* A create or removal is through, well or badly: those that wait are tried again, oldest first.
 * Fits agent.on_settled. */
void creates_retry(struct agent *a);
/* A removal of one that waits here: it is not made, and both calls are answered. False: there is
 * none of that id. */
bool creates_withdraw(struct agent *a, const char *id, struct ttrpc_call *remove);
/* Answers those that wait with -ECANCELED. */
void creates_fini(struct agent *a);

#endif
