/* huskd's end of one process that reads a file again (worker.h, "check"). Loop thread. */
#ifndef HUSK_IMAGE_CHECKER_H
#define HUSK_IMAGE_CHECKER_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct checker;
struct image_store;

/* code 0: `digest` is what it found. -EBADMSG: the file cannot be what it should. May call
 * checker_free. */
typedef void (*checker_done_fn)(void *arg, int code, const char *digest, const struct err *err);

/* kind: "blob" or "layer". `fd` is borrowed for the call, and read from its start. when_idle:
 * nobody waits for it, all else goes first. */
int checker_new(struct image_store *s, const char *kind, int fd, bool when_idle,
		checker_done_fn done, void *arg, struct checker **ret, struct err *err) must_check;
void checker_free(struct checker *c); /* kills the process; NULL is fine */

#endif
