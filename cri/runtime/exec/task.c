#include "cri/runtime/exec/task.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/paths.h"
#include "cri/runtime/container.h"
#include "cri/runtime/shim_client.h"
#include "cri/runtime/spec.h"
#include "cri/stream/session.h"
#include "proto/wkt.pb-c.h"

/*
 * Exec (ADDED) -> Start -> Wait until the exit is known -> Delete, once the owner has let go. Each
 * ttrpc call in flight holds a reference, and so does the owner.
 */
struct exec_task {
	unsigned refs;
	unsigned *count;
	struct container *c;
	char id[65];
	char *dir;
	const struct exec_task_ops *ops;
	void *arg;
	bool added;   /* the shim has it, and no Delete was sent */
	bool over;    /* it exited, or never ran */
	bool dropped; /* by its owner */
	bool resizing;
	unsigned width, height; /* to be sent next; 0 = none */
};

static void task_unref(struct exec_task *t)
{
	if (--t->refs > 0)
		return;
	--*t->count;
	container_unref(t->c);
	free(t->dir);
	free(t);
}

static int call_task(struct exec_task *t, const char *method, const ProtobufCMessage *req,
		     uint64_t timeout_ms, ttrpc_done done)
{
	int r = container_call(t->c, method, req, timeout_ms, done, t);

	if (r == 0)
		t->refs++;
	return r;
}

const char *exec_task_id(const struct exec_task *t)
{
	return t->id;
}

/* ---- the end ---- */

static void task_on_deleted(const struct ttrpc_result *res, void *arg)
{
	struct exec_task *t = arg;

	if (res->code < 0 && res->code != -ENOENT && res->code != -ECONNRESET &&
	    res->code != -ECANCELED)
		log_limited(LOG_WARN, "cannot delete an exec", "container", t->c->id, "exec", t->id,
			    "err", err_text(res->err));
	task_unref(t);
}

/* Nothing of the process may stay behind in shim and guest. */
static void delete_task(struct exec_task *t)
{
	TaskV3__DeleteRequest req = TASK_V3__DELETE_REQUEST__INIT;

	req.id = t->c->id;
	req.exec_id = t->id;
	if (t->added && call_task(t, "Delete", &req.base, EXEC_DELETE_MS, task_on_deleted) == 0)
		t->added = false;
}

static void task_on_kill_sent(const struct ttrpc_result *res, void *arg)
{
	task_unref(arg);
}

static void kill_task(struct exec_task *t)
{
	TaskV3__KillRequest req = TASK_V3__KILL_REQUEST__INIT;

	req.id = t->c->id;
	req.exec_id = t->id;
	req.signal = SIGKILL;
	req.all = true; /* with what it has started, whatever became of its parent or session */
	if (t->added)
		(void)!call_task(t, "Kill", &req.base, EXEC_KILL_MS, task_on_kill_sent);
}

void exec_task_drop(struct exec_task *t)
{
	if (!t)
		return;
	t->dropped = true;
	if (t->dir)
		(void)!remove_tree(t->dir, NULL);
	if (t->over)
		delete_task(t);
	else
		kill_task(t); /* and deleted when its Wait comes back */
	task_unref(t);
}

/* The owner hears it, or what is left of the task goes. */
static void task_failed(struct exec_task *t, int code, int exit_code, const struct err *err)
{
	t->over = true;
	if (t->dropped)
		delete_task(t);
	else
		t->ops->failed(t->arg, code, exit_code, err);
}

/* ---- the process ---- */

static void task_on_exit(const struct ttrpc_result *res, void *arg)
{
	const TaskV3__WaitResponse *m = (const void *)res->resp;
	struct exec_task *t = arg;
	struct err err = { 0 };

	t->over = true;
	if (t->dropped) {
		delete_task(t);
	} else if (res->code < 0) {
		(void)err_set(&err, -EIO, "container %s: %s", t->c->id, err_text(res->err));
		task_failed(t, -EIO, 0, &err);
	} else {
		t->ops->exited(t->arg, m->exit_status);
	}
	task_unref(t);
}

static void wait_exit(struct exec_task *t)
{
	TaskV3__WaitRequest req = TASK_V3__WAIT_REQUEST__INIT;
	struct err err = { 0 };
	int r;

	req.id = t->c->id;
	req.exec_id = t->id;
	r = call_task(t, "Wait", &req.base, 0, task_on_exit);
	if (r < 0)
		task_failed(t, r, 0, (err_errno(&err, r, "wait for a command"), &err));
}

static void start_failed(struct exec_task *t, const struct ttrpc_result *res)
{
	struct err err = { 0 };

	(void)err_set(&err, -EIO, "container %s: %s", t->c->id, err_text(res->err));
	task_failed(t, -EIO, shim_start_exit_code(res), &err);
}

static void task_on_started(const struct ttrpc_result *res, void *arg)
{
	struct exec_task *t = arg;

	if (res->code < 0) {
		start_failed(t, res);
	} else {
		if (t->dropped)
			kill_task(t);
		else if (t->ops->started)
			t->ops->started(t->arg);
		wait_exit(t);
	}
	task_unref(t);
}

static void send_size(struct exec_task *t);

