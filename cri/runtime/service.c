#include "cri/runtime/service.h"

#include <errno.h>
#include <stdio.h>

#include <jansson.h>

#include "base/util.h"
#include "cri/huskd.h"
#include "cri/net/net.h"
#include "cri/runtime/backend.h"
#include "cri/runtime/container.h"
#include "cri/runtime/create.h"
#include "cri/runtime/exec/attach.h"
#include "cri/runtime/exec/exec.h"
#include "cri/runtime/exec/sync.h"
#include "cri/runtime/pod.h"
#include "cri/runtime/pod_network.h"
#include "cri/runtime/status.h"

/* ---- what the service says of itself ---- */

static void runtime_service_version(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Cri__VersionResponse resp = CRI__VERSION_RESPONSE__INIT;

	resp.version = (char *)"0.1.0"; /* of the kubelet's interface; clients compare it */
	resp.runtime_name = (char *)"husk";
	resp.runtime_version = (char *)HUSK_VERSION;
	resp.runtime_api_version = (char *)"v1";
	rpc_reply(call, &resp.base);
}

static void fill_network(Cri__RuntimeCondition *c, const struct huskd *d, struct net_status *s)
{
	c->type = (char *)"NetworkReady";
	if (d->net)
		net_status(d->net, s);
	else
		*s = (struct net_status){ .reason = "NetworkPluginNotReady" };
	if (!d->net)
		(void)snprintf(s->message, sizeof(s->message),
			       "pods have a loopback interface only: %s", pod_network_off(d));
	c->status = s->ready;
	c->reason = (char *)s->reason;
	c->message = s->message;
}

static void runtime_service_status(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__StatusRequest *req = (const void *)msg;
	const struct huskd *d = arg;
	Cri__StatusResponse resp = CRI__STATUS_RESPONSE__INIT;
	Cri__RuntimeStatus status = CRI__RUNTIME_STATUS__INIT;
	Cri__RuntimeCondition ready = CRI__RUNTIME_CONDITION__INIT;
	Cri__RuntimeCondition network = CRI__RUNTIME_CONDITION__INIT;
	Cri__RuntimeCondition *conditions[] = { &ready, &network };
	Cri__RuntimeHandlerFeatures none = CRI__RUNTIME_HANDLER_FEATURES__INIT;
	Cri__RuntimeFeatures features = CRI__RUNTIME_FEATURES__INIT;
	Cri__RuntimeHandler unnamed = CRI__RUNTIME_HANDLER__INIT;
	Cri__RuntimeHandler husk = CRI__RUNTIME_HANDLER__INIT;
	Cri__RuntimeHandler *handlers[] = { &unnamed, &husk };
	Cri__StatusResponse__InfoEntry info = CRI__STATUS_RESPONSE__INFO_ENTRY__INIT;
	Cri__StatusResponse__InfoEntry *infos[] = { &info };
	cleanup_free char *text = NULL, *fallback = NULL;
	struct net_status net;

	ready.type = (char *)"RuntimeReady";
	ready.status = true;
	if (backend_fell_back(d->backend, d->config.backend)) {
		ready.reason = (char *)"BackendFallback";
		ready.message = fallback =
			str_fmt("pods run under QEMU without KVM: " BACKEND_TCG " (%s)",
				d->backend->reason);
		if (!fallback) {
			rpc_reply_err(call, -ENOMEM, NULL);
			return;
		}
	}
	fill_network(&network, d, &net);
	status.n_conditions = ARRAY_SIZE(conditions);
	status.conditions = conditions;
	husk.name = (char *)"husk";
	unnamed.features = husk.features = &none;
	resp.status = &status;
	resp.n_runtime_handlers = ARRAY_SIZE(handlers);
	resp.runtime_handlers = handlers;
	resp.features = &features;
	if (req->verbose) {
		json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}",
				      "version", HUSK_VERSION, "rootDir", d->config.root,
				      "stateDir", d->config.state, "backend", d->config.backend,
				      "backendInUse", backend_name(d->backend, d->config.backend),
				      "backendReason", d->backend->reason, "kernel",
				      d->config.kernel ? d->config.kernel : "", "shim",
				      d->config.shim, "networkMode", d->config.network_mode,
				      "networkFile", net.file ? net.file : "");

		text = j ? json_dumps(j, JSON_COMPACT) : NULL;
		json_decref(j);
		info.key = (char *)"config";
		info.value = text;
		resp.n_info = text ? 1 : 0;
		resp.info = infos;
	}
	rpc_reply(call, &resp.base);
}

static void runtime_service_runtime_config(struct rpc_call *call, const ProtobufCMessage *msg,
					   void *arg)
{
	Cri__RuntimeConfigResponse resp = CRI__RUNTIME_CONFIG_RESPONSE__INIT;
	Cri__LinuxRuntimeConfiguration config = CRI__LINUX_RUNTIME_CONFIGURATION__INIT;

	config.cgroup_driver = CRI__CGROUP_DRIVER__CGROUPFS;
	resp.linux = &config;
	rpc_reply(call, &resp.base);
}

/* The pod CIDR: nothing here depends on it. */
static void runtime_service_update_runtime_config(struct rpc_call *call,
						  const ProtobufCMessage *msg, void *arg)
{
	rpc_reply(call, NULL);
}

/* ---- the table ---- */

const struct rpc_method runtime_service_methods[] = {
	{ "Version", runtime_service_version },
	{ "Status", runtime_service_status },
	{ "RuntimeConfig", runtime_service_runtime_config },
	{ "UpdateRuntimeConfig", runtime_service_update_runtime_config },
	{ "RunPodSandbox", pod_handle_run },
	{ "StopPodSandbox", pod_handle_stop },
	{ "RemovePodSandbox", pod_handle_remove },
	{ "PodSandboxStatus", status_handle_pod },
	{ "ListPodSandbox", status_handle_list_pods },
	{ "CreateContainer", create_handle },
	{ "StartContainer", container_handle_start },
	{ "StopContainer", container_handle_stop },
	{ "RemoveContainer", container_handle_remove },
	{ "ContainerStatus", status_handle_container },
	{ "ListContainers", status_handle_list_containers },
	{ "ExecSync", sync_handle },
	{ "Exec", exec_handle },
	{ "Attach", attach_handle },
	{ "ReopenContainerLog", container_handle_reopen_log },
	{ NULL, NULL },
};
