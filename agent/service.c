/*
 * The handlers of husk.agent.v1.Agent: check the request, check the state, hand over, answer.
 */
#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "proto/agent.pb-c.h"
#include "agent/container.h"
#include "agent/sandbox.h"
#include "agent/shutdown.h"
#include "agent/validate.h"
#include "base/log.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"

/* The first word on every request but CreateSandbox and Shutdown. */
static int ready(const struct agent *a, struct err *err)
{
	if (a->ending)
		return err_set(err, -EBUSY, "the guest is shutting down");
	if (!a->sandboxed)
		return err_set(err, -EBUSY, "there is no sandbox yet");
	return 0;
}

static int find(struct agent *a, const char *id, struct container **ret, struct err *err)
{
	int r = ready(a, err);

	return r < 0 ? r : container_find(a, id, ret, err);
}

static void refuse(struct ttrpc_call *call, int r, const struct err *err)
{
	log_debug("refused", "err", err_text(err));
	ttrpc_reply_err(call, r, err);
}

static void create_sandbox(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__CreateSandboxRequest *req = (const void *)msg;
	Agent__CreateSandboxResponse resp = AGENT__CREATE_SANDBOX_RESPONSE__INIT;
	struct agent *a = arg;
	struct utsname u;
	struct err err = { 0 };
	int r = a->ending ? ready(a, &err) : validate_sandbox(req, &err);

	if (r == 0)
		r = sandbox_create(a, req, &err);
	if (r == 0 && uname(&u) < 0)
		r = err_errno(&err, -errno, "uname");
	if (r < 0) {
		refuse(call, r, &err);
		return;
	}
	resp.kernel_release = u.release;
	resp.kernel_version = u.version;
	resp.machine = u.machine;
	resp.ready_ns = a->ready_ns;
	ttrpc_reply(call, &resp.base);
}

/* ---- creating containers ---- */

/* A request that waits until a disk of it has been detached for a container that goes. */
struct waiting_create {
	struct waiting_create *next;
	struct ttrpc_call *call;
	size_t len;
	uint8_t bytes[];
};

static int wait_create(struct agent *a, struct ttrpc_call *call, const ProtobufCMessage *msg,
		       struct err *err)
{
	size_t n = protobuf_c_message_get_packed_size(msg);
	struct waiting_create *w, **end = &a->creates;

	w = malloc(sizeof(*w) + n);
	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	w->next = NULL;
	w->call = call;
	w->len = protobuf_c_message_pack(msg, w->bytes);
	while (*end)
		end = &(*end)->next;
	*end = w;
	return 0;
}

