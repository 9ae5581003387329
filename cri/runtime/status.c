#include "cri/runtime/status.h"

#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "base/log.h"
#include "base/util.h"
#include "cri/net/net.h"
#include "cri/paths.h"
#include "cri/runtime/console.h"
#include "cri/runtime/container.h"
#include "cri/runtime/filters.h"
#include "cri/runtime/shim_client.h"
#include "cri/rpc/signals.h"
#include "cri/runtime/spec.h"
#include "cri/runtime/spec_check.h"

#define INFO_MS 3000

/* ---- lists ---- */

/*
 * The map entries of a configuration and of an answer are types of their own with the same fields,
 * and are packed by the same numbers: they are lent, not copied.
 */
static void fill_pod(Cri__PodSandbox *m, struct pod *p)
{
	cri__pod_sandbox__init(m);
	m->id = p->id;
	m->metadata = p->config->metadata;
	m->state = pod_cri_state(p);
	m->created_at = p->created_at;
	m->n_labels = p->config->n_labels;
	m->labels = (void *)p->config->labels;
	m->n_annotations = p->config->n_annotations;
	m->annotations = (void *)p->config->annotations;
	m->runtime_handler = p->handler;
}

void status_handle_list_pods(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ListPodSandboxRequest *req = (const void *)msg;
	struct huskd *d = arg;
	Cri__ListPodSandboxResponse resp = CRI__LIST_POD_SANDBOX_RESPONSE__INIT;
	size_t max = d->state.n_pods + 1;
	cleanup_free Cri__PodSandbox *items = calloc(max, sizeof(*items));
	cleanup_free Cri__PodSandbox **list = calloc(max, sizeof(*list));
	struct pod *p;

	if (!items || !list) {
		rpc_reply_err(call, -ENOMEM, NULL);
		return;
	}
	TAILQ_FOREACH(p, &d->state.pods, link)
	{
		if (!filter_pod(req->filter, p))
			continue;
		fill_pod(&items[resp.n_items], p);
		list[resp.n_items] = &items[resp.n_items];
		resp.n_items++;
	}
	resp.items = list;
	rpc_reply(call, &resp.base);
}

static void fill_image(Cri__ImageSpec *m, const struct container *c)
{
	*m = *c->config->image;
	m->image = c->image_name;
}

struct list_item {
	Cri__Container m;
	Cri__ImageSpec image;
};

static void fill_container(struct list_item *item, struct container *c)
{
	Cri__Container *m = &item->m;

	cri__container__init(m);
	fill_image(&item->image, c);
	m->id = c->id;
	m->pod_sandbox_id = c->pod->id;
	m->metadata = c->config->metadata;
	m->image = &item->image;
	m->image_ref = c->image_id;
	m->image_id = c->image_id;
	m->state = container_cri_state(c);
	m->created_at = c->created_at;
	m->n_labels = c->config->n_labels;
	m->labels = (void *)c->config->labels;
	m->n_annotations = c->config->n_annotations;
	m->annotations = (void *)c->config->annotations;
}

void status_handle_list_containers(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ListContainersRequest *req = (const void *)msg;
	struct huskd *d = arg;
	Cri__ListContainersResponse resp = CRI__LIST_CONTAINERS_RESPONSE__INIT;
	struct container *c;
	struct pod *p;
	size_t max = 1;
	cleanup_free struct list_item *items = NULL;
	cleanup_free Cri__Container **list = NULL;

	TAILQ_FOREACH(p, &d->state.pods, link)
	max += p->n_containers;
	items = calloc(max, sizeof(*items));
	list = calloc(max, sizeof(*list));
	if (!items || !list) {
		rpc_reply_err(call, -ENOMEM, NULL);
		return;
	}
	TAILQ_FOREACH(p, &d->state.pods, link)
	{
		TAILQ_FOREACH(c, &p->containers, link)
		{
			if (!filter_container(req->filter, c))
				continue;
			fill_container(&items[resp.n_containers], c);
			list[resp.n_containers] = &items[resp.n_containers].m;
			resp.n_containers++;
		}
	}
	resp.containers = list;
	rpc_reply(call, &resp.base);
}

/* ---- one pod ---- */

struct pod_query {
	struct pod *pod;
	struct rpc_call *call;
};

#define STATUS_IPS_MAX 8 /* of a pod that are told; two families, mostly */

struct pod_ips {
	char text[STATUS_IPS_MAX][46];
	Cri__PodIP more[STATUS_IPS_MAX], *list[STATUS_IPS_MAX];
};

