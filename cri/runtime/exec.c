#include "cri/runtime/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/util.h"
#include "cri/paths.h"
#include "cri/runtime/container.h"
#include "cri/runtime/shim_client.h"
#include "cri/runtime/spec.h"
#include "proto/wkt.pb-c.h"

struct stream {
	struct exec *exec;
	int fd;
	struct ev_io io;
	struct buf buf;
	bool open; /* end of file has not come */
};

/*
 * ADD (task Exec) -> START -> RUNNING until the exit is known -> DRAIN until both streams have
 * ended -> answer; the task's Delete follows on its own. Each ttrpc call in flight holds a
 * reference.
 */
struct exec {
	unsigned refs;
	struct container *c;
	struct huskd *huskd;
	struct rpc_call *call; /* NULL once answered */
	char id[65];
	char *dir;
	struct stream out, errors;
	struct ev_timer timeout, drain;
	bool added;  /* the shim has it */
	bool exited; /* exit_code is known */
	uint64_t drain_until_ns;
	bool ended;
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
	struct huskd *d = s->exec->huskd;

	stream_close(s);
	check(d->exec_bytes >= buf_len(&s->buf));
	d->exec_bytes -= buf_len(&s->buf);
	buf_fini(&s->buf);
}

static void exec_unref(struct exec *e)
{
	if (--e->refs > 0)
		return;
	stream_fini(&e->out);
	stream_fini(&e->errors);
	ev_timer_del(&e->timeout);
	ev_timer_del(&e->drain);
	container_unref(e->c);
	free(e->dir);
	e->huskd->execs--;
	free(e);
}

static int call_task(struct exec *e, const char *method, const ProtobufCMessage *req,
		     uint64_t timeout_ms, ttrpc_done done)
{
	int r = container_call(e->c, method, req, timeout_ms, done, e);

	if (r == 0)
		e->refs++;
	return r;
}

/* ---- the end ---- */

static void exec_on_deleted(const struct ttrpc_result *res, void *arg)
{
	struct exec *e = arg;

	if (res->code < 0 && res->code != -ENOENT && res->code != -ECONNRESET &&
	    res->code != -ECANCELED)
		log_limited(LOG_WARN, "cannot delete an exec", "container", e->c->id, "exec", e->id,
			    "err", err_text(res->err));
	exec_unref(e);
}

/* After the answer: nothing of the process may stay behind in shim and guest. */
static void delete_task(struct exec *e)
{
	TaskV3__DeleteRequest req = TASK_V3__DELETE_REQUEST__INIT;

	req.id = e->c->id;
	req.exec_id = e->id;
	if (e->added && call_task(e, "Delete", &req.base, EXEC_DELETE_MS, exec_on_deleted) == 0)
		e->added = false;
}

static void release_files(struct exec *e)
{
	/* The output has been answered: others may have its room. */
	stream_fini(&e->out);
	stream_fini(&e->errors);
	ev_timer_del(&e->timeout);
	ev_timer_del(&e->drain);
	if (e->dir)
		(void)!remove_tree(e->dir, NULL);
}

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

static void exec_answer(struct exec *e, int code, const struct err *err)
{
	Cri__ExecSyncResponse resp = CRI__EXEC_SYNC_RESPONSE__INIT;
	struct rpc_call *call = take_ptr(&e->call);

	if (!call)
		return;
	if (code < 0) {
		rpc_reply_err(call, code, err);
		return;
	}
	resp.exit_code = (int32_t)e->exit_code;
	resp.stdout.data = (uint8_t *)buf_data(&e->out.buf);
	resp.stdout.len = buf_len(&e->out.buf);
	resp.stderr.data = (uint8_t *)buf_data(&e->errors.buf);
	resp.stderr.len = buf_len(&e->errors.buf);
	fit(&resp.stdout.len, &resp.stderr.len);
	rpc_reply(call, &resp.base);
}

/* Answered, and the process is gone or will be: drops the reference of the exec itself. */
static void exec_end(struct exec *e, int code, const struct err *err)
{
	if (e->ended)
		return;
	e->ended = true;
	exec_answer(e, code, err);
	release_files(e);
	delete_task(e);
	exec_unref(e);
}

static void exec_check(struct exec *e)
{
	if (e->exited && !e->out.open && !e->errors.open)
		exec_end(e, 0, NULL);
}

static void exec_on_silence(struct ev_timer *t)
{
	/* A child that outlived its parent holds the streams: the answer is what has come. */
	exec_end(t->arg, 0, NULL);
}

static void exec_drain(struct exec *e)
{
	if (now_mono_ns() >= e->drain_until_ns ||
	    ev_timer_add(e->huskd->loop, &e->drain, EXEC_SILENCE_MS * NS_PER_MS, exec_on_silence,
			 e) < 0)
		exec_end(e, 0, NULL);
}

/* ---- streams ---- */

