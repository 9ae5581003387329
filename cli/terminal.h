/*
 * The terminal that husk was started on: raw while a program in a container has it, and as it was
 * on every way out of the process but SIGKILL. One thread.
 */
#ifndef HUSK_CLI_TERMINAL_H
#define HUSK_CLI_TERMINAL_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* Until terminal_restore, or the end of the process. One terminal at a time. */
int terminal_raw(int fd, struct err *err) must_check;
void terminal_restore(void); /* not raw = nothing */
/* False: fd is no terminal, or has no size. */
bool terminal_size(int fd, unsigned *width, unsigned *height);

#endif
