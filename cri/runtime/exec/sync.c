#include "cri/runtime/exec/sync.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/util.h"
#include "cri/runtime/container.h"
#include "cri/runtime/exec/task.h"

struct stream {
	struct sync *sync;
	int fd;
	struct ev_io io;
	struct buf buf;
	bool open; /* end of file has not come */
};

/* The task runs until its exit is known, then its streams are drained until both have ended: that
 * is the answer, and the end. */
struct sync {
	struct huskd *huskd;
	struct container *c;
	struct rpc_call *call;
	struct exec_task *task;
	struct stream out, errors;
	struct ev_timer timeout, drain;
	bool exited; /* exit_code is known */
	uint64_t drain_until_ns;
	uint32_t exit_code;
	int64_t timeout_s;
};

static void stream_close(struct stream *s)
{
	ev_io_del(&s->io);
	fd_close(&s->fd);
	s->open = false;
}

static void stream_fini(struct stream *s)
{
	struct huskd *d = s->sync->huskd;

	stream_close(s);
	check(d->exec_bytes >= buf_len(&s->buf));
	d->exec_bytes -= buf_len(&s->buf);
	buf_fini(&s->buf);
}

/* ---- the end ---- */

/* Both streams share one message of 16 MiB: the longer one is cut, or both to one half. */
static void fit(size_t *a, size_t *b)
{
	const size_t room = RPC_MESSAGE_MAX - 64;

	if (*a + *b <= room)
		return;
	if (*a > room / 2 && *b > room / 2)
		*a = *b = room / 2;
	else if (*a > *b)
		*a = room - *b;
	else
		*b = room - *a;
}

static void sync_answer(struct sync *s, int code, const struct err *err)
{
	Cri__ExecSyncResponse resp = CRI__EXEC_SYNC_RESPONSE__INIT;

	if (code < 0) {
		rpc_reply_err(s->call, code, err);
		return;
	}
	resp.exit_code = (int32_t)s->exit_code;
	resp.stdout.data = (uint8_t *)buf_data(&s->out.buf);
	resp.stdout.len = buf_len(&s->out.buf);
	resp.stderr.data = (uint8_t *)buf_data(&s->errors.buf);
	resp.stderr.len = buf_len(&s->errors.buf);
	fit(&resp.stdout.len, &resp.stderr.len);
	rpc_reply(s->call, &resp.base);
}

/* Answers; the process is gone or will be. */
static void sync_end(struct sync *s, int code, const struct err *err)
{
	sync_answer(s, code, err);
	/* Others may have the room of the output. */
	stream_fini(&s->out);
	stream_fini(&s->errors);
	ev_timer_del(&s->timeout);
	ev_timer_del(&s->drain);
	exec_task_drop(s->task);
	container_unref(s->c);
	free(s);
}

static void end_if_drained(struct sync *s)
{
	if (s->exited && !s->out.open && !s->errors.open)
		sync_end(s, 0, NULL);
}

static void sync_on_silence(struct ev_timer *t)
{
	/* A child that outlived its parent holds the streams: the answer is what has come. */
	sync_end(t->arg, 0, NULL);
}

static void sync_drain(struct sync *s)
{
	if (now_mono_ns() >= s->drain_until_ns ||
	    ev_timer_add(s->huskd->loop, &s->drain, EXEC_SILENCE_MS * NS_PER_MS, sync_on_silence,
			 s) < 0)
		sync_end(s, 0, NULL);
}

/* ---- streams ---- */

/* Bytes that may be kept of the next read; 0 = they are dropped. */
static size_t stream_room(const struct stream *s)
{
	const struct huskd *d = s->sync->huskd;
	size_t len = buf_len(&s->buf), room = 0;

	if (len < EXEC_OUTPUT_SURE)
		room = EXEC_OUTPUT_SURE - len;
	else if (len < EXEC_OUTPUT_MAX && d->exec_bytes < EXEC_OUTPUT_TOTAL)
		room = MIN_OF(EXEC_OUTPUT_MAX - len, EXEC_OUTPUT_TOTAL - d->exec_bytes);
	return MIN_OF(room, 64 * KIB);
}

static ssize_t stream_read(struct stream *s)
{
	struct huskd *d = s->sync->huskd;
	size_t room = stream_room(s);
	uint8_t junk[16 * KIB];
	ssize_t n;

	if (room > 0) {
		n = buf_read_fd(&s->buf, s->fd, room);
		if (n > 0)
			d->exec_bytes += (size_t)n;
		return n;
	}
	n = read(s->fd, junk, sizeof(junk));
	if (n > 0 && buf_len(&s->buf) < EXEC_OUTPUT_MAX)
		log_limited(LOG_WARN,
			    "output of a command is dropped: all of them are at their limit",
			    "container", s->sync->c->id, "exec", exec_task_id(s->sync->task));
	return n < 0 ? -errno : n;
}