/* Of a pod that runs; the first is the one that kubelet shows. */
static void fill_network(Cri__PodSandboxNetworkStatus *m, const struct pod *p, struct pod_ips *ips)
{
	struct net_addr a[STATUS_IPS_MAX];
	struct net_view v;
	size_t n;

	if (p->state != POD_READY || !p->huskd->net || net_find(p->huskd->net, p->id, &v) < 0)
		return;
	n = net_addresses(&v, a, STATUS_IPS_MAX);
	for (size_t i = 0; i < n; i++) {
		net_addr_format(&a[i], ips->text[i]);
		cri__pod_ip__init(&ips->more[i]);
		ips->more[i].ip = ips->text[i];
		ips->list[i] = &ips->more[i];
	}
	if (n > 0) {
		m->ip = ips->text[0];
		m->n_additional_ips = n - 1;
		m->additional_ips = &ips->list[1];
	}
}

static void reply_pod(struct rpc_call *call, struct pod *p, const char *info_text)
{
	Cri__PodSandboxStatusResponse resp = CRI__POD_SANDBOX_STATUS_RESPONSE__INIT;
	Cri__PodSandboxStatus m = CRI__POD_SANDBOX_STATUS__INIT;
	Cri__PodSandboxNetworkStatus network = CRI__POD_SANDBOX_NETWORK_STATUS__INIT;
	struct pod_ips ips;
	Cri__LinuxPodSandboxStatus lin = CRI__LINUX_POD_SANDBOX_STATUS__INIT;
	Cri__Namespace ns = CRI__NAMESPACE__INIT;
	Cri__NamespaceOption none = CRI__NAMESPACE_OPTION__INIT;
	Cri__PodSandboxStatusResponse__InfoEntry info =
		CRI__POD_SANDBOX_STATUS_RESPONSE__INFO_ENTRY__INIT;
	Cri__PodSandboxStatusResponse__InfoEntry *infos[] = { &info };
	const Cri__LinuxPodSandboxConfig *l = p->config->linux;

	m.id = p->id;
	m.metadata = p->config->metadata;
	m.state = pod_cri_state(p);
	m.created_at = p->created_at;
	m.network = &network;
	fill_network(&network, p, &ips);
	m.linux = &lin;
	lin.namespaces = &ns;
	ns.options = l && l->security_context && l->security_context->namespace_options
			     ? l->security_context->namespace_options
			     : &none;
	m.n_labels = p->config->n_labels;
	m.labels = (void *)p->config->labels;
	m.n_annotations = p->config->n_annotations;
	m.annotations = (void *)p->config->annotations;
	m.runtime_handler = p->handler;
	resp.status = &m;
	if (info_text) {
		info.key = (char *)"info";
		info.value = (char *)info_text;
		resp.n_info = 1;
		resp.info = infos;
	}
	rpc_reply(call, &resp.base);
}

/* res NULL: there is no shim to ask. */
static void status_on_pod_info(const struct ttrpc_result *res, void *arg)
{
	struct pod_query *q = arg;
	cleanup_free char *bundle = path_pod(q->pod->huskd, q->pod->id), *text = NULL;
	json_t *j =
		json_pack("{s:s, s:s}", "sandboxID", q->pod->id, "runtimeHandler", q->pod->handler);
	struct net_view net;

	if (q->pod->death && j)
		(void)json_object_set_new(j, "reason", json_string(q->pod->death));
	if (bundle && j)
		console_describe(bundle, j);
	if (j && q->pod->huskd->net && net_find(q->pod->huskd->net, q->pod->id, &net) == 0) {
		(void)json_object_set_new(j, "networkNamespace", json_string(net.netns));
		(void)json_object_set_new(j, "cniResult", json_incref((json_t *)net.json));
	}
	if (res && res->code == 0 && j) {
		const Shim__SandboxInfoResponse *m = (const void *)res->resp;
		json_t *more =
			json_pack("{s:i, s:i, s:s, s:s, s:s}", "pid", (int)m->vmm_pid, "qemuPid",
				  (int)m->qemu_pid, "backend", m->backend, "backendReason",
				  m->backend_reason, "guestKernel", m->kernel_release);

		if (more)
			(void)json_object_update(j, more);
		json_decref(more);
	}
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	reply_pod(q->call, q->pod, text);
	pod_unref(q->pod);
	free(q);
}

