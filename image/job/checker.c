#include "image/job/checker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/pb.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/job/proc.h"
#include "image/wire.h"
#include "image/worker/worker.h"

#define MODE "check"

struct checker {
	struct proc *proc;
	int report_fd;
	struct ev_io io;
	struct buf in;
	checker_done_fn done;
	void *arg;
	size_t left; /* files that are not reported yet */
	bool *freed; /* set by checker_free while `done` runs */
};

void checker_free(struct checker *c)
{
	if (!c)
		return;
	if (c->freed)
		*c->freed = true;
	ev_io_del(&c->io);
	fd_close(&c->report_fd);
	proc_drop(c->proc);
	buf_fini(&c->in);
	free(c);
}

/* One call of `done`. False when the owner has freed the checker in it. */
static bool call_done(struct checker *c, int code, const char *digest, const struct err *err)
{
	bool freed = false;

	c->freed = &freed;
	c->done(c->arg, code, digest, err);
	if (!freed)
		c->freed = NULL;
	return !freed;
}

/* No more reports: the process is of no use, and that is the last thing the owner hears. */
static void fail(struct checker *c, int code, const struct err *err)
{
	ev_io_del(&c->io);
	if (!c->left)
		return;
	c->left = 0;
	(void)call_done(c, code, "", err);
}

/*
 * The next report of the buffer: 1 (then the checker may be gone); 0: there is no whole one; < 0.
 */
static int take_report(struct checker *c, bool *ret_gone, struct err *err)
{
	cleanup_pb_arena struct pb_arena arena;
	const Worker__CheckReport *rep;
	const uint8_t *data;
	ssize_t n = wire_next(&c->in, WIRE_MAX_SMALL, &data);
	struct err why = { 0 };
	int r;

	pb_arena_init(&arena, WIRE_REPORT_MEMORY);
	if (n <= 0)
		return n < 0 ? err_set(err, -EPROTO,
				       "a report of no bytes, or of more than %zu KiB",
				       WIRE_MAX_SMALL / KIB)
			     : 0;
	r = wire_check_report(&arena, data, (size_t)n, &rep, err);
	if (r < 0)
		return r;
	buf_consume(&c->in, WIRE_HEADER + (size_t)n);
	c->left--;
	r = rep->failure ? wire_failure(rep->failure, &why) : 0;
	*ret_gone = !call_done(c, r, rep->failure ? "" : rep->digest, &why);
	return 1;
}

static void checker_on_io(struct ev_io *io, uint32_t events)
{
	struct checker *c = io->arg;
	ssize_t n = buf_read_fd(&c->in, c->report_fd, WIRE_MAX_SMALL);
	struct err err = { 0 };
	bool gone = false;
	int r = 0;

	if (n == -EAGAIN || n == -EINTR)
		return;
	while (c->left && (r = take_report(c, &gone, &err)) > 0)
		if (gone)
			return;
	if (r == -EPROTO)
		r = proc_err_protocol(MODE, &err);
	else if (r == 0 && n < 0)
		r = proc_err_lost(MODE, (int)n, -ESRCH, &err);
	else if (r == 0 && n == 0)
		r = proc_err_died(MODE, -ESRCH, &err);
	if (r < 0)
		fail(c, r, &err);
}

static void checker_on_exit(void *owner, int status)
{
	struct checker *c = owner;

	c->proc = NULL;
}

static int start(struct procs *ps, struct checker *c, const struct checker_file *files, size_t n,
		 bool when_idle, struct err *err)
{
	char kinds[CHECKER_MAX_FILES + 1] = "";
	char *const args[] = { (char *)MODE, kinds, when_idle ? (char *)"idle" : NULL, NULL };
	int p[2], fds[CHECK_FIRST_FD + CHECKER_MAX_FILES], r;
	cleanup_fd int report_write = -1;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	c->report_fd = p[0];
	report_write = p[1];
	fds[0] = -1;
	fds[WORKER_REPORT_FD] = report_write;
	fds[2] = -1; /* proc.c */
	for (size_t k = 0; k < n; k++) {
		fds[CHECK_FIRST_FD + k] = files[k].fd;
		kinds[k] = files[k].is_layer ? CHECK_LAYER : CHECK_BLOB;
	}
	r = proc_start(ps, args, fds, CHECK_FIRST_FD + (int)n, checker_on_exit, c, &c->proc, err);
	if (r < 0)
		return r;
	if (fd_set_nonblock(c->report_fd, true) < 0 ||
	    ev_io_add(ps->loop, &c->io, c->report_fd, EPOLLIN, checker_on_io, c) < 0)
		return err_nomem(err);
	return 0;
}

int checker_new(struct procs *ps, const struct checker_file *files, size_t n, bool when_idle,
		checker_done_fn done, void *arg, struct checker **ret, struct err *err)
{
	struct checker *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_nomem(err);
	c->report_fd = -1;
	c->done = done;
	c->arg = arg;
	c->left = MIN_OF(n, (size_t)CHECKER_MAX_FILES);
	buf_init(&c->in, WIRE_HEADER + 2 * WIRE_MAX_SMALL);
	r = start(ps, c, files, c->left, when_idle, err);
	if (r < 0) {
		checker_free(c);
		return r;
	}
	*ret = c;
	return 0;
}
