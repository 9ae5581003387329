/* The pod as a whole: what CreateSandbox sets up, once in the life of a VM. Loop thread only. */
#ifndef HUSK_AGENT_SANDBOX_H
#define HUSK_AGENT_SANDBOX_H

#include "agent/agent.h"
#include "base/compiler.h"
#include "base/err.h"
#include "proto/agent.pb-c.h"

/* 0 = there is a sandbox; -EBUSY: not yet, or the guest is shutting down. */
int sandbox_ready(const struct agent *a, struct err *err) must_check;
/* Validated already. -EEXIST the second time; -EBUSY: the guest is shutting down. */
int sandbox_create(struct agent *a, const Agent__CreateSandboxRequest *req,
		   struct err *err) must_check;

#endif