void status_handle_pod(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__PodSandboxStatusRequest *req = (const void *)msg;
	Shim__SandboxInfoRequest info = SHIM__SANDBOX_INFO_REQUEST__INIT;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct pod *p;
	int r = state_find_pod(&d->state, req->pod_sandbox_id, &p, &err);
	struct pod_query *q;

	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	q = req->verbose ? calloc(1, sizeof(*q)) : NULL;
	if (!q) {
		reply_pod(call, p, NULL);
		return;
	}
	*q = (struct pod_query){ pod_ref(p), call };
	if (!p->shim || ttrpc_client_call(p->shim, SVC_SHIM, "SandboxInfo", &info.base, INFO_MS,
					  status_on_pod_info, q) < 0)
		status_on_pod_info(NULL, q);
}

/* ---- one container ---- */

struct container_query {
	struct container *c;
	struct rpc_call *call;
};

static void reply_container(struct rpc_call *call, struct container *c, const char *info_text)
{
	Cri__ContainerStatusResponse resp = CRI__CONTAINER_STATUS_RESPONSE__INIT;
	Cri__ContainerStatus m = CRI__CONTAINER_STATUS__INIT;
	Cri__ContainerResources resources = CRI__CONTAINER_RESOURCES__INIT;
	Cri__ImageSpec image;
	Cri__ContainerStatusResponse__InfoEntry info =
		CRI__CONTAINER_STATUS_RESPONSE__INFO_ENTRY__INIT;
	Cri__ContainerStatusResponse__InfoEntry *infos[] = { &info };
	cleanup_free char *log = NULL;

	fill_image(&image, c);
	m.id = c->id;
	m.metadata = c->config->metadata;
	m.state = container_cri_state(c);
	m.created_at = c->created_at;
	m.started_at = c->started_at;
	m.finished_at = c->finished_at;
	m.exit_code = c->exit_code;
	m.image = &image;
	m.image_ref = c->image_ref;
	m.image_id = c->image_id;
	m.reason = c->reason;
	m.message = c->message;
	m.n_labels = c->config->n_labels;
	m.labels = (void *)c->config->labels;
	m.n_annotations = c->config->n_annotations;
	m.annotations = (void *)c->config->annotations;
	m.n_mounts = c->config->n_mounts;
	m.mounts = c->config->mounts;
	if (spec_check_log_path(c->pod->config, c->config, &log, NULL) == 0 && log)
		m.log_path = log;
	if (c->config->linux && c->config->linux->resources) {
		resources.linux = c->config->linux->resources;
		m.resources = &resources;
	}
	m.stop_signal = signal_to_cri(c->stop_signal);
	resp.status = &m;
	if (info_text) {
		info.key = (char *)"info";
		info.value = (char *)info_text;
		resp.n_info = 1;
		resp.info = infos;
	}
	rpc_reply(call, &resp.base);
}

static void status_on_container_info(const struct ttrpc_result *res, void *arg)
{
	struct container_query *q = arg;
	struct container *c = q->c;
	cleanup_free char *bundle = path_container(c->pod->huskd, c->id);
	cleanup_free char *file = bundle ? str_fmt("%s/config.json", bundle) : NULL;
	cleanup_free char *spec = NULL, *text = NULL;
	unsigned pid = 0;
	json_t *j;

	if (res && res->code == 0)
		pid = ((const TaskV3__StateResponse *)(const void *)res->resp)->pid;
	j = json_pack("{s:s, s:i, s:s}", "sandboxID", c->pod->id, "pid", (int)pid, "imageID",
		      c->image_id);
	if (j && file && read_file(file, SPEC_JSON_MAX, &spec, NULL, NULL) == 0)
		(void)json_object_set_new(j, "runtimeSpec", json_loads(spec, 0, NULL));
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	reply_container(q->call, c, text);
	container_unref(c);
	free(q);
}

void status_handle_container(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Cri__ContainerStatusRequest *req = (const void *)msg;
	TaskV3__StateRequest state = TASK_V3__STATE_REQUEST__INIT;
	struct huskd *d = arg;
	struct err err = { 0 };
	struct container *c;
	int r = state_find_container(&d->state, req->container_id, &c, &err);
	struct container_query *q;

	if (r < 0) {
		rpc_reply_err(call, r, &err);
		return;
	}
	q = req->verbose ? calloc(1, sizeof(*q)) : NULL;
	if (!q) {
		reply_container(call, c, NULL);
		return;
	}
	*q = (struct container_query){ container_ref(c), call };
	state.id = c->id;
	if (!c->pod->shim || ttrpc_client_call(c->pod->shim, SVC_TASK, "State", &state.base,
					       INFO_MS, status_on_container_info, q) < 0)
		status_on_container_info(NULL, q);
}
