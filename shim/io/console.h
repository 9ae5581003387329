/*
 * The console of a pod's guest: what the guest's kernel has to say when something is wrong comes
 * through a pipe and goes to a file of the pod; a file of CONSOLE_FILE_MAX bytes becomes
 * PATH.1, and a new one begins. All of it may be hostile: bytes that are not printable ASCII are
 * written as \xNN, so that the file may be shown on a terminal, and what comes faster than
 * CONSOLE_RATE is dropped and counted in the file. The end of it is kept in memory. Neither the
 * guest nor the disk can hold up the loop for long. Loop thread.
 */
#ifndef HUSK_SHIM_IO_CONSOLE_H
#define HUSK_SHIM_IO_CONSOLE_H

#include <stddef.h>

#include "base/err.h"
#include "base/loop.h"

#define CONSOLE_FILE_MAX (512 * KIB)
#define CONSOLE_RATE (16 * KIB) /* bytes a second in the file, from the guest's point of view ... */
#define CONSOLE_BURST (256 * KIB)  /* ... and as many at once */
#define CONSOLE_TAIL_MAX (8 * KIB) /* bytes in memory */

struct console;

/* Opens the file at `path` (0640). *ret_fd: the guest's end, a pipe that never makes its writer
 * wait; the caller closes it when the monitor has it. The reading begins at once. */
int console_new(struct loop *l, const char *path, struct console **ret, int *ret_fd,
		struct err *err) must_check;
/* Takes what is in the pipe, e.g. the last words of a guest whose monitor has just been reaped. */
void console_drain(struct console *c);
const char *console_path(const struct console *c);
/* The last lines, at most `max` bytes of them. Valid until the next output. */
const char *console_tail(const struct console *c, size_t max);
/* What the guest's kernel died of, in its own words on one line: "Kernel panic - ...". "" when it
 * did not say. Cut to `size`. */
void console_cause(const struct console *c, char *buf, size_t size);
void console_free(struct console *c); /* NULL is fine; the file stays */

#endif
