#include "cri/runtime/pod.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/pb.h"
#include "base/util.h"
#include "cri/net/net.h"
#include "cri/paths.h"
#include "cri/runtime/console.h"
#include "cri/runtime/container.h"
#include "cri/runtime/pod_network.h"
#include "cri/runtime/shim_client.h"
#include "cri/runtime/spec_check.h"
#include "proto/wkt.pb-c.h"

/* RunPodSandbox in progress. Each ttrpc call and child in flight holds a reference. */
struct pod_run {
	unsigned refs;
	struct pod *pod;
	struct rpc_call *call;
	bool spawning; /* the shim's `start` runs: nothing can be taken down before it ends */
	bool promised; /* its row says that it is ready, or soon will */
	bool adding;   /* the network's ADD runs, beside it */
	bool waiting;  /* the shim is there and waits for the network */
	int net_code;  /* how the ADD ended */
	struct err net_err;
	bool failed;
	int code; /* of the failure */
	struct err err;
};

enum teardown_step { STEP_STOP, STEP_SHUTDOWN, STEP_DELETE, STEP_NETWORK, STEP_WRITE };

struct pod_teardown {
	struct pod *pod;
	enum teardown kind;
	enum teardown_step step;
	struct waits done;
	int code; /* how it went */
	struct err err;
};

static void teardown_delete(struct pod_teardown *t);
static void teardown_finish(struct pod_teardown *t, int code, const struct err *err);

static int call_sandbox(struct pod *p, const char *method, const ProtobufCMessage *req,
			uint64_t timeout_ms, ttrpc_done done, void *arg)
{
	if (!p->shim)
		return -ECONNRESET;
	return ttrpc_client_call(p->shim, SVC_SANDBOX, method, req, timeout_ms, done, arg);
}

/* Open calls end with -ECANCELED, on_close does not come. */
static void drop_shim(struct pod *p)
{
	ttrpc_client_free(take_ptr(&p->shim));
}

/* ---- taking down ---- */

static void pod_on_shutdown_done(const struct ttrpc_result *res, void *arg)
{
	struct pod_teardown *t = arg;

	if (t->step != STEP_SHUTDOWN)
		return;
	if (res->code < 0) {
		log_debug("shutdown failed", "pod", t->pod->id, "err", err_text(res->err));
		drop_shim(t->pod);
		teardown_delete(t);
		return;
	}
	/* The VM is reaped when this is answered; the shim ends by itself a moment later. */
	teardown_finish(t, 0, NULL);
}

static void teardown_shutdown(struct pod_teardown *t)
{
	Sandbox__ShutdownSandboxRequest req = SANDBOX__SHUTDOWN_SANDBOX_REQUEST__INIT;

	t->step = STEP_SHUTDOWN;
	req.sandbox_id = t->pod->id;
	if (call_sandbox(t->pod, "ShutdownSandbox", &req.base, POD_SHUTDOWN_MS,
			 pod_on_shutdown_done, t) < 0) {
		drop_shim(t->pod);
		teardown_delete(t);
	}
}

static void pod_on_stop_done(const struct ttrpc_result *res, void *arg)
{
	struct pod_teardown *t = arg;

	if (t->step != STEP_STOP)
		return;
	if (res->code < 0)
		log_debug("stop failed", "pod", t->pod->id, "err", err_text(res->err));
	teardown_shutdown(t);
}

static void teardown_stop(struct pod_teardown *t)
{
	Sandbox__StopSandboxRequest req = SANDBOX__STOP_SANDBOX_REQUEST__INIT;

	t->step = STEP_STOP;
	req.sandbox_id = t->pod->id;
	req.timeout_secs = POD_STOP_MS / 1000 - 5;
	if (call_sandbox(t->pod, "StopSandbox", &req.base, POD_STOP_MS, pod_on_stop_done, t) < 0)
		teardown_shutdown(t);
}

static void pod_on_delete_done(void *arg, int code, const struct err *err)
{
	teardown_finish(arg, code, err);
}

