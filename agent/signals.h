/*
 * SignalProcess: to one process, to all of a container, to all that an exec has started. Whatever
 * looks for processes works in a worker process, so that no container can hold up the loop with
 * many of them. Loop thread only.
 */
#ifndef HUSK_AGENT_SIGNALS_H
#define HUSK_AGENT_SIGNALS_H

#include "agent/container.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/agent.pb-c.h"

/* 0: the call is answered, now or later. */
int signals_send(struct container *c, const Agent__SignalProcessRequest *req,
		 struct ttrpc_call *call, struct err *err) must_check;

#endif
