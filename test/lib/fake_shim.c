#include "test/lib/fake_shim.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "proto/containerd_sandbox_v1.pb-c.h"
#include "proto/containerd_task_v3.pb-c.h"
#include "proto/shim.pb-c.h"
#include "test/lib/unit.h"

/* Has the call been answered, because its method is the one that fails? */
static bool refused(struct fake_shim *f, struct ttrpc_call *call, const char *method)
{
	Shim__StartError e = SHIM__START_ERROR__INIT;

	if (!str_eq(f->fails, method))
		return false;
	e.exit_code = f->start_exit;
	ttrpc_reply_status(call, f->code, f->text, e.exit_code ? "husk.shim.v1.StartError" : NULL,
			   e.exit_code ? &e.base : NULL);
	return true;
}

/* ---- sandbox ---- */

static void shim_create_sandbox(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	if (!refused(arg, call, "CreateSandbox"))
		ttrpc_reply(call, NULL);
}

static void shim_start_sandbox(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	if (!refused(arg, call, "StartSandbox"))
		ttrpc_reply(call, NULL);
}

static void shim_on_sandbox_wait_cancel(struct ttrpc_call *call, void *arg)
{
	struct ttrpc_call **slot = arg;

	*slot = NULL;
	ttrpc_reply(call, NULL);
}

/* Is never answered: a pod's connection ends before. */
static void shim_wait_sandbox(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	struct fake_shim *f = arg;
	size_t i = 0;

	while (i < FAKE_TASKS && f->sandbox_waits[i])
		i++;
	assert_true(i < FAKE_TASKS);
	f->sandbox_waits[i] = call;
	ttrpc_call_on_cancel(call, shim_on_sandbox_wait_cancel, &f->sandbox_waits[i]);
}

static void shim_end_sandbox(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	ttrpc_reply(call, NULL);
}

static const struct ttrpc_method sandbox_methods[] = {
	{ "CreateSandbox", shim_create_sandbox }, { "StartSandbox", shim_start_sandbox },
	{ "WaitSandbox", shim_wait_sandbox },	  { "StopSandbox", shim_end_sandbox },
	{ "ShutdownSandbox", shim_end_sandbox },  { NULL, NULL },
};

/* ---- tasks ---- */

struct fake_task *fake_shim_task(struct fake_shim *f, const char *id, const char *exec_id)
{
	for (size_t i = 0; i < FAKE_TASKS; i++) {
		if (str_eq(f->tasks[i].id, id) && str_eq(f->tasks[i].exec_id, exec_id))
			return &f->tasks[i];
	}
	return NULL;
}

static void add_task(struct fake_shim *f, const char *id, const char *exec_id)
{
	struct fake_task *t = fake_shim_task(f, "", "");

	assert_non_null(t);
	(void)snprintf(t->id, sizeof(t->id), "%s", id);
	(void)snprintf(t->exec_id, sizeof(t->exec_id), "%s", exec_id);
}

/* Answers the call when there is no such task. */
static struct fake_task *find(struct fake_shim *f, struct ttrpc_call *call, const char *id,
			      const char *exec_id)
{
	struct fake_task *t = fake_shim_task(f, id, exec_id);

	if (!t)
		ttrpc_reply_status(call, RPC_NOT_FOUND, "not found", NULL, NULL);
	return t;
}

static void answer_wait(struct fake_task *t, struct ttrpc_call *call)
{
	TaskV3__WaitResponse resp = TASK_V3__WAIT_RESPONSE__INIT;

	resp.exit_status = t->status;
	ttrpc_reply(call, &resp.base);
}

void fake_shim_exit(struct fake_task *t, uint32_t status)
{
	t->running = false;
	t->exited = true;
	t->status = status;
	if (t->wait)
		answer_wait(t, take_ptr(&t->wait));
}

static void shim_create(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	const TaskV3__CreateTaskRequest *m = (const void *)req;

	if (refused(arg, call, "Create"))
		return;
	add_task(arg, m->id, "");
	ttrpc_reply(call, NULL);
}

/* As a command would: into the FIFO, which takes as much before anybody reads. */
static void exec_write(const struct fake_shim *f, const char *path)
{
	static const uint8_t zeros[FAKE_EXEC_OUTPUT_MAX];
	cleanup_fd int fd = -1;

	if (str_empty(path))
		return;
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, zeros, f->exec_output), f->exec_output);
}

static void shim_exec(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	const TaskV3__ExecProcessRequest *m = (const void *)req;

	if (refused(arg, call, "Exec"))
		return;
	add_task(arg, m->id, m->exec_id);
	exec_write(arg, m->stdout);
	exec_write(arg, m->stderr);
	ttrpc_reply(call, NULL);
}

static void shim_start(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	const TaskV3__StartRequest *m = (const void *)req;
	struct fake_task *t;

	if (refused(arg, call, "Start"))
		return;
	t = find(arg, call, m->id, m->exec_id);
	if (!t)
		return;
	t->running = true;
	ttrpc_reply(call, NULL);
	if (*t->exec_id && !((const struct fake_shim *)arg)->exec_runs)
		fake_shim_exit(t, 3);
}