static void teardown_delete(struct pod_teardown *t)
{
	struct pod *p = t->pod;
	struct err err = { 0 };
	cleanup_free char *bundle = path_pod(p->huskd, p->id);
	int r;

	t->step = STEP_DELETE;
	r = bundle ? mkdir_p(bundle, 0700, &err) : err_nomem(&err);
	if (r == 0)
		r = shim_delete(p->huskd, p->id, bundle, pod_on_delete_done, t, &err);
	if (r < 0)
		teardown_finish(t, r, &err);
}

/* What a guest that died had to say stays until the pod is removed. */
static int remove_bundle(const char *bundle, enum teardown kind, struct err *err)
{
	return kind == TEARDOWN_DIED ? console_keep(bundle, err) : remove_tree(bundle, err);
}

/* Also when nothing can be written: that is tried again, and what is down is down. */
static void pod_on_down_written(void *arg, int code, const struct err *err)
{
	struct pod_teardown *t = arg;
	struct pod *p = t->pod;

	p->teardown = NULL;
	waits_run(&t->done, t->code, &t->err);
	free(t);
	pod_unref(p);
}

/* Of all steps but the last. */
static void teardown_end(struct pod_teardown *t, int code, const struct err *err)
{
	struct pod *p = t->pod;

	if (code < 0) {
		log_limited(LOG_ERROR, "pod could not be taken down", "pod", p->id, "err",
			    err_text(err));
	} else {
		p->torn_down = true;
		log_info("pod is down", "pod", p->id);
	}
	t->step = STEP_WRITE;
	t->code = code;
	if (err)
		t->err = *err;
	if (state_written(&p->huskd->state, pod_on_down_written, t, NULL) < 0)
		pod_on_down_written(t, 0, NULL);
}

static void pod_on_network_deleted(void *arg, int code, const struct err *why)
{
	struct err err = *why;

	if (code == -ENOENT) /* of a plug-in; the pod is there */
		code = -EIO;
	if (code < 0)
		(void)err_wrap(&err, code, "take down the network");
	teardown_end(arg, code, &err);
}

static void teardown_network(struct pod_teardown *t)
{
	struct pod *p = t->pod;
	struct err err = { 0 };
	int r = -ENOENT;

	t->step = STEP_NETWORK;
	if (p->huskd->net)
		r = net_del(p->huskd->net, p->id, pod_on_network_deleted, t, &err);
	if (r == -ENOENT)
		teardown_end(t, 0, NULL);
	else if (r < 0)
		pod_on_network_deleted(t, r, &err);
}

/* Of the shim and its VM. */
static void teardown_finish(struct pod_teardown *t, int code, const struct err *err)
{
	struct pod *p = t->pod;
	struct err left = { 0 };
	struct container *c, *next;
	cleanup_free char *bundle = path_pod(p->huskd, p->id);

	drop_shim(p);
	if (code < 0) {
		teardown_end(t, code, err);
		return;
	}
	for (c = TAILQ_FIRST(&p->containers); c; c = next) {
		next = TAILQ_NEXT(c, link); /* a waiter may remove c */
		container_pod_gone(c, t->kind);
	}
	if (bundle && remove_bundle(bundle, t->kind, &left) < 0)
		log_limited(LOG_WARN, "cannot remove", "path", bundle, "err", err_text(&left));
	teardown_network(t);
}

void pod_teardown(struct pod *p, enum teardown kind, wait_fn done, void *arg)
{
	static const struct err none;
	struct pod_teardown *t = p->teardown;
	struct err err = { 0 };

	if (p->torn_down) {
		done(arg, 0, &none);
		return;
	}
	if (t || !(t = calloc(1, sizeof(*t)))) {
		int r = t ? waits_add(&t->done, done, arg) : -ENOMEM;

		if (r < 0)
			done(arg, err_nomem(&err), &err);
		return;
	}
	if (waits_add(&t->done, done, arg) < 0) {
		free(t);
		done(arg, err_nomem(&err), &err);
		return;
	}
	t->pod = pod_ref(p);
	t->kind = kind;
	p->teardown = t;
	if (p->state == POD_READY) {
		pod_state_set(p, POD_NOTREADY);
		(void)state_save_pod(&p->huskd->state, p, NULL);
	}
	if (!p->shim)
		teardown_delete(t);
	else if (kind == TEARDOWN_STOP)
		teardown_stop(t);
	else
		teardown_shutdown(t);
}

/* ---- watching ---- */

