/*
 * huskd's end of one process that reads files of the store again (base/proto/image_worker.proto,
 * "check"). Loop thread.
 */
#ifndef HUSK_IMAGE_JOB_CHECKER_H
#define HUSK_IMAGE_JOB_CHECKER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"

#define CHECKER_MAX_FILES 32u /* of one process */

struct checker;
struct procs;

struct checker_file {
	bool is_layer; /* else a blob */
	int fd;	       /* borrowed for checker_new, read from its start */
};

/*
 * Once for each file, in their order. code 0: `digest` is what it found. -EBADMSG: the file cannot
 * be what it should be; -EIO: it cannot be read. -ESRCH: the process has died, -EPROTO: it broke
 * its protocol; of the other files nothing is heard then. May call checker_free.
 */
typedef void (*checker_done_fn)(void *arg, int code, const char *digest, const struct err *err);

/* when_idle: it runs only when no other process wants the CPU. */
int checker_new(struct procs *ps, const struct checker_file *files, size_t n, bool when_idle,
		checker_done_fn done, void *arg, struct checker **ret, struct err *err) must_check;
void checker_free(struct checker *c); /* kills the process; NULL is fine */

#endif
