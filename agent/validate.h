/*
 * What a request may say, before anything is done for it. Pure: no state, no I/O, any thread.
 * Each returns 0 or -EINVAL with a text that names the field; -EOPNOTSUPP for something that is
 * well-formed and that the agent cannot honour.
 */
#ifndef HUSK_AGENT_VALIDATE_H
#define HUSK_AGENT_VALIDATE_H

#include <stdbool.h>

#include "proto/agent.pb-c.h"
#include "base/compiler.h"
#include "base/err.h"

/* 1 to CONTAINER_ID_MAX of [A-Za-z0-9_.-], first one a letter or digit: never "", ".", "..", never
 * a '/'. */
bool id_valid(const char *id);
int validate_sandbox(const Agent__CreateSandboxRequest *req, struct err *err) must_check;
int validate_container(const Agent__CreateContainerRequest *req, struct err *err) must_check;
/* `what` names the process in the text. A container's process may have its cwd made. */
int validate_process(const Agent__Process *p, const char *what, struct err *err) must_check;
int validate_exec(const Agent__ExecProcessRequest *req, struct err *err) must_check;

#endif