static void pod_on_down_after_death(void *arg, int code, const struct err *err)
{
	pod_unref(arg);
}

static void pod_on_shim_closed(void *arg)
{
	struct pod *p = arg;
	struct pod_teardown *t = p->teardown;

	ttrpc_client_free(take_ptr(&p->shim));
	if (t && t->step < STEP_DELETE)
		teardown_delete(t);
	if (t || p->state != POD_READY)
		return; /* RunPodSandbox notices by its own call */
	log_limited(LOG_ERROR, "the shim of a pod died", "pod", p->id);
	pod_teardown(p, TEARDOWN_DIED, pod_on_down_after_death, pod_ref(p));
}

static const char *reason_of(const Sandbox__SandboxStatusResponse *m)
{
	for (size_t i = 0; i < m->n_info; i++) {
		if (str_eq(m->info[i]->key, "reason"))
			return m->info[i]->value;
	}
	return "";
}

/* why NULL: the shim could not say. */
static void pod_died(struct pod *p, const char *why)
{
	if (p->teardown || p->state != POD_READY)
		return;
	free(p->death);
	p->death = why ? strdup(why) : NULL;
	log_limited(LOG_ERROR, "the virtual machine of a pod ended", "pod", p->id, "why", why);
	pod_teardown(p, TEARDOWN_DIED, pod_on_down_after_death, pod_ref(p));
}

/* A lost connection is pod_on_shim_closed's business, and a cancelled call nobody's. */
static bool shim_gone(int code)
{
	return code == -ECONNRESET || code == -ECANCELED;
}

static void pod_on_death_status(const struct ttrpc_result *res, void *arg)
{
	struct pod *p = arg;

	if (!shim_gone(res->code))
		pod_died(p, res->code == 0 ? reason_of((const void *)res->resp) : NULL);
	pod_unref(p);
}

static void pod_on_sandbox_ended(const struct ttrpc_result *res, void *arg)
{
	Sandbox__SandboxStatusRequest req = SANDBOX__SANDBOX_STATUS_REQUEST__INIT;
	struct pod *p = arg;
	int r;

	if (res->code == 0 && !p->teardown && p->state == POD_READY) {
		req.sandbox_id = p->id;
		r = call_sandbox(p, "SandboxStatus", &req.base, POD_STATUS_MS, pod_on_death_status,
				 pod_ref(p));
		if (r < 0)
			pod_unref(p);
		if (r < 0 && !shim_gone(r))
			pod_died(p, NULL);
	}
	pod_unref(p);
}

int pod_attach(struct pod *p, struct err *err)
{
	return shim_connect(p->huskd, p->address, pod_on_shim_closed, p, &p->shim, err);
}

int pod_watch(struct pod *p, struct err *err)
{
	Sandbox__WaitSandboxRequest req = SANDBOX__WAIT_SANDBOX_REQUEST__INIT;
	int r;

	req.sandbox_id = p->id;
	r = call_sandbox(p, "WaitSandbox", &req.base, 0, pod_on_sandbox_ended, p);
	if (r < 0)
		return err_errno(err, r, "wait for the sandbox");
	(void)pod_ref(p);
	return 0;
}

/* ---- RunPodSandbox ---- */

static void run_unref(struct pod_run *run)
{
	if (--run->refs > 0)
		return;
	pod_unref(run->pod);
	free(run);
}

static void pod_on_rolled_back(void *arg, int code, const struct err *err)
{
	struct pod_run *run = arg;
	struct pod *p = run->pod;
	int why = run->code;

	p->run = NULL;
	log_limited(LOG_ERROR, "RunPodSandbox failed", "pod", p->id, "name",
		    p->config->metadata->name, "err", err_text(&run->err));
	rpc_reply_err(run->call, why, &run->err);
	if (code < 0) {
		/* Something may still run: the record stays for another StopPodSandbox. */
		pod_state_set(p, POD_NOTREADY);
		(void)state_save_pod(&p->huskd->state, p, NULL);
		waits_run(&p->gone, code, err);
	} else {
		pod_destroy(p);
	}
	waits_run(&p->run_over, 0, NULL);
	run_unref(run);
}

