/*
 * The guest's console on the host: a file in the pod's bundle that the shim writes
 * (shim/io/console.h), printable ASCII whatever the guest does. When a VM ends by itself the
 * file is all that stays of the bundle, until the pod is removed. Reads and removes small local
 * files. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_CONSOLE_H
#define HUSK_CRI_RUNTIME_CONSOLE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

#define CONSOLE_SHOWN 2048 /* bytes of its end that a status shows */

/* Removes a bundle except for the console. */
int console_keep(const char *bundle, struct err *err) must_check;
/* Nothing else is in the bundle, or there is none. */
bool console_alone(const char *bundle);
/* "consoleLog": the path, and "console": its last lines, into `info`. Nothing where no file is. */
void console_describe(const char *bundle, json_t *info);

#endif
