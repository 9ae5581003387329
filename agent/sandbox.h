/* The pod as a whole: what CreateSandbox sets up, once in the life of a VM. Loop thread only. */
#ifndef HUSK_AGENT_SANDBOX_H
#define HUSK_AGENT_SANDBOX_H

#include "agent/agent.h"
#include "proto/agent.pb-c.h"
#include "base/compiler.h"
#include "base/err.h"

/* Validated already. -EEXIST the second time. */
int sandbox_create(struct agent *a, const Agent__CreateSandboxRequest *req,
		   struct err *err) must_check;

#endif