static void run_fail(struct pod_run *run, int code, const struct err *err)
{
	struct pod *p = run->pod;

	if (run->failed)
		return;
	/* A file of ours that is missing must not look like a pod that is. */
	if (code == -ENOENT || code == -EEXIST || code == -EPERM || code == -EACCES)
		code = -EIO;
	run->failed = true;
	if (run->promised) /* a huskd that starts now must not take it for ready */
		(void)state_save_pod(&p->huskd->state, p, NULL);
	run->code = code;
	(void)err_set(&run->err, code, "pod %.200s: %s", p->config->metadata->name,
		      err && err->msg[0] ? err_text(err) : strerror(-code));
	rpc_on_cancel(run->call, NULL, NULL);
	run->refs++; /* for pod_on_rolled_back */
	pod_teardown(p, TEARDOWN_ABORT, pod_on_rolled_back, run);
}

static void pod_on_run_cancel(struct rpc_call *call, void *arg)
{
	struct pod_run *run = arg;

	/* While `start` runs there is nothing to take down yet: pod_on_shim_started looks again. */
	if (!run->spawning)
		run_fail(run, -ECANCELED, NULL);
}

static void pod_on_committed(void *arg, int code, const struct err *err)
{
	Cri__RunPodSandboxResponse resp = CRI__RUN_POD_SANDBOX_RESPONSE__INIT;
	struct pod_run *run = arg;
	struct pod *p = run->pod;
	struct err why = *err;

	if (run->failed) {
		run_unref(run);
		return;
	}
	/* Not earlier: an end of the VM is looked at once the pod is ready. */
	if (code == 0)
		code = pod_watch(p, &why);
	if (code < 0) {
		run_fail(run, code, &why);
		run_unref(run);
		return;
	}
	pod_state_set(p, POD_READY);
	resp.pod_sandbox_id = p->id;
	log_info("pod is ready", "pod", p->id, "name", p->config->metadata->name, "namespace",
		 p->config->metadata->namespace_);
	p->run = NULL;
	p->answered_ns = now_mono_ns();
	rpc_reply(run->call, &resp.base);
	waits_run(&p->run_over, 0, NULL);
	run_unref(run);
}

static void pod_on_sandbox_started(const struct ttrpc_result *res, void *arg)
{
	struct pod_run *run = arg;
	struct pod *p = run->pod;
	struct err err = { 0 };
	int r = res->code;

	if (run->failed) {
		run_unref(run);
		return;
	}
	if (r < 0) {
		err = *res->err;
	} else {
		run->promised = true;
		r = state_commit_pod(&p->huskd->state, p, POD_READY, pod_on_committed, run, &err);
		if (r == 0)
			return; /* with the reference */
	}
	run_fail(run, r, &err);
	run_unref(run);
}

static void pod_on_sandbox_created(const struct ttrpc_result *res, void *arg)
{
	Sandbox__StartSandboxRequest req = SANDBOX__START_SANDBOX_REQUEST__INIT;
	struct pod_run *run = arg;
	struct err err = { 0 };
	int r = res->code;

	if (run->failed) {
		run_unref(run);
		return;
	}
	if (r < 0) {
		err = *res->err;
	} else {
		req.sandbox_id = run->pod->id;
		r = call_sandbox(run->pod, "StartSandbox", &req.base, POD_START_MS,
				 pod_on_sandbox_started, run);
		if (r == 0)
			return; /* the reference passes to the next call */
		(void)err_errno(&err, r, "call the shim");
	}
	run_fail(run, r, &err);
	run_unref(run);
}

static int call_create_sandbox(struct pod_run *run, struct err *err)
{
	Sandbox__CreateSandboxRequest req = SANDBOX__CREATE_SANDBOX_REQUEST__INIT;
	struct pod *p = run->pod;
	cleanup_free char *bundle = path_pod(p->huskd, p->id);
	cleanup_free uint8_t *config = NULL;
	Wkt__Any any = WKT__ANY__INIT;
	struct net_view net;
	int r;

	config = pb_pack(&p->config->base, &any.value.len);
	if (!bundle || !config)
		return err_nomem(err);
	any.type_url = (char *)"runtime.v1.PodSandboxConfig";
	any.value.data = config;
	req.sandbox_id = p->id;
	req.bundle_path = bundle;
	req.options = &any;
	if (p->huskd->net && net_find(p->huskd->net, p->id, &net) == 0)
		req.netns_path = (char *)net.netns;
	r = call_sandbox(p, "CreateSandbox", &req.base, POD_CREATE_MS, pod_on_sandbox_created, run);
	return r < 0 ? err_errno(err, r, "call the shim") : 0;
}

