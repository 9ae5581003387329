#include "cri/runtime/exec/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "cri/huskd.h"
#include "cri/paths.h"
#include "cri/runtime/container.h"
#include "cri/runtime/exec/task.h"
#include "cri/runtime/shim_client.h"
#include "cri/stream/server.h"

/*
 * From the URL to the end of its session. The task is never started: it is the directory of the
 * FIFOs, until the shim has opened them. A reference for the session, and one for each call.
 */
struct attach {
	unsigned refs;
	struct huskd *huskd;
	struct container *c;
	struct stream_want want;
	struct stream_session *session; /* NULL once it is closed */
	struct exec_task *fifos;
	int out, err;
	unsigned fifo_count; /* for the task */
	bool watching;	     /* in c->exited */
	bool attached;	     /* the shim has said so */
	bool input_over;
	bool resizing;
	unsigned width, height; /* to be sent next; 0 = none */
};

static void attach_unref(struct attach *a)
{
	if (--a->refs > 0)
		return;
	exec_task_drop(a->fifos);
	fd_close(&a->out);
	fd_close(&a->err);
	container_unref(a->c);
	free(a);
}

static int call_task(struct attach *a, const char *method, const ProtobufCMessage *req,
		     ttrpc_done done)
{
	int r = container_call(a->c, method, req, ATTACH_MS, done, a);

	if (r == 0)
		a->refs++;
	return r;
}

/* ---- the container ---- */

static void attach_on_exited(void *arg, int code, const struct err *err)
{
	struct attach *a = arg;

	a->watching = false;
	/* A stop that failed is told to those who wait, too. */
	if (!a->c->removed && a->c->state == CONTAINER_RUNNING &&
	    waits_add(&a->c->exited, attach_on_exited, a) == 0) {
		a->watching = true;
		return;
	}
	/* Not its exit code: it is the attaching that has come to its end. */
	stream_exit(a->session, 0);
}

static void attach_on_attached(const struct ttrpc_result *res, void *arg)
{
	struct attach *a = arg;
	cleanup_free char *dir = path_container(a->huskd, a->c->id);
	cleanup_free char *fifo = dir ? str_fmt("%s/stdin", dir) : NULL;
	int in = -1;

	exec_task_drop(take_ptr(&a->fifos)); /* they are open */
	if (a->session && res->code < 0) {
		stream_fail(a->session, err_text(res->err), 0);
	} else if (a->session) {
		if (a->want.in && a->c->config->stdin && fifo)
			in = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		a->attached = true;
		stream_run(a->session, in, take_fd(&a->out), take_fd(&a->err));
	}
	attach_unref(a);
}

static int start(struct attach *a, struct err *err)
{
	Shim__AttachRequest req = SHIM__ATTACH_REQUEST__INIT;
	static const struct exec_task_ops never_run = { 0 };
	cleanup_free char *out = NULL, *errors = NULL;
	struct container *c = a->c;
	int r = container_check_running(c, err);

	if (r == 0 && a->huskd->attach_streams >= ATTACH_STREAMS_MAX)
		r = err_set(err, -ENOBUFS, "there are %u attached clients already",
			    ATTACH_STREAMS_MAX);
	if (r == 0)
		r = exec_task_new(c, &a->fifo_count, &never_run, NULL, &a->fifos, err);
	if (r == 0 && a->want.out)
		r = exec_task_fifo(a->fifos, "stdout", &out, &a->out, err);
	if (r == 0 && a->want.err && !c->config->tty)
		r = exec_task_fifo(a->fifos, "stderr", &errors, &a->err, err);
	if (r < 0)
		return r;
	if (waits_add(&c->exited, attach_on_exited, a) < 0)
		return err_nomem(err);
	a->watching = true;
	req.id = c->id;
	req.stdout = out ? out : req.stdout;
	req.stderr = errors ? errors : req.stderr;
	r = ttrpc_client_call(c->pod->shim, SVC_SHIM, "Attach", &req.base, ATTACH_MS,
			      attach_on_attached, a);
	if (r < 0)
		return err_errno(err, r, "call the shim");
	a->refs++;
	return 0;
}

