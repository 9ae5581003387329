/* husk.agent.v1.Agent as a service of a ttrpc server. Loop thread only. */
#ifndef HUSK_AGENT_SERVICE_H
#define HUSK_AGENT_SERVICE_H

#include "agent/agent.h"
#include "base/ttrpc/ttrpc.h"

/* Valid as long as the agent. */
void agent_service(struct agent *a, struct ttrpc_service *ret);

#endif
