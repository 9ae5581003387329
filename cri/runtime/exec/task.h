/*
 * One more process in a container: a task of the pod's shim, from its Exec to its Delete, and the
 * directory of its FIFOs. Whoever makes it hears how it goes until exec_task_drop; what is left to
 * do then, killing and deleting, it does on its own. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_EXEC_TASK_H
#define HUSK_CRI_RUNTIME_EXEC_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define EXEC_START_MS 60000
#define EXEC_KILL_MS 10000
#define EXEC_RESIZE_MS 10000
#define EXEC_DELETE_MS 30000

struct container;
struct exec_task;
struct stream_want;

/* Not after exec_task_drop. `exited` and `failed` come at most once, and one of them. */
struct exec_task_ops {
	void (*started)(void *arg); /* may be NULL */
	/* All output is in the FIFOs, or two seconds have passed (shim/README.md). */
	void (*exited)(void *arg, uint32_t status);
	/* It could not be started, or was lost. exit_code: what the start that failed stands for
	 * (shim_start_exit_code), else 0. */
	void (*failed)(void *arg, int code, int exit_code, const struct err *err);
};

struct exec_spec {
	char *const *cmd;
	size_t n_cmd;
	bool tty;
	const char *in, *out, *err; /* paths of FIFOs, NULL = none */
};

/* What a client of Exec or Attach may ask for. -EINVAL. */
int exec_task_check_streams(const struct stream_want *want, struct err *err) must_check;

/* An id and an empty directory. *count is how many of a kind there are until the last trace of them
 * is gone: raised here. */
int exec_task_new(struct container *c, unsigned *count, const struct exec_task_ops *ops, void *arg,
		  struct exec_task **ret, struct err *err) must_check;
/* A FIFO in the directory. *ret_fd: its read end, which does not block; NULL = not opened. */
int exec_task_fifo(const struct exec_task *t, const char *name, char **ret_path, int *ret_fd,
		   struct err *err) must_check;
/* Asks the shim for the process. 0: the ops will be called. */
int exec_task_add(struct exec_task *t, const struct exec_spec *spec, struct err *err) must_check;
/* At any time. What comes while one is on its way replaces what waits. */
void exec_task_resize(struct exec_task *t, unsigned width, unsigned height);
/* From `started` on: end of file for the process is when the last writer of its FIFO is gone. */
void exec_task_close_input(struct exec_task *t);
/* Nobody wants it any more: removes the directory, kills what runs. Also after a failure of the
 * above. NULL is fine. */
void exec_task_drop(struct exec_task *t);
const char *exec_task_id(const struct exec_task *t);

#endif
