/*
 * The console's end on the host. The guest's kernel writes to a serial port
 * (vmm/backend/cmdline.c), byte by byte and without an interrupt; what the backend has caught of
 * that goes to a sink that never makes the loop wait: what a pipe cannot take is dropped, and a
 * regular file gets CONSOLE_FILE_MAX bytes. There is no input. Main loop thread.
 */
#ifndef HUSK_VMM_DEV_CONSOLE_H
#define HUSK_VMM_DEV_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#define CONSOLE_FILE_MAX (4 * MIB)

struct console {
	int sink;      /* owned; -1 = output is dropped */
	uint64_t left; /* bytes that the sink still takes */
};

void console_init(struct console *c);
/* Takes fd over (-1 = none). */
void console_set_sink(struct console *c, int fd);
void console_output(struct console *c, const void *data, size_t n);
void console_fini(struct console *c);

#endif
