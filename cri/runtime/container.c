#include "cri/runtime/container.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/util.h"
#include "cri/paths.h"
#include "cri/runtime/shim_client.h"
#include "image/image.h"
#include "proto/husk.pb-c.h"

int container_call(struct container *c, const char *method, const ProtobufCMessage *req,
		   uint64_t timeout_ms, ttrpc_done done, void *arg)
{
	if (c->removed || !c->pod->shim)
		return -ECONNRESET;
	return ttrpc_client_call(c->pod->shim, SVC_TASK, method, req, timeout_ms, done, arg);
}

int container_check_running(const struct container *c, struct err *err)
{
	if (c->removed || c->state != CONTAINER_RUNNING || !c->pod->shim)
		return err_set(err, -EBUSY, "container %s is not running", c->id);
	return 0;
}

/* ---- the exit ---- */

void container_exited(struct container *c, int32_t exit_code, int64_t finished_at,
		      const char *reason, const char *message)
{
	char code[16];

	if (c->removed || c->state == CONTAINER_EXITED)
		return;
	ev_timer_del(&c->stop_timer);
	container_state_set(c, CONTAINER_EXITED);
	c->exit_code = exit_code;
	c->finished_at = finished_at ? finished_at : now_real_ns();
	if (c->finished_at < c->started_at) /* the guest's clock is not ours */
		c->finished_at = c->started_at;
	free(c->reason);
	free(c->message);
	c->reason = state_text(reason);
	c->message = state_text(message);
	(void)state_save_container(&c->pod->huskd->state, c, NULL);
	(void)snprintf(code, sizeof(code), "%" PRId32, exit_code);
	log_info("container exited", "container", c->id, "pod", c->pod->id, "code", code, "reason",
		 c->reason);
	(void)container_ref(c);
	waits_run(&c->exited, 0, NULL);
	container_unref(c);
}

void container_pod_gone(struct container *c, enum teardown kind)
{
	if (c->state != CONTAINER_RUNNING)
		return;
	if (kind == TEARDOWN_STOP)
		container_exited(c, 137, 0, "Error", "the pod sandbox was stopped");
	else
		container_exited(c, EXIT_UNKNOWN, 0, "SandboxDied",
				 "the virtual machine of the pod, or its shim, ended unexpectedly");
}

/* The answer of Wait, kept until ExitInfo has answered. */
struct exit_info {
	struct container *c;
	uint32_t status;
	int64_t at;
};

static void container_on_exit_info(const struct ttrpc_result *res, void *arg)
{
	struct exit_info *e = arg;
	const Shim__ExitInfoResponse *m = res->code == 0 ? (const void *)res->resp : NULL;

	if (m && m->oom_killed)
		container_exited(e->c, (int32_t)e->status, e->at, "OOMKilled",
				 "the container used more memory than its limit");
	else if (m && !str_empty(m->sandbox_died))
		container_exited(e->c, (int32_t)e->status, e->at, "SandboxDied", m->sandbox_died);
	else
		container_exited(e->c, (int32_t)e->status, e->at, "Error", "");
	container_unref(e->c);
	free(e);
}

void container_task_exit(struct container *c, uint32_t status, int64_t at)
{
	Shim__ExitInfoRequest req = SHIM__EXIT_INFO_REQUEST__INIT;
	struct exit_info *e;

	if (status == 0) {
		container_exited(c, 0, at, "Completed", "");
		return;
	}
	e = calloc(1, sizeof(*e));
	if (e && c->pod->shim) {
		*e = (struct exit_info){ container_ref(c), status, at };
		req.id = c->id;
		if (ttrpc_client_call(c->pod->shim, SVC_SHIM, "ExitInfo", &req.base,
				      CONTAINER_INFO_MS, container_on_exit_info, e) == 0)
			return;
		container_unref(c);
	}
	free(e);
	container_exited(c, (int32_t)status, at, "Error", "");
}

static void container_on_exit(const struct ttrpc_result *res, void *arg)
{
	struct container *c = arg;

	if (c->removed || c->state != CONTAINER_RUNNING) {
		container_unref(c);
		return;
	}
	if (res->code == 0) {
		const TaskV3__WaitResponse *m = (const void *)res->resp;

		container_task_exit(c, m->exit_status, pb_timestamp_ns(m->exited_at));
	} else if (res->code != -ECONNRESET && res->code != -ECANCELED) {
		/* A lost connection is the pod's business. */
		container_exited(c, EXIT_UNKNOWN, 0, "Unknown", err_text(res->err));
	}
	container_unref(c);
}