static void create_container(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__CreateContainerRequest *req = (const void *)msg;
	Agent__CreateContainerResponse resp = AGENT__CREATE_CONTAINER_RESPONSE__INIT;
	struct agent *a = arg;
	struct err err = { 0 };
	int r = ready(a, &err);

	if (r == 0)
		r = validate_container(req, &err);
	if (r == 0)
		r = container_create(a, req, &err);
	if (r == -EAGAIN) {
		r = wait_create(a, call, msg, &err);
		if (r == 0)
			return;
	}
	if (r < 0)
		refuse(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

void agent_retry_creates(struct agent *a)
{
	struct waiting_create *list = take_ptr(&a->creates), *w;

	while ((w = list)) {
		Agent__CreateContainerRequest *req =
			agent__create_container_request__unpack(NULL, w->len, w->bytes);

		list = w->next;
		if (req)
			create_container(w->call, &req->base, a);
		else
			ttrpc_reply_err(w->call, -ENOMEM, NULL);
		if (req)
			agent__create_container_request__free_unpacked(req, NULL);
		free(w);
	}
}

/* ---- processes ---- */

static void start_container(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__StartContainerRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r = find(arg, req->id, &c, &err);

	if (r == 0)
		r = container_start(c, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

static void exec_process(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__ExecProcessRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r = validate_exec(req, &err);

	if (r == 0)
		r = find(arg, req->id, &c, &err);
	if (r == 0)
		r = container_exec(c, req, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

static void signal_process(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__SignalProcessRequest *req = (const void *)msg;
	Agent__SignalProcessResponse resp = AGENT__SIGNAL_PROCESS_RESPONSE__INIT;
	struct container *c;
	struct err err = { 0 };
	int r = find(arg, req->id, &c, &err);

	if (r == 0)
		r = container_signal(c, req, &err);
	if (r < 0)
		refuse(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

static void resize_tty(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__ResizeTtyRequest *req = (const void *)msg;
	Agent__ResizeTtyResponse resp = AGENT__RESIZE_TTY_RESPONSE__INIT;
	struct container *c;
	struct process *p;
	struct err err = { 0 };
	int r = find(arg, req->id, &c, &err);

	if (r == 0)
		r = container_process(c, req->exec_id, &p, &err);
	if (r == 0)
		r = process_resize(p, req->width, req->height, &err);
	if (r < 0)
		refuse(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

static void remove_container(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__RemoveContainerRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r = find(arg, req->id, &c, &err);

	if (r == 0)
		r = container_remove(c, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

static void list_processes(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__ListProcessesRequest *req = (const void *)msg;
	Agent__ListProcessesResponse resp = AGENT__LIST_PROCESSES_RESPONSE__INIT;
	cleanup_free pid_t *pids = NULL;
	struct container *c;
	struct err err = { 0 };
	int r = find(arg, req->id, &c, &err);

	_Static_assert(sizeof(pid_t) == sizeof(uint32_t), "pids as they are");
	if (r == 0)
		r = container_pids(c, &pids, &resp.n_pids, &err);
	resp.pids = (uint32_t *)pids;
	if (r < 0)
		refuse(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

/* ---- the rest ---- */

static void events(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__EventsRequest *req = (const void *)msg;
	struct agent *a = arg;

	events_subscribe(&a->events, call, req->after_seq);
}

static void shutdown_guest(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Agent__ShutdownResponse resp = AGENT__SHUTDOWN_RESPONSE__INIT;

	ttrpc_reply(call, &resp.base);
	agent_shutdown(arg);
}

void agent_service(struct agent *a, struct ttrpc_service *ret)
{
	/* In the order of agent.proto. */
	static const ttrpc_handler handlers[] = {
		create_sandbox, create_container, start_container, exec_process, signal_process,
		resize_tty,	remove_container, list_processes,  events,	 shutdown_guest,
	};

	_Static_assert(ARRAY_SIZE(handlers) == 10, "one for each method");
	*ret = (struct ttrpc_service){
		.desc = &agent__agent__descriptor,
		.handlers = handlers,
		.arg = a,
		.server_streaming = 1u << 8, /* Events */
	};
}

/* ---- life ---- */

int agent_init(struct agent *a, struct loop *l, const struct agent_config *cfg, struct err *err)
{
	int r;

	memset(a, 0, sizeof(*a));
	a->cfg = *cfg;
	a->loop = l;
	a->cgroups.pod = a->cgroups.dev_prog = a->cgroups.inotify = -1;
	r = ns_init(&a->pidns, &a->reaper, cfg->run_dir, err);
	if (r < 0) {
		close(cfg->stream_listener);
		return r;
	}
	r = stdio_init(&a->stdio, l, cfg->stream_listener, cfg->vsock, err);
	if (r == 0)
		r = disks_init(&a->disks, cfg->disk, cfg->run_dir, err);
	return r == 0 ? reaper_init(&a->reaper, l, err) : r;
}

void agent_fini(struct agent *a)
{
	while (a->creates) {
		struct waiting_create *w = a->creates;

		a->creates = w->next;
		ttrpc_reply_err(w->call, -ECANCELED, NULL);
		free(w);
	}
	for (size_t i = 0; i < AGENT_CONTAINERS_MAX; i++)
		container_free(a->containers[i]);
	events_fini(&a->events);
	ns_fini(&a->pidns);
	reaper_fini(&a->reaper);
	cgroups_fini(&a->cgroups);
	stdio_fini(&a->stdio);
	disks_fini(&a->disks);
}