static void task_on_added(const struct ttrpc_result *res, void *arg)
{
	TaskV3__StartRequest req = TASK_V3__START_REQUEST__INIT;
	struct exec_task *t = arg;
	struct err err = { 0 };
	int r = res->code;

	t->added = r == 0;
	if (r < 0) {
		(void)err_set(&err, r, "container %s: %s", t->c->id, err_text(res->err));
		task_failed(t, r, 0, &err);
	} else if (t->dropped) {
		delete_task(t);
	} else {
		send_size(t); /* so the terminal has it from the start */
		req.id = t->c->id;
		req.exec_id = t->id;
		r = call_task(t, "Start", &req.base, EXEC_START_MS, task_on_started);
		if (r < 0)
			task_failed(t, r, 0, (err_errno(&err, r, "call the shim"), &err));
	}
	task_unref(t);
}

int exec_task_add(struct exec_task *t, const struct exec_spec *spec, struct err *err)
{
	TaskV3__ExecProcessRequest req = TASK_V3__EXEC_PROCESS_REQUEST__INIT;
	Wkt__Any any = WKT__ANY__INIT;
	cleanup_free char *bundle = path_container(t->c->pod->huskd, t->c->id);
	cleanup_free char *file = bundle ? str_fmt("%s/config.json", bundle) : NULL;
	cleanup_free char *config = NULL, *process = NULL;
	int r = file ? read_file(file, SPEC_JSON_MAX, &config, NULL, err) : err_nomem(err);

	if (r == 0)
		r = spec_exec(config, spec->cmd, spec->n_cmd, spec->tty, &process, err);
	if (r < 0)
		return r;
	any.type_url = (char *)"types.containerd.io/opencontainers/runtime-spec/1/Process";
	any.value.data = (uint8_t *)process;
	any.value.len = strlen(process);
	req.id = t->c->id;
	req.exec_id = t->id;
	req.terminal = spec->tty;
	req.stdin = spec->in ? (char *)spec->in : req.stdin;
	req.stdout = spec->out ? (char *)spec->out : req.stdout;
	req.stderr = spec->err ? (char *)spec->err : req.stderr;
	req.spec = &any;
	r = call_task(t, "Exec", &req.base, EXEC_START_MS, task_on_added);
	return r < 0 ? err_errno(err, r, "call the shim") : 0;
}

/* ---- terminal and input ---- */

static void task_on_resized(const struct ttrpc_result *res, void *arg)
{
	struct exec_task *t = arg;

	t->resizing = false;
	send_size(t);
	task_unref(t);
}

static void send_size(struct exec_task *t)
{
	TaskV3__ResizePtyRequest req = TASK_V3__RESIZE_PTY_REQUEST__INIT;

	if (!t->width || t->resizing || !t->added || t->over || t->dropped)
		return;
	req.id = t->c->id;
	req.exec_id = t->id;
	req.width = t->width;
	req.height = t->height;
	t->width = t->height = 0;
	t->resizing = call_task(t, "ResizePty", &req.base, EXEC_RESIZE_MS, task_on_resized) == 0;
}

void exec_task_resize(struct exec_task *t, unsigned width, unsigned height)
{
	t->width = width;
	t->height = height;
	send_size(t);
}

static void task_on_input_closed(const struct ttrpc_result *res, void *arg)
{
	task_unref(arg);
}

void exec_task_close_input(struct exec_task *t)
{
	TaskV3__CloseIORequest req = TASK_V3__CLOSE_IOREQUEST__INIT;

	req.id = t->c->id;
	req.exec_id = t->id;
	req.stdin = true;
	(void)!call_task(t, "CloseIO", &req.base, EXEC_START_MS, task_on_input_closed);
}

/* ---- making ---- */

int exec_task_fifo(const struct exec_task *t, const char *name, char **ret_path, int *ret_fd,
		   struct err *err)
{
	cleanup_free char *path = str_fmt("%s/%s", t->dir, name);
	int fd = -1;

	if (!path)
		return err_nomem(err);
	if (mkfifo(path, 0600) < 0)
		return err_errno(err, -errno, "make %s", path);
	if (ret_fd)
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (ret_fd && fd < 0)
		return err_errno(err, -errno, "open %s", path);
	if (ret_fd)
		*ret_fd = fd;
	*ret_path = take_ptr(&path);
	return 0;
}

int exec_task_check_streams(const struct stream_want *want, struct err *err)
{
	if (want->tty && want->err)
		return err_set(err, -EINVAL, "a terminal has no stderr of its own");
	if (!want->in && !want->out && !want->err)
		return err_set(err, -EINVAL, "none of stdin, stdout and stderr");
	return 0;
}

int exec_task_new(struct container *c, unsigned *count, const struct exec_task_ops *ops, void *arg,
		  struct exec_task **ret, struct err *err)
{
	struct exec_task *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_nomem(err);
	*t = (struct exec_task){
		.refs = 1, .count = count, .c = container_ref(c), .ops = ops, .arg = arg
	};
	++*count;
	t->over = true; /* nothing to kill before the shim is asked */
	r = random_id(t->id);
	if (r < 0) {
		(void)err_errno(err, r, "make an exec id");
	} else {
		t->dir = path_exec(c->pod->huskd, t->id);
		r = t->dir ? mkdir_p(t->dir, 0700, err) : err_nomem(err);
	}
	if (r < 0) {
		exec_task_drop(t);
		return r;
	}
	t->over = false;
	*ret = t;
	return 0;
}