void container_watch(struct container *c)
{
	TaskV3__WaitRequest req = TASK_V3__WAIT_REQUEST__INIT;
	int r;

	req.id = c->id;
	(void)container_ref(c);
	r = container_call(c, "Wait", &req.base, 0, container_on_exit, c);
	if (r == 0)
		return;
	container_unref(c);
	if (r != -ECONNRESET)
		container_exited(c, EXIT_UNKNOWN, 0, "Unknown", "the shim cannot be asked");
}

/* ---- StartContainer ---- */

struct start {
	struct container *c;
	struct rpc_call *call;
};

static void container_on_killed_anyway(const struct ttrpc_result *res, void *arg)
{
}

static void call_kill(struct container *c, int signo, bool all, ttrpc_done done, void *arg,
		      int *ret)
{
	TaskV3__KillRequest req = TASK_V3__KILL_REQUEST__INIT;

	req.id = c->id;
	req.signal = (uint32_t)signo;
	req.all = all;
	*ret = container_call(c, "Kill", &req.base, CONTAINER_KILL_MS, done, arg);
}

static void start_failed(struct start *s, const struct ttrpc_result *res)
{
	struct container *c = s->c;
	int exit_code = shim_start_exit_code(res), r;
	struct err err = { 0 };

	/* People read the text. A command that is not found must not look like a container
	 * that is not found. */
	(void)err_set(&err, res->code == -ETIMEDOUT ? -ETIMEDOUT : -EIO, "container %.200s: %s",
		      c->config->metadata->name, err_text(res->err));
	if (res->code == -ETIMEDOUT)
		call_kill(c, SIGKILL, true, container_on_killed_anyway, NULL, &r);
	c->started_at = now_real_ns();
	container_exited(c, exit_code ? exit_code : 128, 0, "StartError", err_text(res->err));
	log_limited(LOG_ERROR, "StartContainer failed", "container", c->id, "pod", c->pod->id,
		    "err", err_text(res->err));
	rpc_reply_err(s->call, err.code, &err);
}

static void start_free(struct start *s)
{
	container_unref(s->c);
	free(s);
}

/* Also when nothing can be written: that is tried again, and the shim knows, too. */
static void container_on_start_written(void *arg, int code, const struct err *err)
{
	struct start *s = arg;

	rpc_reply(s->call, NULL);
	start_free(s);
}

static void container_on_started(const struct ttrpc_result *res, void *arg)
{
	struct start *s = arg;
	struct container *c = s->c;

	c->starting = false;
	(void)container_ref(c);
	if (c->removed) {
		rpc_reply_status(s->call, RPC_NOT_FOUND, "the container was removed");
		start_free(s);
	} else if (res->code < 0) {
		start_failed(s, res);
		start_free(s);
	} else {
		container_state_set(c, CONTAINER_RUNNING);
		c->started_at = now_real_ns();
		(void)state_save_container(&c->pod->huskd->state, c, NULL);
		log_info("container runs", "container", c->id, "pod", c->pod->id, "name",
			 c->config->metadata->name);
		if (state_written(&c->pod->huskd->state, container_on_start_written, s, NULL) < 0)
			container_on_start_written(s, 0, NULL);
		container_watch(c);
	}
	waits_run(&c->started, 0, NULL);
	container_unref(c);
}

static int check_startable(const struct container *c, struct err *err)
{
	if (c->removing)
		return err_set(err, -EBUSY, "container %s is being removed", c->id);
	if (c->starting)
		return err_set(err, -EBUSY, "container %s is being started", c->id);
	if (c->state != CONTAINER_CREATED)
		return err_set(err, -EBUSY, "container %s was started before", c->id);
	if (c->pod->state != POD_READY || c->pod->teardown)
		return err_set(err, -EBUSY, "pod sandbox %s is not ready", c->pod->id);
	return 0;
}

void container_handle_start(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__StartContainerRequest *in = (const void *)msg;
	TaskV3__StartRequest req = TASK_V3__START_REQUEST__INIT;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	struct start *s = NULL;
	int r = state_find_container(&d->state, in->container_id, &c, &err);

	if (r == 0)
		r = check_startable(c, &err);
	if (r == 0 && !(s = calloc(1, sizeof(*s))))
		r = err_nomem(&err);
	if (r == 0) {
		*s = (struct start){ container_ref(c), call };
		req.id = c->id;
		c->starting = true;
		r = container_call(c, "Start", &req.base, CONTAINER_START_MS, container_on_started,
				   s);
		if (r == 0)
			return;
		(void)err_errno(&err, r, "call the shim");
		c->starting = false;
		container_unref(c);
	}
	free(s);
	rpc_reply_err(call, r, &err);
}

/* ---- StopContainer ---- */

/*
 * Of a container: `exited` holds who waits, stop_timer runs until SIGKILL and then until we give
 * up. kill_at_ns can only come nearer.
 */
static void stop_step(struct container *c);