static void sync_on_stream(struct ev_io *io, uint32_t events)
{
	struct stream *s = io->arg;
	struct sync *sync = s->sync;
	ssize_t n = stream_read(s);

	if (n > 0 && sync->exited)
		sync_drain(sync);
	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	stream_close(s);
	end_if_drained(sync);
}

static int stream_open(struct sync *sync, struct stream *s, const char *name, char **ret_path,
		       struct err *err)
{
	cleanup_free char *path = NULL;
	int r = exec_task_fifo(sync->task, name, &path, &s->fd, err);

	if (r < 0)
		return r;
	r = ev_io_add(sync->huskd->loop, &s->io, s->fd, EPOLLIN, sync_on_stream, s);
	if (r < 0)
		return err_errno(err, r, "watch %s", path);
	s->open = true;
	*ret_path = take_ptr(&path);
	return 0;
}

/* ---- the process ---- */

static void sync_on_exited(void *arg, uint32_t status)
{
	struct sync *s = arg;

	s->exited = true;
	s->exit_code = status;
	ev_timer_del(&s->timeout);
	s->drain_until_ns = now_mono_ns() + EXEC_DRAIN_MS * NS_PER_MS;
	if (s->out.open || s->errors.open)
		sync_drain(s);
	else
		sync_end(s, 0, NULL);
}

static void sync_on_failed(void *arg, int code, int exit_code, const struct err *err)
{
	struct sync *s = arg;
	char text[16];

	if (exit_code) {
		(void)snprintf(text, sizeof(text), "%d", exit_code);
		rpc_set_trailer(s->call, "husk-exit-code", text);
	}
	sync_end(s, code, err);
}

static void sync_on_timeout(struct ev_timer *t)
{
	struct sync *s = t->arg;
	struct err err = { 0 };

	(void)err_set(&err, -ETIMEDOUT, "container %s: the command timed out after %" PRId64 " s",
		      s->c->id, s->timeout_s);
	sync_end(s, -ETIMEDOUT, &err);
}

static void sync_on_cancel(struct rpc_call *call, void *arg)
{
	struct err err = { 0 };

	(void)err_set(&err, -ECANCELED, "cancelled");
	sync_end(arg, -ECANCELED, &err);
}

static int sync_start(struct sync *s, const Cri__ExecSyncRequest *in, struct err *err)
{
	static const struct exec_task_ops ops = { .exited = sync_on_exited,
						  .failed = sync_on_failed };
	cleanup_free char *out = NULL, *err_path = NULL;
	struct exec_spec spec = { .cmd = in->cmd, .n_cmd = in->n_cmd };
	int r = exec_task_new(s->c, &s->huskd->execs, &ops, s, &s->task, err);

	s->timeout_s = MIN_OF(in->timeout, 1000000000);
	if (r == 0 && s->timeout_s > 0) {
		r = ev_timer_add(s->huskd->loop, &s->timeout, (uint64_t)s->timeout_s * NS_PER_S,
				 sync_on_timeout, s);
		if (r < 0)
			(void)err_errno(err, r, "start a timer");
	}
	if (r == 0)
		r = stream_open(s, &s->out, "stdout", &out, err);
	if (r == 0)
		r = stream_open(s, &s->errors, "stderr", &err_path, err);
	spec.out = out;
	spec.err = err_path;
	return r == 0 ? exec_task_add(s->task, &spec, err) : r;
}

static int check_request(struct huskd *d, const Cri__ExecSyncRequest *in, struct container **ret,
			 struct err *err)
{
	int r = state_find_container(&d->state, in->container_id, ret, err);

	if (r < 0)
		return r;
	if (in->n_cmd == 0 || str_empty(in->cmd[0]))
		return err_set(err, -EINVAL, "no command");
	if (in->timeout < 0)
		return err_set(err, -EINVAL, "negative timeout");
	r = container_check_running(*ret, err);
	if (r < 0)
		return r;
	if (d->execs >= EXEC_MAX)
		return err_set(err, -ENOBUFS, "there are %d commands running already", EXEC_MAX);
	return 0;
}

void sync_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ExecSyncRequest *in = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	struct sync *s = NULL;
	int r = check_request(d, in, &c, &err);

	if (r == 0) {
		s = calloc(1, sizeof(*s));
		r = s ? 0 : err_nomem(&err);
	}
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	*s = (struct sync){ .huskd = d,
			    .call = call,
			    .c = container_ref(c),
			    .out = { .sync = s, .fd = -1 },
			    .errors = { .sync = s, .fd = -1 } };
	buf_init(&s->out.buf, EXEC_OUTPUT_MAX);
	buf_init(&s->errors.buf, EXEC_OUTPUT_MAX);
	r = sync_start(s, in, &err);
	if (r < 0)
		sync_end(s, r, &err);
	else
		rpc_on_cancel(call, sync_on_cancel, s);
}