static void shim_on_wait_cancel(struct ttrpc_call *call, void *arg)
{
	struct fake_task *t = arg;

	t->wait = NULL;
	ttrpc_reply(call, NULL);
}

static void shim_wait(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	const TaskV3__WaitRequest *m = (const void *)req;
	struct fake_task *t = find(arg, call, m->id, m->exec_id);

	if (!t)
		return;
	if (t->exited) {
		answer_wait(t, call);
		return;
	}
	assert_null(t->wait);
	t->wait = call;
	ttrpc_call_on_cancel(call, shim_on_wait_cancel, t);
}

static void shim_kill(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	const TaskV3__KillRequest *m = (const void *)req;
	struct fake_task *t;

	if (refused(arg, call, "Kill"))
		return;
	t = find(arg, call, m->id, m->exec_id);
	if (!t)
		return;
	if (t->running)
		fake_shim_exit(t, 128 + m->signal);
	ttrpc_reply(call, NULL);
}

static void shim_delete(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	const TaskV3__DeleteRequest *m = (const void *)req;
	struct fake_task *t;

	if (refused(arg, call, "Delete"))
		return;
	t = find(arg, call, m->id, m->exec_id);
	if (!t)
		return;
	assert_null(t->wait);
	*t = (struct fake_task){ 0 };
	ttrpc_reply(call, NULL);
}

static void shim_state(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	TaskV3__StateResponse resp = TASK_V3__STATE_RESPONSE__INIT;
	const TaskV3__StateRequest *m = (const void *)req;
	struct fake_task *t = find(arg, call, m->id, m->exec_id);

	if (!t)
		return;
	resp.status = t->exited	   ? TASK__STATUS__STOPPED
		      : t->running ? TASK__STATUS__RUNNING
				   : TASK__STATUS__CREATED;
	resp.exit_status = t->status;
	resp.pid = 42;
	ttrpc_reply(call, &resp.base);
}

static void shim_empty(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	ttrpc_reply(call, NULL);
}

static const struct ttrpc_method task_methods[] = {
	{ "Create", shim_create }, { "Exec", shim_exec },     { "Start", shim_start },
	{ "Wait", shim_wait },	   { "Kill", shim_kill },     { "Delete", shim_delete },
	{ "State", shim_state },   { "CloseIO", shim_empty }, { NULL, NULL },
};

/* ---- husk's own ---- */

static void shim_reopen_log(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg)
{
	if (!refused(arg, call, "ReopenLog"))
		ttrpc_reply(call, NULL);
}

static const struct ttrpc_method shim_methods[] = {
	{ "ExitInfo", shim_empty },
	{ "DropExecs", shim_empty },
	{ "SandboxInfo", shim_empty },
	{ "ReopenLog", shim_reopen_log },
	{ NULL, NULL },
};

/* ---- the whole ---- */

/* `start` prints the address; `delete` has nothing to do. */
void fake_shim_init(struct fake_shim *f, const char *dir)
{
	char script[512];
	int n;

	*f = (struct fake_shim){ 0 };
	(void)snprintf(f->program, sizeof(f->program), "%s/shim", dir);
	(void)snprintf(f->address, sizeof(f->address), "unix://%s/shim.sock", dir);
	n = snprintf(script, sizeof(script),
		     "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = start ] || exit 0\n"
		     "[ ! -e %s/says ] || { cat %s/says >&2; exit 1; }\necho %s\n",
		     dir, dir, f->address);
	assert_int_equal(write_file_atomic(f->program, script, (size_t)n, 0700, false, NULL), 0);
}

void fake_shim_open(struct fake_shim *f, struct loop *loop)
{
	static struct ttrpc_service services[3];
	int fd;

	services[0] = (struct ttrpc_service){ &sandbox__sandbox__descriptor, sandbox_methods, f };
	services[1] = (struct ttrpc_service){ &task_v3__task__descriptor, task_methods, f };
	services[2] = (struct ttrpc_service){ &shim__shim__descriptor, shim_methods, f };
	assert_int_equal(ttrpc_server_new(loop, services, ARRAY_SIZE(services), &f->server, NULL),
			 0);
	assert_int_equal(unix_listen(f->address, 0600, &fd, NULL), 0);
	assert_int_equal(ttrpc_server_listen(f->server, fd, false), 0);
}

void fake_shim_close(struct fake_shim *f)
{
	ttrpc_server_free(take_ptr(&f->server));
	/* Answers that go nowhere: each call must have one. */
	for (size_t i = 0; i < FAKE_TASKS; i++) {
		if (f->tasks[i].wait)
			ttrpc_reply(take_ptr(&f->tasks[i].wait), NULL);
		if (f->sandbox_waits[i])
			ttrpc_reply(take_ptr(&f->sandbox_waits[i]), NULL);
	}
}
