/* The end of the guest. Loop thread only. */
#ifndef HUSK_AGENT_SHUTDOWN_H
#define HUSK_AGENT_SHUTDOWN_H

#include "agent/agent.h"

/* Kills every container, writes the disks back, then powers off (cfg.power_off). Once. */
void agent_shutdown(struct agent *a);

#endif
