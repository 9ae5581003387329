/*
 * The pod's network in the guest: SetNetwork (agent.proto), in the network namespace of the agent,
 * which all containers of the pod share. Loop thread.
 */
#ifndef HUSK_AGENT_NET_NETWORK_H
#define HUSK_AGENT_NET_NETWORK_H

#include "base/compiler.h"
#include "base/err.h"
#include "proto/agent.pb-c.h"

/* Whether a request can be meant; -EINVAL names what cannot. Pure. */
int network_validate(const Agent__SetNetworkRequest *req, struct err *err) must_check;
/* Of a request that is valid. -ENODEV: the machine has no network card. */
int network_set(const Agent__SetNetworkRequest *req, struct err *err) must_check;

#endif
