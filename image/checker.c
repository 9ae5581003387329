#include "image/checker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/util.h"
#include "image/digest.h"
#include "image/proc.h"
#include "image/store.h"
#include "image/worker.h"

struct checker {
	struct proc *proc;
	int report_fd;
	struct ev_io io;
	struct buf in;
	checker_done_fn done;
	void *arg;
};

void checker_free(struct checker *c)
{
	if (!c)
		return;
	ev_io_del(&c->io);
	fd_close(&c->report_fd);
	proc_drop(c->proc);
	buf_fini(&c->in);
	free(c);
}

static void on_report(struct checker *c)
{
	json_t *j = json_loadb((const char *)buf_data(&c->in), buf_len(&c->in), 0, NULL);
	json_t *e = json_object_get(j, "error");
	const char *text = json_string_value(json_object_get(e, "text"));
	json_int_t code = json_integer_value(json_object_get(e, "errno"));
	const char *found = json_string_value(json_object_get(j, "digest"));
	char digest[DIGEST_LEN + 1] = "";
	struct err err = { 0 };

	if (digest_valid(found))
		memcpy(digest, found, sizeof(digest));
	else
		err_set(&err, code < 0 && code >= -4095 ? (int)code : -EIO, "%s",
			text ? text : "the reading process has died");
	json_decref(j);
	c->done(c->arg, err.code, digest, &err);
}

static void on_io(struct ev_io *io, uint32_t events)
{
	struct checker *c = io->arg;
	ssize_t n = buf_read_fd(&c->in, c->report_fd, WORKER_MAX_LINE);

	if (n == -EAGAIN || n == -EINTR || n > 0)
		return;
	ev_io_del(&c->io);
	on_report(c); /* what cannot be read is no report */
}

static void on_exit_ignored(void *owner, int status)
{
	struct checker *c = owner;

	c->proc = NULL;
}

static int start(struct image_store *s, struct checker *c, const char *kind, int fd, bool when_idle,
		 struct err *err)
{
	char *const args[] = { (char *)"check", (char *)kind, when_idle ? (char *)"idle" : NULL,
			       NULL };
	cleanup_fd int report_write = -1;
	int p[2], fds[3], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	c->report_fd = p[0];
	report_write = p[1];
	fds[0] = fd;
	fds[1] = report_write;
	fds[2] = STDERR_FILENO;
	r = proc_start(s, args, fds, ARRAY_SIZE(fds), on_exit_ignored, c, &c->proc, err);
	if (r < 0)
		return r;
	if (fd_set_nonblock(c->report_fd, true) < 0 ||
	    ev_io_add(s->loop, &c->io, c->report_fd, EPOLLIN, on_io, c) < 0)
		return err_set(err, -ENOMEM, "no memory");
	return 0;
}

int checker_new(struct image_store *s, const char *kind, int fd, bool when_idle,
		checker_done_fn done, void *arg, struct checker **ret, struct err *err)
{
	struct checker *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "no memory");
	c->report_fd = -1;
	c->done = done;
	c->arg = arg;
	buf_init(&c->in, WORKER_MAX_LINE);
	r = start(s, c, kind, fd, when_idle, err);
	if (r < 0) {
		checker_free(c);
		return r;
	}
	*ret = c;
	return 0;
}
