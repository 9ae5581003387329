#include "image/unpacker.h"

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

#define PIPE_SIZE (1 * MIB)

struct unpacker {
	struct proc *proc;
	char *path;
	int report_fd;
	struct ev_io io;
	struct buf in;
	unpacker_done_fn done;
	void *arg;
};

const char *unpacker_path(const struct unpacker *u)
{
	return u->path;
}

void unpacker_free(struct unpacker *u)
{
	if (!u)
		return;
	ev_io_del(&u->io);
	fd_close(&u->report_fd);
	proc_drop(u->proc);
	buf_fini(&u->in);
	if (u->path)
		(void)unlink(u->path);
	free(u->path);
	free(u);
}

static void report(struct unpacker *u, int code, const char *diff_id, const char *text)
{
	struct err err = { 0 };

	ev_io_del(&u->io);
	if (code < 0)
		err_set(&err, code, "%s", text);
	u->done(u->arg, code, diff_id, &err);
}

static void on_report(struct unpacker *u)
{
	json_t *j = json_loadb((const char *)buf_data(&u->in), buf_len(&u->in), 0, NULL);
	json_t *e = json_object_get(j, "error");
	const char *id = json_string_value(json_object_get(j, "diff_id"));
	const char *text = json_string_value(json_object_get(e, "text"));
	json_int_t code = json_integer_value(json_object_get(e, "errno"));
	char diff_id[DIGEST_LEN + 1];
	struct err err = { 0 };
	bool ok = digest_valid(id);

	if (ok)
		memcpy(diff_id, id, sizeof(diff_id));
	if (!ok)
		err_set(&err, code < 0 && code >= -4095 ? (int)code : -EIO, "%s",
			text ? text : "the unpacking process has died");
	json_decref(j);
	if (ok)
		report(u, 0, diff_id, NULL);
	else
		report(u, err.code, NULL, err.msg);
}

static void on_io(struct ev_io *io, uint32_t events)
{
	struct unpacker *u = io->arg;
	ssize_t n = buf_read_fd(&u->in, u->report_fd, WORKER_MAX_LINE);

	if (n == -EAGAIN || n == -EINTR || n > 0)
		return;
	if (n < 0)
		report(u, -EIO, NULL, "cannot hear the unpacking process");
	else
		on_report(u);
}

/* The end of the process is seen as the end of its report. */
static void on_exit_ignored(void *owner, int status)
{
	struct unpacker *u = owner;

	u->proc = NULL;
}

static int start(struct image_store *s, struct unpacker *u, enum decode_kind kind,
		 const char *diff_id, int *ret_fd, struct err *err)
{
	char *const args[] = {
		(char *)"unpack",    (char *)"--compression", (char *)decode_kind_name(kind),
		(char *)"--diff-id", (char *)diff_id,	      NULL
	};
	cleanup_fd int in_read = -1, in_write = -1, report_write = -1, file = -1;
	int p[2], fds[4], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	in_read = p[0];
	in_write = p[1];
	(void)fcntl(in_write, F_SETPIPE_SZ, PIPE_SIZE); /* a smaller one works, too */
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	u->report_fd = p[0];
	report_write = p[1];
	file = open(u->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file < 0)
		return err_errno(err, -errno, "%s", u->path);
	fds[0] = in_read;
	fds[1] = report_write;
	fds[2] = STDERR_FILENO;
	fds[WORKER_OUT_FD] = file;
	r = proc_start(s, args, fds, ARRAY_SIZE(fds), on_exit_ignored, u, &u->proc, err);
	if (r < 0)
		return r;
	if (fd_set_nonblock(u->report_fd, true) < 0 ||
	    ev_io_add(s->loop, &u->io, u->report_fd, EPOLLIN, on_io, u) < 0)
		return err_set(err, -ENOMEM, "no memory");
	*ret_fd = take_fd(&in_write);
	return 0;
}

int unpacker_new(struct image_store *s, enum decode_kind kind, const char *diff_id,
		 unpacker_done_fn done, void *arg, struct unpacker **ret, int *ret_fd,
		 struct err *err)
{
	struct unpacker *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return err_set(err, -ENOMEM, "no memory");
	u->report_fd = -1;
	u->done = done;
	u->arg = arg;
	buf_init(&u->in, WORKER_MAX_LINE);
	u->path = str_fmt("%s/%llu.ext4", s->tmp_dir, (unsigned long long)++s->tmp_serial);
	r = u->path ? start(s, u, kind, diff_id, ret_fd, err) : err_set(err, -ENOMEM, "no memory");
	if (r < 0) {
		unpacker_free(u);
		return r;
	}
	*ret = u;
	return 0;
}
