/*
 * A child that is held between its exec and the first instruction of its program, by ptrace: what
 * the exec costs is still the agent's account, and what is set while it is held is there when the
 * program looks. The tracer is PID 1, so privileges that a program has by its file stay (as they
 * would not with a tracer without CAP_SYS_PTRACE). Leaf functions; the reaper hands over the stops
 * (reap.h).
 */
#ifndef HUSK_AGENT_PROC_HOLD_H
#define HUSK_AGENT_PROC_HOLD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"

/* From now on its stops come to the reaper. pid: a child that was not reaped. -EPERM: somebody else
 * traces it; -ESRCH: it has ended. */
int hold_at_exec(pid_t pid) must_check;
/* Of a stop: true = it is held at its exec, until hold_release. Any other one is handled here as if
 * nobody traced. */
bool hold_is_exec(pid_t pid, int status) must_check;
void hold_release(pid_t pid);

#endif