static void stop_fail(struct container *c, int code, const char *what)
{
	struct err err = { 0 };

	ev_timer_del(&c->stop_timer);
	c->kill_at_ns = 0;
	c->killed = false;
	(void)err_set(&err, code, "container %s: %s", c->id, what);
	(void)container_ref(c);
	waits_run(&c->exited, code, &err);
	container_unref(c);
}

static void container_on_signalled(const struct ttrpc_result *res, void *arg)
{
	struct container *c = arg;

	/* It has ended already: the answer of Wait is on its way. A lost connection is the pod's
	 * business. */
	if (res->code < 0 && res->code != -ENOENT && res->code != -ECONNRESET &&
	    res->code != -ECANCELED && c->state == CONTAINER_RUNNING)
		log_limited(LOG_WARN, "cannot signal", "container", c->id, "err",
			    err_text(res->err));
	container_unref(c);
}

static void send_signal(struct container *c, int signo, bool all)
{
	int r;

	call_kill(c, signo, all, container_on_signalled, container_ref(c), &r);
	if (r < 0)
		container_unref(c);
}

static void container_on_stop_timer(struct ev_timer *t)
{
	stop_step(t->arg);
}

static void stop_step(struct container *c)
{
	uint64_t now = now_mono_ns(), wait;

	if (c->state != CONTAINER_RUNNING)
		return;
	if (now < c->kill_at_ns) {
		wait = c->kill_at_ns - now;
	} else if (!c->killed) {
		c->killed = true;
		/* All processes: without a pid namespace of its own, no first process takes the
		 * others along. */
		send_signal(c, SIGKILL, true);
		wait = CONTAINER_DEATH_MS * NS_PER_MS;
	} else {
		stop_fail(c, -ETIMEDOUT, "it did not end after SIGKILL");
		return;
	}
	if (ev_timer_add(c->pod->huskd->loop, &c->stop_timer, wait, container_on_stop_timer, c) < 0)
		stop_fail(c, -ENOMEM, "out of memory");
}

/* Adds a waiter and brings the end nearer. `done` may be called inside. */
static void container_stop(struct container *c, uint64_t grace_ns, wait_fn done, void *arg)
{
	struct err err = { 0 };
	uint64_t at = now_mono_ns() + grace_ns;

	if (c->state != CONTAINER_RUNNING) {
		done(arg, 0, &err);
		return;
	}
	if (waits_add(&c->exited, done, arg) < 0) {
		done(arg, err_nomem(&err), &err);
		return;
	}
	if (grace_ns > 0 && !c->term_sent && !c->killed) {
		c->term_sent = true;
		send_signal(c, c->stop_signal, false);
	}
	if (c->kill_at_ns == 0 || at < c->kill_at_ns)
		c->kill_at_ns = at;
	if (!c->killed)
		stop_step(c);
}

struct stop {
	struct container *c;
	struct rpc_call *call;
	uint64_t grace_ns;
	bool waiting_start;
};

static void stop_answer(struct stop *s, int code, const struct err *err)
{
	rpc_reply_done(s->call, code, err);
	container_unref(s->c);
	free(s);
}

/* Also when nothing can be written: that is tried again, and what has ended has ended. */
static void container_on_stop_written(void *arg, int code, const struct err *err)
{
	stop_answer(arg, 0, NULL);
}

static void container_on_stopped(void *arg, int code, const struct err *err)
{
	struct stop *s = arg;

	rpc_on_cancel(s->call, NULL, NULL); /* it is in no list any more */
	if (code < 0 ||
	    state_written(&s->c->pod->huskd->state, container_on_stop_written, s, NULL) < 0)
		stop_answer(s, code, err);
}

static void container_on_started_to_stop(void *arg, int code, const struct err *err)
{
	struct stop *s = arg;

	s->waiting_start = false;
	container_stop(s->c, s->grace_ns, container_on_stopped, s);
}

/* The stop continues; only this caller no longer waits for it. */
static void container_on_stop_cancel(struct rpc_call *call, void *arg)
{
	struct stop *s = arg;

	waits_remove(s->waiting_start ? &s->c->started : &s->c->exited, s);
	stop_answer(s, -ECANCELED, NULL);
}

static uint64_t grace_of(int64_t seconds)
{
	if (seconds <= 0)
		return 0;
	return (uint64_t)MIN_OF(seconds, 1000000000) * NS_PER_S;
}

