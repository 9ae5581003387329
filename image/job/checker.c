#include "image/job/checker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/job/proc.h"
#include "image/worker/worker.h"

struct checker {
	struct proc *proc;
	int report_fd;
	struct ev_io io;
	struct buf in;
	checker_done_fn done;
	void *arg;
	size_t left; /* files not told of */
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

/* False when the owner has freed the checker. */
static bool tell(struct checker *c, int code, const char *digest, const struct err *err)
{
	bool freed = false;

	c->freed = &freed;
	c->done(c->arg, code, digest, err);
	if (!freed)
		c->freed = NULL;
	return !freed;
}

static bool on_line(struct checker *c, const char *line, size_t len)
{
	json_t *j = json_loadb(line, len, 0, NULL);
	json_t *e = json_object_get(j, "error");
	const char *text = json_string_value(json_object_get(e, "text"));
	json_int_t code = json_integer_value(json_object_get(e, "errno"));
	const char *found = json_string_value(json_object_get(j, "digest"));
	char digest[DIGEST_LEN + 1] = "";
	struct err err = { 0 };

	if (digest_valid(found))
		memcpy(digest, found, sizeof(digest));
	else
		err_set(&err, code < 0 && code >= -4095 ? (int)code : -EPROTO, "%s",
			text ? text : "the reading process makes no sense");
	json_decref(j);
	c->left--;
	return tell(c, err.code, digest, &err);
}

static void on_io(struct ev_io *io, uint32_t events)
{
	struct checker *c = io->arg;
	ssize_t n = buf_read_fd(&c->in, c->report_fd, WORKER_MAX_LINE);
	const char *line, *end;
	struct err err = { 0 };

	if (n == -EAGAIN || n == -EINTR)
		return;
	while (c->left && (line = (const char *)buf_data(&c->in)) &&
	       (end = memchr(line, '\n', buf_len(&c->in)))) {
		size_t len = (size_t)(end - line);

		if (!on_line(c, line, len))
			return;
		buf_consume(&c->in, len + 1);
	}
	if (n > 0)
		return;
	ev_io_del(&c->io);
	if (c->left) {
		c->left = 0;
		err_set(&err, -ESRCH, "the reading process has died");
		(void)tell(c, -ESRCH, "", &err);
	}
}

static void on_exit_ignored(void *owner, int status)
{
	struct checker *c = owner;

	c->proc = NULL;
}

static int start(struct procs *ps, struct checker *c, const struct checker_file *files, size_t n,
		 bool when_idle, struct err *err)
{
	char kinds[CHECKER_MAX_FILES + 1] = "";
	char *const args[] = { (char *)"check", kinds, when_idle ? (char *)"idle" : NULL, NULL };
	int p[2], fds[CHECK_FIRST_FD + CHECKER_MAX_FILES], r;
	cleanup_fd int report_write = -1;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	c->report_fd = p[0];
	report_write = p[1];
	fds[0] = -1;
	fds[1] = report_write;
	fds[2] = STDERR_FILENO;
	for (size_t k = 0; k < n; k++) {
		fds[CHECK_FIRST_FD + k] = files[k].fd;
		kinds[k] = files[k].is_layer ? CHECK_LAYER : CHECK_BLOB;
	}
	r = proc_start(ps, args, fds, CHECK_FIRST_FD + (int)n, on_exit_ignored, c, &c->proc, err);
	if (r < 0)
		return r;
	if (fd_set_nonblock(c->report_fd, true) < 0 ||
	    ev_io_add(ps->loop, &c->io, c->report_fd, EPOLLIN, on_io, c) < 0)
		return err_set(err, -ENOMEM, "no memory");
	return 0;
}

int checker_new(struct procs *ps, const struct checker_file *files, size_t n, bool when_idle,
		checker_done_fn done, void *arg, struct checker **ret, struct err *err)
{
	struct checker *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "no memory");
	c->report_fd = -1;
	c->done = done;
	c->arg = arg;
	c->left = MIN_OF(n, (size_t)CHECKER_MAX_FILES);
	buf_init(&c->in, WORKER_MAX_LINE);
	r = start(ps, c, files, c->left, when_idle, err);
	if (r < 0) {
		checker_free(c);
		return r;
	}
	*ret = c;
	return 0;
}
