/*
 * Creating containers, with the requests that have to wait: a disk that a removal is just detaching
 * can be attached again only afterwards. Loop thread only.
 */
#ifndef HUSK_AGENT_CREATES_H
#define HUSK_AGENT_CREATES_H

#include "agent/agent.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/agent.pb-c.h"

/* Validates, creates, answers `call`: now, or when the removals that are under way are through. */
void creates_handle(struct agent *a, const Agent__CreateContainerRequest *req,
		    struct ttrpc_call *call);
/* A removal is through, well or badly: those that wait are tried again, oldest first. Fits
 * agent.on_removed. */
void creates_retry(struct agent *a);
/* Answers those that wait with -ECANCELED. */
void creates_fini(struct agent *a);

#endif
