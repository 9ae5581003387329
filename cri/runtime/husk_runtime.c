#include "cri/runtime/husk_runtime.h"

#include <errno.h>

#include "base/util.h"
#include "cri/huskd.h"
#include "cri/runtime/shim_client.h"
#include "proto/husk.pb-c.h"

#define TIMES_MS 5000

/* ---- PodTimes ---- */

static uint64_t span(uint64_t from, uint64_t to)
{
	return from && to > from ? to - from : 0;
}

struct times {
	struct pod *pod;
	struct rpc_call *call;
};

static void husk_runtime_on_info(const struct ttrpc_result *res, void *arg)
{
	Husk__PodTimesResponse resp = HUSK__POD_TIMES_RESPONSE__INIT;
	const Shim__SandboxInfoResponse *m = (const void *)res->resp;
	struct times *t = arg;
	struct pod *p = t->pod;

	if (res->code < 0) {
		rpc_reply_err(t->call, res->code, res->err);
		pod_unref(p);
		free(t);
		return;
	}
	resp.backend = m->backend;
	resp.backend_reason = m->backend_reason;
	resp.guest_kernel = m->kernel_release;
	/* After a restart of huskd its own two times are lost: the shim's are close. */
	resp.vm_start_ns =
		span(p->requested_ns ? p->requested_ns : m->start_requested_ns, m->vcpu_start_ns);
	resp.agent_ready_ns = span(m->vcpu_start_ns, m->agent_ready_ns);
	resp.sandbox_ready_ns =
		span(m->agent_ready_ns, p->answered_ns ? p->answered_ns : m->sandbox_ready_ns);
	resp.shim_pid = m->shim_pid;
	resp.vmm_pid = m->vmm_pid;
	resp.qemu_pid = m->qemu_pid;
	rpc_reply(t->call, &resp.base);
	pod_unref(p);
	free(t);
}

void husk_runtime_handle_times(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__PodTimesRequest *req = (const void *)msg;
	Shim__SandboxInfoRequest info = SHIM__SANDBOX_INFO_REQUEST__INIT;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct times *t = NULL;
	struct pod *p;
	int r = state_find_pod(&d->state, req->pod_sandbox_id, &p, &err);

	if (r == 0 && !p->shim)
		r = err_set(&err, -EBUSY, "pod sandbox %s is not ready", p->id);
	if (r == 0 && !(t = calloc(1, sizeof(*t))))
		r = err_nomem(&err);
	if (r == 0) {
		*t = (struct times){ pod_ref(p), call };
		r = ttrpc_client_call(p->shim, SVC_SHIM, "SandboxInfo", &info.base, TIMES_MS,
				      husk_runtime_on_info, t);
		if (r == 0)
			return;
		(void)err_errno(&err, r, "call the shim");
		pod_unref(p);
	}
	free(t);
	rpc_reply_err(call, r, &err);
}

/* ---- WaitContainer ---- */

struct waiter {
	struct container *c;
	struct rpc_call *call;
};

static void waiter_free(struct waiter *w)
{
	container_unref(w->c);
	free(w);
}

static void husk_runtime_on_exited(void *arg, int code, const struct err *err)
{
	Husk__WaitContainerResponse resp = HUSK__WAIT_CONTAINER_RESPONSE__INIT;
	struct waiter *w = arg;
	struct container *c = w->c;

	if (c->state == CONTAINER_EXITED) {
		resp.exit_code = c->exit_code;
		resp.reason = c->reason;
		resp.message = c->message;
		resp.finished_at = c->finished_at;
		rpc_reply(w->call, &resp.base);
	} else if (c->removed) {
		rpc_reply_status(w->call, RPC_NOT_FOUND, "the container was removed");
	} else if (waits_add(&c->exited, husk_runtime_on_exited, w) == 0) {
		return; /* a stop that failed is not the end that this call waits for */
	} else {
		rpc_reply_err(w->call, -ENOMEM, NULL);
	}
	waiter_free(w);
}

static void husk_runtime_on_wait_cancel(struct rpc_call *call, void *arg)
{
	struct waiter *w = arg;

	waits_remove(&w->c->exited, w);
	rpc_reply_err(call, -ECANCELED, NULL);
	waiter_free(w);
}

void husk_runtime_handle_wait(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Husk__WaitContainerRequest *req = (const void *)msg;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	struct waiter *w = NULL;
	int r = state_find_container(&d->state, req->container_id, &c, &err);

	if (r == 0 && !(w = calloc(1, sizeof(*w))))
		r = err_nomem(&err);
	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	*w = (struct waiter){ container_ref(c), call };
	rpc_on_cancel(call, husk_runtime_on_wait_cancel, w);
	/* Answers at once, or waits. */
	husk_runtime_on_exited(w, 0, NULL);
}