/* The shim is there, and the network has an answer. */
static void run_create(struct pod_run *run)
{
	struct err err = run->net_err;
	int r = run->net_code;

	if (run->failed) {
		run_unref(run);
		return;
	}
	if (r < 0)
		(void)err_wrap(&err, r, "set up the network");
	else
		r = call_create_sandbox(run, &err);
	if (r < 0) {
		run_fail(run, r, &err);
		run_unref(run);
	}
}

static void pod_on_network_added(void *arg, int code, const struct net_result *res,
				 const struct err *err)
{
	struct pod_run *run = arg;
	bool waiting = run->waiting;

	log_debug("network answered", "pod", run->pod->id, "err", code < 0 ? err_text(err) : "");
	run->adding = run->waiting = false;
	run->net_code = code;
	run->net_err = *err;
	if (waiting)
		run_create(run);
	run_unref(run);
}

/* Beside the start of the shim. A failure is told when that has ended. */
static void start_network(struct pod_run *run)
{
	struct pod *p = run->pod;

	if (!pod_network_wanted(p->huskd))
		return;
	run->net_code =
		net_add(p->huskd->net, p->id, p->config, pod_on_network_added, run, &run->net_err);
	if (run->net_code == 0) {
		run->adding = true;
		run->refs++;
	}
}

static void pod_on_shim_started(void *arg, int code, const char *address,
				const struct err *shim_err)
{
	struct pod_run *run = arg;
	struct pod *p = run->pod;
	struct err err = { 0 };
	int r = code;

	run->spawning = false;
	if (r == 0 && rpc_cancelled(run->call))
		r = -ECANCELED;
	else if (r < 0)
		err = *shim_err;
	if (r == 0) {
		free(p->address);
		p->address = strdup(address);
		r = p->address ? state_save_pod(&p->huskd->state, p, &err) : err_nomem(&err);
	}
	if (r == 0)
		r = pod_attach(p, &err);
	if (r < 0) {
		run_fail(run, r, &err);
		run_unref(run);
	} else if (run->adding) {
		run->waiting = true; /* the reference, too */
	} else {
		run_create(run);
	}
}

static int run_start(struct pod_run *run, struct err *err)
{
	struct pod *p = run->pod;
	cleanup_free char *bundle = path_pod(p->huskd, p->id);
	int r = bundle ? mkdir_p(bundle, 0700, err) : err_nomem(err);

	if (r == 0 && !str_empty(p->config->log_directory))
		r = mkdir_p(p->config->log_directory, 0755, err);
	if (r == 0)
		r = shim_start(p->huskd, p->id, bundle, pod_on_shim_started, run, err);
	if (r == 0)
		start_network(run);
	return r;
}

/*
 * A run or removal of the same name is on its way: waits for its end, then starts over. A client
 * that gave up may repeat its call at once, even before we have seen that it gave up.
 */
struct rerun {
	struct huskd *huskd;
	struct rpc_call *call;
	const Cri__RunPodSandboxRequest *req;
};

static void run_pod(struct huskd *d, struct rpc_call *call, const Cri__RunPodSandboxRequest *req);

static void pod_rerun(void *arg, int code, const struct err *err)
{
	struct rerun *a = arg;

	if (rpc_cancelled(a->call))
		rpc_reply_err(a->call, -ECANCELED, NULL);
	else
		run_pod(a->huskd, a->call, a->req);
	free(a);
}

static bool wait_for_name(struct pod *other, struct rpc_call *call,
			  const Cri__RunPodSandboxRequest *req)
{
	struct waits *w = other->run ? &other->run_over : other->removing ? &other->gone : NULL;
	struct rerun *a = w ? calloc(1, sizeof(*a)) : NULL;

	if (!a)
		return false;
	*a = (struct rerun){ other->huskd, call, req };
	if (waits_add(w, pod_rerun, a) < 0) {
		free(a);
		return false;
	}
	return true;
}