/* Bytes that may be kept of the next read; 0 = they are dropped. */
static size_t stream_room(const struct stream *s)
{
	const struct huskd *d = s->exec->huskd;
	size_t len = buf_len(&s->buf), room = 0;

	if (len < EXEC_OUTPUT_SURE)
		room = EXEC_OUTPUT_SURE - len;
	else if (len < EXEC_OUTPUT_MAX && d->exec_bytes < EXEC_OUTPUT_TOTAL)
		room = MIN_OF(EXEC_OUTPUT_MAX - len, EXEC_OUTPUT_TOTAL - d->exec_bytes);
	return MIN_OF(room, 64 * KIB);
}

static ssize_t stream_read(struct stream *s)
{
	struct huskd *d = s->exec->huskd;
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
			    "container", s->exec->c->id, "exec", s->exec->id);
	return n < 0 ? -errno : n;
}

static void exec_on_stream(struct ev_io *io, uint32_t events)
{
	struct stream *s = io->arg;
	struct exec *e = s->exec;
	ssize_t n = stream_read(s);

	if (n > 0 && e->exited)
		exec_drain(e);
	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	stream_close(s);
	exec_check(e);
}

static int stream_open(struct exec *e, struct stream *s, const char *name, char **ret_path,
		       struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", e->dir, name);
	int r;

	if (!path)
		return err_nomem(err);
	if (mkfifo(path, 0600) < 0)
		return err_errno(err, -errno, "make %s", path);
	buf_init(&s->buf, EXEC_OUTPUT_MAX);
	s->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (s->fd < 0)
		return err_errno(err, -errno, "open %s", path);
	r = ev_io_add(e->huskd->loop, &s->io, s->fd, EPOLLIN, exec_on_stream, s);
	if (r < 0)
		return err_errno(err, r, "watch %s", path);
	s->open = true;
	*ret_path = take_ptr(&path);
	return 0;
}

/* ---- the process ---- */

static void exec_kill(struct exec *e);

static void exec_on_exit(const struct ttrpc_result *res, void *arg)
{
	struct exec *e = arg;
	struct err err = { 0 };

	if (e->ended) {
		/* Timed out or cancelled, and dead now. */
		delete_task(e);
	} else if (res->code < 0) {
		(void)err_set(&err, -EIO, "container %s: %s", e->c->id, err_text(res->err));
		exec_end(e, -EIO, &err);
	} else {
		e->exited = true;
		e->exit_code = ((const TaskV3__WaitResponse *)(const void *)res->resp)->exit_status;
		ev_timer_del(&e->timeout);
		e->drain_until_ns = now_mono_ns() + EXEC_DRAIN_MS * NS_PER_MS;
		if (e->out.open || e->errors.open)
			exec_drain(e);
		else
			exec_check(e);
	}
	exec_unref(e);
}

static void exec_on_kill_sent(const struct ttrpc_result *res, void *arg)
{
	exec_unref(arg);
}

static void exec_kill(struct exec *e)
{
	TaskV3__KillRequest req = TASK_V3__KILL_REQUEST__INIT;

	req.id = e->c->id;
	req.exec_id = e->id;
	req.signal = SIGKILL;
	req.all = true; /* with what it has started, whatever became of its parent or session */
	if (e->added && !e->exited)
		(void)call_task(e, "Kill", &req.base, EXEC_KILL_MS, exec_on_kill_sent);
}

/* Answers now; the process is killed, and deleted when its Wait comes back. */
static void exec_abandon(struct exec *e, int code, const struct err *err)
{
	if (e->ended)
		return;
	e->ended = true;
	exec_kill(e);
	exec_answer(e, code, err);
	release_files(e);
	exec_unref(e);
}

static void exec_on_timeout(struct ev_timer *t)
{
	struct exec *e = t->arg;
	struct err err = { 0 };

	(void)err_set(&err, -ETIMEDOUT, "container %s: the command timed out after %" PRId64 " s",
		      e->c->id, e->timeout_s);
	exec_abandon(e, -ETIMEDOUT, &err);
}

static void exec_on_cancel(struct rpc_call *call, void *arg)
{
	struct err err = { 0 };

	(void)err_set(&err, -ECANCELED, "cancelled");
	exec_abandon(arg, -ECANCELED, &err);
}

static void wait_exit(struct exec *e)
{
	TaskV3__WaitRequest req = TASK_V3__WAIT_REQUEST__INIT;
	struct err err = { 0 };
	int r;

	req.id = e->c->id;
	req.exec_id = e->id;
	r = call_task(e, "Wait", &req.base, 0, exec_on_exit);
	if (r < 0 && !e->ended)
		exec_end(e, r, (err_errno(&err, r, "wait for a command"), &err));
}

static void start_failed(struct exec *e, const struct ttrpc_result *res)
{
	int exit_code = shim_start_exit_code(res);
	struct err err = { 0 };
	char code[16];

	if (exit_code && e->call) {
		(void)snprintf(code, sizeof(code), "%d", exit_code);
		rpc_set_trailer(e->call, "husk-exit-code", code);
	}
	(void)err_set(&err, -EIO, "container %s: %s", e->c->id, err_text(res->err));
	exec_end(e, -EIO, &err);
}

