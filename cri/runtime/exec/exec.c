#include "cri/runtime/exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/util.h"
#include "cri/huskd.h"
#include "cri/runtime/container.h"
#include "cri/runtime/exec/task.h"
#include "cri/stream/server.h"

/*
 * From the URL to the end of its session. The task is made when the client is there. Until it
 * runs the descriptors are here, then the session has them.
 */
struct exec {
	struct huskd *huskd;
	struct container *c;
	struct stream_want want;
	char **cmd;   /* NULL once the task has it */
	size_t bytes; /* of cmd, counted in huskd->exec_waiting */
	struct stream_session *session;
	struct exec_task *task;
	char *in; /* path of its FIFO, NULL = none */
	int out, err;
};

/* ---- the command ---- */

static void forget_command(struct exec *e)
{
	check(e->huskd->exec_waiting >= e->bytes);
	e->huskd->exec_waiting -= e->bytes;
	e->bytes = 0;
	strv_free(take_ptr(&e->cmd));
}

static int keep_command(struct exec *e, const Cri__ExecRequest *in, struct err *err)
{
	size_t bytes = 0;

	for (size_t i = 0; i < in->n_cmd; i++)
		bytes += sizeof(char *) + strlen(in->cmd[i]) + 1;
	if (bytes > EXEC_WAITING_MAX - e->huskd->exec_waiting)
		return err_set(err, -ENOBUFS, "commands that wait for their clients hold %zu KiB",
			       e->huskd->exec_waiting / KIB);
	e->cmd = calloc(in->n_cmd + 1, sizeof(*e->cmd));
	if (!e->cmd)
		return err_nomem(err);
	for (size_t i = 0; i < in->n_cmd; i++) {
		e->cmd[i] = strdup(in->cmd[i]);
		if (!e->cmd[i])
			return err_nomem(err);
	}
	e->bytes = bytes;
	e->huskd->exec_waiting += bytes;
	return 0;
}

static void exec_free(struct exec *e)
{
	forget_command(e);
	exec_task_drop(e->task);
	fd_close(&e->out);
	fd_close(&e->err);
	container_unref(e->c);
	free(e->in);
	free(e);
}

/* ---- the process ---- */

static void exec_on_started(void *arg)
{
	struct exec *e = arg;
	int in = e->in ? open(e->in, O_WRONLY | O_NONBLOCK | O_CLOEXEC) : -1;

	/* The shim has the other end, unless the process closed its input at once. The end of file
	 * comes with that of our descriptor, whether the client sends it, or goes, or we die. */
	if (e->in)
		exec_task_close_input(e->task);
	stream_run(e->session, in, take_fd(&e->out), take_fd(&e->err));
}

static void exec_on_exited(void *arg, uint32_t status)
{
	struct exec *e = arg;

	stream_exit(e->session, (int)status);
}

static void exec_on_failed(void *arg, int code, int exit_code, const struct err *err)
{
	struct exec *e = arg;

	log_limited(LOG_INFO, "a command could not be run", "container", e->c->id, "err",
		    err_text(err));
	stream_fail(e->session, err_text(err), exit_code);
}

static int start(struct exec *e, struct err *err)
{
	static const struct exec_task_ops ops = { .started = exec_on_started,
						  .exited = exec_on_exited,
						  .failed = exec_on_failed };
	struct exec_spec spec = { .cmd = e->cmd, .n_cmd = strv_len(e->cmd), .tty = e->want.tty };
	cleanup_free char *out = NULL, *errors = NULL;
	int r = container_check_running(e->c, err);

	if (r == 0 && e->huskd->exec_streams >= EXEC_STREAMS_MAX)
		r = err_set(err, -ENOBUFS, "there are %u commands with clients already",
			    EXEC_STREAMS_MAX);
	if (r == 0)
		r = exec_task_new(e->c, &e->huskd->exec_streams, &ops, e, &e->task, err);
	if (r == 0 && e->want.in)
		r = exec_task_fifo(e->task, "stdin", &e->in, NULL, err);
	if (r == 0 && e->want.out)
		r = exec_task_fifo(e->task, "stdout", &out, &e->out, err);
	if (r == 0 && e->want.err)
		r = exec_task_fifo(e->task, "stderr", &errors, &e->err, err);
	if (r < 0)
		return r;
	spec.in = e->in;
	spec.out = out;
	spec.err = errors;
	r = exec_task_add(e->task, &spec, err);
	forget_command(e);
	return r;
}

/* ---- the session ---- */

static void exec_on_open(struct stream_session *s, void *arg)
{
	struct exec *e = arg;
	struct err err = { 0 };

	e->session = s;
	if (start(e, &err) < 0)
		stream_fail(s, err_text(&err), 0);
}

static void exec_on_resize(void *arg, unsigned width, unsigned height)
{
	const struct exec *e = arg;

	if (e->task)
		exec_task_resize(e->task, width, height);
}

static void exec_on_input_ended(void *arg)
{
	/* The session has closed the last writer of the FIFO: see exec_on_started. */
}

static void exec_on_closed(void *arg)
{
	exec_free(arg);
}

/* ---- the call ---- */

static int check_request(const Cri__ExecRequest *in, const struct stream_want *want,
			 struct huskd *d, struct container **ret, struct err *err)
{
	int r;

	if (str_empty(in->container_id))
		return err_set(err, -EINVAL, "no container id");
	if (in->n_cmd == 0 || str_empty(in->cmd[0]))
		return err_set(err, -EINVAL, "no command");
	r = exec_task_check_streams(want, err);
	if (r == 0)
		r = state_find_container(&d->state, in->container_id, ret, err);
	return r < 0 ? r : container_check_running(*ret, err);
}

static int exec_new(const Cri__ExecRequest *in, struct huskd *d, char **ret_url, struct err *err)
{
	static const struct stream_ops ops = { .open = exec_on_open,
					       .resize = exec_on_resize,
					       .input_ended = exec_on_input_ended,
					       .closed = exec_on_closed };
	const struct stream_want want = { in->stdin, in->stdout, in->stderr, in->tty };
	struct container *c;
	struct exec *e;
	int r = check_request(in, &want, d, &c, err);

	if (r < 0)
		return r;
	e = calloc(1, sizeof(*e));
	if (!e)
		return err_nomem(err);
	*e = (struct exec){ .huskd = d, .c = container_ref(c), .want = want, .out = -1, .err = -1 };
	r = keep_command(e, in, err);
	if (r == 0)
		r = stream_server_url(d->streams, "exec", e->want, &ops, e, ret_url, err);
	if (r < 0)
		exec_free(e);
	return r;
}

void exec_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Cri__ExecResponse resp = CRI__EXEC_RESPONSE__INIT;
	cleanup_free char *url = NULL;
	struct err err = { 0 };
	int r = exec_new((const void *)msg, arg, &url, &err);

	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	resp.url = url;
	rpc_reply(call, &resp.base);
}