static void run_pod(struct huskd *d, struct rpc_call *call, const Cri__RunPodSandboxRequest *req)
{
	struct err err = { 0 };
	struct pod *p = NULL, *other = NULL;
	struct pod_run *run = calloc(1, sizeof(*run));
	Cri__PodSandboxConfig *config = (void *)pb_clone(&req->config->base);
	int r = run && config ? 0 : err_nomem(&err);

	if (r == 0)
		r = state_add_pod(&d->state, config, req->runtime_handler, &p, &other, &err);
	if (r < 0) {
		free(run);
		if (config)
			cri__pod_sandbox_config__free_unpacked(config, NULL);
		if (r != -EEXIST || !wait_for_name(other, call, req))
			rpc_reply_err(call, r, &err);
		return;
	}
	run->refs = 1;
	run->pod = pod_ref(p);
	run->call = call;
	p->run = run;
	p->requested_ns = now_mono_ns();
	run->spawning = true;
	rpc_on_cancel(call, pod_on_run_cancel, run);
	r = run_start(run, &err);
	if (r < 0) {
		/* No shim was started, so there is nothing to take down. */
		run->spawning = false;
		p->torn_down = true;
		run_fail(run, r, &err);
		run_unref(run);
	}
}

void pod_handle_run(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__RunPodSandboxRequest *req = (const void *)msg;
	const Cri__PodSandboxConfig *c = req->config;
	struct err err = { 0 };
	int r = 0;

	if (!str_empty(req->runtime_handler) && !str_eq(req->runtime_handler, "husk"))
		r = err_set(&err, -EINVAL,
			    "no runtime handler \"%s\" (there are \"\" and \"husk\")",
			    req->runtime_handler);
	if (r == 0)
		r = spec_check_pod(c, &err);
	if (r == 0)
		r = pod_network_check(arg, c, &err);
	if (r == 0)
		r = path_check_space(arg, &err);
	if (r == 0) {
		run_pod(arg, call, req);
		return;
	}
	if (c && c->metadata && !str_empty(c->metadata->name))
		(void)err_wrap(&err, r, "pod %.200s", c->metadata->name);
	rpc_reply_err(call, r, &err);
}

/* ---- StopPodSandbox ---- */

void pod_handle_stop(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__StopPodSandboxRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct pod *p;
	int r = state_find_pod(&d->state, req->pod_sandbox_id, &p, &err);

	if (r == -ENOENT)
		rpc_reply(call, NULL);
	else if (r < 0)
		rpc_reply_err(call, r, &err);
	else
		pod_teardown(p, TEARDOWN_STOP, rpc_reply_done, call);
}

/* ---- RemovePodSandbox ---- */

static void pod_on_removed(void *arg, int code, const struct err *err)
{
	struct pod *p = arg;

	waits_run(&p->gone, 0, NULL);
	pod_unref(p);
}

void pod_destroy(struct pod *p)
{
	struct huskd *d = p->huskd;
	struct container *c;
	cleanup_free char *bundle = NULL;

	if (p->removed)
		return;
	(void)pod_ref(p);
	while ((c = TAILQ_FIRST(&p->containers)))
		container_destroy(c);
	bundle = path_pod(d, p->id);
	if (bundle)
		(void)!remove_tree(bundle, NULL);
	state_remove_pod(&d->state, p);
	log_info("pod is removed", "pod", p->id);
	if (state_written(&d->state, pod_on_removed, p, NULL) < 0)
		pod_on_removed(p, 0, NULL);
}

static void pod_on_stopped_to_remove(void *arg, int code, const struct err *err)
{
	struct pod *p = arg;

	if (code < 0) {
		p->removing = false;
		waits_run(&p->gone, code, err);
	} else {
		pod_destroy(p);
	}
	pod_unref(p);
}

void pod_handle_remove(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__RemovePodSandboxRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct pod *p;
	int r = state_find_pod(&d->state, req->pod_sandbox_id, &p, &err);

	if (r == -ENOENT) {
		rpc_reply(call, NULL);
		return;
	}
	if (r == 0 && waits_add(&p->gone, rpc_reply_done, call) < 0)
		r = err_nomem(&err);
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	if (p->removing)
		return;
	p->removing = true;
	pod_teardown(p, TEARDOWN_STOP, pod_on_stopped_to_remove, pod_ref(p));
}