/* ---- the session ---- */

static void attach_on_open(struct stream_session *s, void *arg)
{
	struct attach *a = arg;
	struct err err = { 0 };
	int r;

	a->session = s;
	r = start(a, &err);
	a->huskd->attach_streams++;
	if (r < 0)
		stream_fail(s, err_text(&err), 0);
}

static void send_size(struct attach *a);

static void attach_on_resized(const struct ttrpc_result *res, void *arg)
{
	struct attach *a = arg;

	a->resizing = false;
	send_size(a);
	attach_unref(a);
}

static void send_size(struct attach *a)
{
	TaskV3__ResizePtyRequest req = TASK_V3__RESIZE_PTY_REQUEST__INIT;

	if (!a->width || a->resizing || !a->session)
		return;
	req.id = a->c->id;
	req.width = a->width;
	req.height = a->height;
	a->width = a->height = 0;
	a->resizing = call_task(a, "ResizePty", &req.base, attach_on_resized) == 0;
}

static void attach_on_resize(void *arg, unsigned width, unsigned height)
{
	struct attach *a = arg;

	a->width = width;
	a->height = height;
	send_size(a);
}

static void attach_on_input_closed(const struct ttrpc_result *res, void *arg)
{
	attach_unref(arg);
}

/* The shim has the FIFO open for writing until it is told, so that the end of one client's input is
 * not the process's, unless the container is for one only. */
static void end_input(struct attach *a)
{
	TaskV3__CloseIORequest req = TASK_V3__CLOSE_IOREQUEST__INIT;
	const Cri__ContainerConfig *config = a->c->config;

	if (!a->attached || a->input_over || !a->want.in || !config->stdin || !config->stdin_once)
		return;
	a->input_over = true;
	req.id = a->c->id;
	req.stdin = true;
	(void)!call_task(a, "CloseIO", &req.base, attach_on_input_closed);
}

static void attach_on_input_ended(void *arg)
{
	end_input(arg);
}

static void attach_on_closed(void *arg)
{
	struct attach *a = arg;

	if (a->watching)
		waits_remove(&a->c->exited, a);
	a->watching = false;
	if (a->session) {
		a->huskd->attach_streams--;
		end_input(a);
	}
	a->session = NULL;
	attach_unref(a);
}

/* ---- the call ---- */

static int check_request(const Cri__AttachRequest *in, const struct stream_want *want,
			 struct huskd *d, struct container **ret, struct err *err)
{
	int r;

	if (str_empty(in->container_id))
		return err_set(err, -EINVAL, "no container id");
	r = exec_task_check_streams(want, err);
	if (r == 0)
		r = state_find_container(&d->state, in->container_id, ret, err);
	return r < 0 ? r : container_check_running(*ret, err);
}

static int attach_new(const Cri__AttachRequest *in, struct huskd *d, char **ret_url,
		      struct err *err)
{
	static const struct stream_ops ops = { .open = attach_on_open,
					       .resize = attach_on_resize,
					       .input_ended = attach_on_input_ended,
					       .closed = attach_on_closed };
	const struct stream_want want = { in->stdin, in->stdout, in->stderr, in->tty };
	struct container *c;
	struct attach *a;
	int r = check_request(in, &want, d, &c, err);

	if (r < 0)
		return r;
	a = calloc(1, sizeof(*a));
	if (!a)
		return err_nomem(err);
	*a = (struct attach){
		.refs = 1, .huskd = d, .c = container_ref(c), .want = want, .out = -1, .err = -1
	};
	r = stream_server_url(d->streams, "attach", a->want, &ops, a, ret_url, err);
	if (r < 0)
		attach_unref(a);
	return r;
}

void attach_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Cri__AttachResponse resp = CRI__ATTACH_RESPONSE__INIT;
	cleanup_free char *url = NULL;
	struct err err = { 0 };
	int r = attach_new((const void *)msg, arg, &url, &err);

	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	resp.url = url;
	rpc_reply(call, &resp.base);
}
