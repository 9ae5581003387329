/*
 * huskd's end of one process that reads files of the store again (worker.h, "check"). Loop thread.
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
 * For each file in turn. code 0: `digest` is what it found. -EBADMSG: the file cannot be what it
 * should; -EIO: it cannot be read. -ESRCH: the process has died, no more files are told of. May
 * call checker_free.
 */
typedef void (*checker_done_fn)(void *arg, int code, const char *digest, const struct err *err);

/* when_idle: nobody waits for it, all else goes first. */
int checker_new(struct procs *ps, const struct checker_file *files, size_t n, bool when_idle,
		checker_done_fn done, void *arg, struct checker **ret, struct err *err) must_check;
void checker_free(struct checker *c); /* kills the process; NULL is fine */

#endif