void container_handle_stop(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__StopContainerRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	struct stop *s = NULL;
	int r = state_find_container(&d->state, req->container_id, &c, &err);

	if (r == -ENOENT || (r == 0 && c->state != CONTAINER_RUNNING && !c->starting)) {
		rpc_reply(call, NULL);
		return;
	}
	if (r == 0 && !(s = calloc(1, sizeof(*s))))
		r = err_nomem(&err);
	if (r == 0) {
		*s = (struct stop){ container_ref(c), call, grace_of(req->timeout), c->starting };
		rpc_on_cancel(call, container_on_stop_cancel, s);
		if (!c->starting) {
			container_stop(c, s->grace_ns, container_on_stopped, s);
			return;
		}
		r = waits_add(&c->started, container_on_started_to_stop, s);
		if (r == 0)
			return;
		(void)err_nomem(&err);
		rpc_on_cancel(call, NULL, NULL);
		container_unref(c);
	}
	free(s);
	rpc_reply_err(call, r, &err);
}

/* ---- RemoveContainer ---- */

static void remove_done(struct container *c, int code, const struct err *err)
{
	if (code < 0) {
		c->removing = false;
		waits_run(&c->gone, code, err);
	} else {
		container_destroy(c);
	}
	container_unref(c);
}

static void container_on_deleted(const struct ttrpc_result *res, void *arg)
{
	struct container *c = arg;
	struct err err = { 0 };
	int r = res->code;

	/* A lost connection: the pod is being torn down, and the container is with it. */
	if (r == -ENOENT || r == -ECONNRESET || r == -ECANCELED)
		r = 0;
	if (r < 0)
		(void)err_set(&err, r, "container %s: %s", c->id, err_text(res->err));
	remove_done(c, r, &err);
}

static void container_on_stopped_to_remove(void *arg, int code, const struct err *err)
{
	TaskV3__DeleteRequest req = TASK_V3__DELETE_REQUEST__INIT;
	struct container *c = arg;
	static const struct err none;

	if (code == 0) {
		req.id = c->id;
		code = container_call(c, "Delete", &req.base, CONTAINER_DELETE_MS,
				      container_on_deleted, c);
		if (code == 0)
			return;
		if (code == -ECONNRESET) /* no shim, nothing to delete */
			code = 0;
		err = &none;
	}
	remove_done(c, code, err);
}

static void container_on_removed(void *arg, int code, const struct err *err)
{
	struct container *c = arg;

	waits_run(&c->gone, 0, NULL);
	container_unref(c);
}

void container_destroy(struct container *c)
{
	struct huskd *d = c->pod->huskd;
	struct err err = { 0 };
	cleanup_free char *bundle = path_container(d, c->id);
	cleanup_free char *data = path_container_data(d, c->id);

	if (c->removed)
		return;
	(void)container_ref(c);
	if (bundle && remove_tree(bundle, &err) < 0)
		log_limited(LOG_WARN, "cannot remove", "path", bundle, "err", err_text(&err));
	if (data)
		image_discard(d->images, data);
	if (image_release(d->images, c->id, &err) < 0)
		log_limited(LOG_WARN, "cannot release the image", "container", c->id, "err",
			    err_text(&err));
	if (c->state != CONTAINER_CREATING)
		log_info("container is removed", "container", c->id, "pod", c->pod->id);
	ev_timer_del(&c->stop_timer);
	state_remove_container(&d->state, c);
	waits_run(&c->exited, 0, NULL);
	if (state_written(&d->state, container_on_removed, c, NULL) < 0)
		container_on_removed(c, 0, NULL);
}

void container_handle_remove(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__RemoveContainerRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	int r = state_find_container(&d->state, req->container_id, &c, &err);

	if (r == -ENOENT) {
		rpc_reply(call, NULL);
		return;
	}
	if (r == 0 && c->starting)
		r = err_set(&err, -EBUSY, "container %s is being started", c->id);
	if (r == 0 && waits_add(&c->gone, rpc_reply_done, call) < 0)
		r = err_nomem(&err);
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	if (c->removing)
		return;
	c->removing = true;
	container_stop(c, 0, container_on_stopped_to_remove, container_ref(c));
}

/* ---- ReopenContainerLog ---- */

static void container_on_reopened(const struct ttrpc_result *res, void *arg)
{
	rpc_reply_done(arg, res->code, res->err);
}

void container_handle_reopen_log(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ReopenContainerLogRequest *in = (const void *)msg;
	Shim__ReopenLogRequest req = SHIM__REOPEN_LOG_REQUEST__INIT;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	int r = state_find_container(&d->state, in->container_id, &c, &err);

	if (r == 0)
		r = container_check_running(c, &err);
	if (r == 0) {
		req.id = c->id;
		r = ttrpc_client_call(c->pod->shim, SVC_SHIM, "ReopenLog", &req.base,
				      CONTAINER_KILL_MS, container_on_reopened, call);
		if (r < 0)
			(void)err_errno(&err, r, "call the shim");
	}
	if (r < 0)
		rpc_reply_err(call, r, &err);
}
