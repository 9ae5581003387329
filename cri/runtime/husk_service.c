/* husk.v1: what the `husk` command asks beyond CRI. */
#include <errno.h>

#include "base/util.h"
#include "cri/images/archive.h"
#include "cri/images/husk_images.h"
#include "cri/huskd.h"
#include "cri/images/service.h"
#include "cri/runtime/shim_client.h"
#include "proto/husk.pb-c.h"

#define TIMES_MS 5000

static HANDLER(handle_pod_times);

const struct rpc_method husk_methods[] = {
	{ "PullImage", husk_handle_pull, true },
	{ "PodTimes", handle_pod_times, false },
	{ "WaitContainer", container_handle_wait, false },
	{ "ListImages", husk_handle_list, false },
	{ "InspectImage", husk_handle_inspect, false },
	{ "TagImage", husk_handle_tag, false },
	{ "RemoveImage", husk_handle_remove, false },
	{ "DiskUsage", husk_handle_usage, false },
	{ "Prune", husk_handle_prune, false },
	{ "CheckLogin", husk_handle_login, false },
	{ "PushImage", husk_handle_push, true },
	{ "VerifyImages", husk_handle_verify, true },
	{ "SaveImages", husk_handle_save, true },
	{ "LoadImages", husk_handle_load, true, true },
	{ NULL, NULL, false },
};

static uint64_t span(uint64_t from, uint64_t to)
{
	return from && to > from ? to - from : 0;
}

struct times {
	struct pod *pod;
	struct rpc_call *call;
};

static void on_info(const struct ttrpc_result *res, void *arg)
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
	/* After a restart of huskd its own two clocks are lost: the shim's come close. */
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

static HANDLER(handle_pod_times)
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
		r = err_set(&err, -ENOMEM, "no memory");
	if (r == 0) {
		*t = (struct times){ pod_ref(p), call };
		r = ttrpc_client_call(p->shim, SVC_SHIM, "SandboxInfo", &info.base, TIMES_MS,
				      on_info, t);
		if (r == 0)
			return;
		(void)err_errno(&err, r, "call the shim");
		pod_unref(p);
	}
	free(t);
	rpc_reply_err(call, r, &err);
}