static void exec_on_started(const struct ttrpc_result *res, void *arg)
{
	struct exec *e = arg;

	if (e->ended && res->code < 0) {
		delete_task(e);
	} else if (res->code < 0) {
		start_failed(e, res);
	} else {
		if (e->ended)
			exec_kill(e);
		wait_exit(e);
	}
	exec_unref(e);
}

static void exec_on_added(const struct ttrpc_result *res, void *arg)
{
	TaskV3__StartRequest req = TASK_V3__START_REQUEST__INIT;
	struct exec *e = arg;
	struct err err = { 0 };
	int r = res->code;

	e->added = r == 0;
	if (e->ended) {
		delete_task(e);
	} else if (r < 0) {
		(void)err_set(&err, r, "container %s: %s", e->c->id, err_text(res->err));
		exec_end(e, r, &err);
	} else {
		req.id = e->c->id;
		req.exec_id = e->id;
		r = call_task(e, "Start", &req.base, EXEC_START_MS, exec_on_started);
		if (r < 0)
			exec_end(e, r, (err_errno(&err, r, "call the shim"), &err));
	}
	exec_unref(e);
}

static int exec_add(struct exec *e, const Cri__ExecSyncRequest *in, struct err *err)
{
	TaskV3__ExecProcessRequest req = TASK_V3__EXEC_PROCESS_REQUEST__INIT;
	Wkt__Any any = WKT__ANY__INIT;
	cleanup_free char *bundle = path_container(e->huskd, e->c->id);
	cleanup_free char *file = bundle ? str_fmt("%s/config.json", bundle) : NULL;
	cleanup_free char *config = NULL, *process = NULL, *out = NULL, *err_path = NULL;
	int r = file ? read_file(file, SPEC_JSON_MAX, &config, NULL, err) : err_nomem(err);

	if (r == 0)
		r = spec_exec(config, in->cmd, in->n_cmd, &process, err);
	if (r == 0)
		r = mkdir_p(e->dir, 0700, err);
	if (r == 0)
		r = stream_open(e, &e->out, "stdout", &out, err);
	if (r == 0)
		r = stream_open(e, &e->errors, "stderr", &err_path, err);
	if (r < 0)
		return r;
	any.type_url = (char *)"types.containerd.io/opencontainers/runtime-spec/1/Process";
	any.value.data = (uint8_t *)process;
	any.value.len = strlen(process);
	req.id = e->c->id;
	req.exec_id = e->id;
	req.stdout = out;
	req.stderr = err_path;
	req.spec = &any;
	r = call_task(e, "Exec", &req.base, EXEC_START_MS, exec_on_added);
	return r < 0 ? err_errno(err, r, "call the shim") : 0;
}

static int exec_new(struct huskd *d, struct container *c, struct rpc_call *call, struct exec **ret,
		    struct err *err)
{
	struct exec *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_nomem(err);
	e->refs = 1;
	e->huskd = d;
	e->call = call;
	e->out.fd = e->errors.fd = -1;
	e->out.exec = e->errors.exec = e;
	e->c = container_ref(c);
	d->execs++;
	r = random_id(e->id);
	e->dir = r == 0 ? path_exec(d, e->id) : NULL;
	if (!e->dir) {
		exec_unref(e);
		return r < 0 ? err_errno(err, r, "make an exec id") : err_nomem(err);
	}
	*ret = e;
	return 0;
}

static int exec_check_request(struct huskd *d, const Cri__ExecSyncRequest *in,
			      struct container **ret, struct err *err)
{
	int r = state_find_container(&d->state, in->container_id, ret, err);

	if (r < 0)
		return r;
	if (in->n_cmd == 0 || str_empty(in->cmd[0]))
		return err_set(err, -EINVAL, "no command");
	if (in->timeout < 0)
		return err_set(err, -EINVAL, "negative timeout");
	if ((*ret)->state != CONTAINER_RUNNING || !(*ret)->pod->shim)
		return err_set(err, -EBUSY, "container %s is not running", (*ret)->id);
	if (d->execs >= EXEC_MAX)
		return err_set(err, -ENOBUFS, "there are %d commands running already", EXEC_MAX);
	return 0;
}

void exec_handle_sync(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ExecSyncRequest *in = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	struct exec *e = NULL;
	int r = exec_check_request(d, in, &c, &err);

	if (r == 0)
		r = exec_new(d, c, call, &e, &err);
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	e->timeout_s = MIN_OF(in->timeout, 1000000000);
	if (e->timeout_s > 0)
		r = ev_timer_add(d->loop, &e->timeout, (uint64_t)e->timeout_s * NS_PER_S,
				 exec_on_timeout, e);
	if (r == 0)
		r = exec_add(e, in, &err);
	if (r < 0) {
		exec_end(e, r, &err);
		return;
	}
	rpc_on_cancel(call, exec_on_cancel, e);
}
