/*
 * Short names for the generated types of base/proto/agent.proto:
 *	const PB(Process) *p;		Husk__Agent__V1__Process
 *	PB(Event) e = PB_INIT(EVENT);	HUSK__AGENT__V1__EVENT__INIT
 */
#ifndef HUSK_AGENT_API_H
#define HUSK_AGENT_API_H

#include "proto/agent.pb-c.h"

#define PB(name) Husk__Agent__V1__##name
#define PB_INIT(NAME) HUSK__AGENT__V1__##NAME##__INIT
#define PB_NS_POD HUSK__AGENT__V1__NAMESPACE_MODE__POD
#define PB_NS_PRIVATE HUSK__AGENT__V1__NAMESPACE_MODE__PRIVATE

#endif
