/*
 * Identity and privileges of a process that is about to exec: groups, ids, the five capability
 * sets. Runs in the child, as root with all capabilities; afterwards there is no way back.
 */
#ifndef HUSK_AGENT_PROC_CAPS_H
#define HUSK_AGENT_PROC_CAPS_H

#include "proto/agent.pb-c.h"
#include "agent/proc/user.h"
#include "base/compiler.h"

/* caps NULL = none at all. *ret_what names the step that failed (a constant). */
int caps_become(const struct user *u, const Agent__Capabilities *caps,
		const char **ret_what) must_check;

#endif
