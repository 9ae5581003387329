/*
 * The handlers of husk.agent.v1.Agent: check the request, check the state, hand over, answer.
 */
#include "agent/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/clock.h"
#include "agent/container.h"
#include "agent/creates.h"
#include "agent/net/network.h"
#include "agent/sandbox.h"
#include "agent/shutdown.h"
#include "agent/signals.h"
#include "agent/validate.h"
#include "agent/work/pids.h"
#include "base/log.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"

static int find_container(struct agent *a, const char *id, struct container **ret, struct err *err)
{
	int r = sandbox_ready(a, err);

	return r < 0 ? r : container_find(a, id, ret, err);
}

static void refuse(struct ttrpc_call *call, int r, const struct err *err)
{
	log_debug("refused", "err", err_text(err));
	ttrpc_reply_err(call, r, err);
}

static void service_create_sandbox(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__CreateSandboxRequest *req = (const void *)msg;
	Agent__CreateSandboxResponse resp = AGENT__CREATE_SANDBOX_RESPONSE__INIT;
	struct agent *a = arg;
	struct utsname u;
	struct err err = { 0 };
	int r = validate_sandbox(req, &err);

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

static int set_network(struct agent *a, const Agent__SetNetworkRequest *req, struct err *err)
{
	int r = sandbox_ready(a, err);

	if (r < 0)
		return r;
	if (a->networked)
		return err_set(err, -EEXIST, "the network is there already");
	r = network_set(req, err);
	if (r == 0)
		a->networked = true;
	return r;
}

static void service_set_network(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__SetNetworkRequest *req = (const void *)msg;
	Agent__SetNetworkResponse resp = AGENT__SET_NETWORK_RESPONSE__INIT;
	struct err err = { 0 };
	int r = network_validate(req, &err);

	if (r == 0)
		r = set_network(arg, req, &err);
	if (r < 0)
		refuse(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

static void service_create_container(struct ttrpc_call *call, const ProtobufCMessage *msg,
				     void *arg)
{
	const Agent__CreateContainerRequest *req = (const void *)msg;

	creates_handle(arg, req, call);
}

/* ---- processes ---- */

static void service_start_container(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__StartContainerRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r = find_container(arg, req->id, &c, &err);

	if (r == 0)
		r = container_start(c, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

static void service_exec_process(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__ExecProcessRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r = validate_exec(req, &err);

	if (r == 0)
		r = find_container(arg, req->id, &c, &err);
	if (r == 0)
		r = container_exec(c, req, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

static void service_signal_process(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__SignalProcessRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r = find_container(arg, req->id, &c, &err);

	if (r == 0)
		r = signals_send(c, req, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

static void service_resize_tty(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__ResizeTtyRequest *req = (const void *)msg;
	Agent__ResizeTtyResponse resp = AGENT__RESIZE_TTY_RESPONSE__INIT;
	struct container *c;
	struct process *p;
	struct err err = { 0 };
	int r = find_container(arg, req->id, &c, &err);

	if (r == 0)
		r = container_process(c, req->exec_id, &p, &err);
	if (r == 0)
		r = process_resize(p, req->width, req->height, &err);
	if (r < 0)
		refuse(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

static void service_remove_container(struct ttrpc_call *call, const ProtobufCMessage *msg,
				     void *arg)
{
	const Agent__RemoveContainerRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r;

	if (creates_withdraw(arg, req->id, call))
		return;
	r = find_container(arg, req->id, &c, &err);
	if (r == 0)
		r = container_remove(c, req->discard, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

struct listing {
	struct pids pids;
	struct ttrpc_call *call;
};

static void service_on_pids(struct pids *p, int r, const pid_t *list, size_t n,
			    const struct err *err)
{
	struct listing *l = container_of(p, struct listing, pids);
	Agent__ListProcessesResponse resp = AGENT__LIST_PROCESSES_RESPONSE__INIT;

	_Static_assert(sizeof(pid_t) == sizeof(uint32_t), "pids as they are");
	resp.n_pids = n;
	resp.pids = (uint32_t *)list;
	if (r < 0)
		refuse(l->call, r, err);
	else
		ttrpc_reply(l->call, &resp.base);
	free(l);
}

static int list_processes(struct agent *a, const struct container *c, struct ttrpc_call *call,
			  struct err *err)
{
	struct listing *l;
	int r;

	if (c->create)
		return err_set(err, -EBUSY, "container %s is still being created", c->id);
	l = malloc(sizeof(*l));
	if (!l)
		return err_nomem(err);
	l->call = call;
	r = pids_start(&a->reaper, &l->pids, c->cgroup, service_on_pids, err);
	if (r < 0)
		free(l);
	return r;
}

static void service_list_processes(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__ListProcessesRequest *req = (const void *)msg;
	struct container *c;
	struct err err = { 0 };
	int r = find_container(arg, req->id, &c, &err);

	if (r == 0)
		r = list_processes(arg, c, call, &err);
	if (r < 0)
		refuse(call, r, &err);
}

/* ---- the rest ---- */

static void service_events(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__EventsRequest *req = (const void *)msg;
	struct agent *a = arg;

	events_subscribe(&a->events, call, req->after_seq);
}

static void service_ping(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Agent__PingResponse resp = AGENT__PING_RESPONSE__INIT;

	ttrpc_reply(call, &resp.base);
}

static void service_set_clock(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__SetClockRequest *req = (const void *)msg;
	Agent__SetClockResponse resp = AGENT__SET_CLOCK_RESPONSE__INIT;
	struct err err = { 0 };
	int r = clock_follow(req->realtime_ns, &err);

	if (r < 0)
		refuse(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

static void service_set_disk_room(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	const Agent__SetDiskRoomRequest *req = (const void *)msg;
	Agent__SetDiskRoomResponse resp = AGENT__SET_DISK_ROOM_RESPONSE__INIT;
	struct agent *a = arg;
	int r = disks_set_full(&a->disks, req->full);

	if (r < 0)
		ttrpc_reply_err(call, r, NULL);
	else
		ttrpc_reply(call, &resp.base);
}

static void service_shutdown(struct ttrpc_call *call, const ProtobufCMessage *msg, void *arg)
{
	Agent__ShutdownResponse resp = AGENT__SHUTDOWN_RESPONSE__INIT;

	ttrpc_reply(call, &resp.base);
	agent_shutdown(arg);
}

static const struct ttrpc_method methods[] = {
	{ "CreateSandbox", service_create_sandbox },
	{ "SetNetwork", service_set_network },
	{ "CreateContainer", service_create_container },
	{ "StartContainer", service_start_container },
	{ "ExecProcess", service_exec_process },
	{ "SignalProcess", service_signal_process },
	{ "ResizeTty", service_resize_tty },
	{ "RemoveContainer", service_remove_container },
	{ "ListProcesses", service_list_processes },
	{ "Events", service_events, .streams = true },
	{ "Ping", service_ping },
	{ "SetClock", service_set_clock },
	{ "SetDiskRoom", service_set_disk_room },
	{ "Shutdown", service_shutdown },
	{ NULL },
};

void agent_service(struct agent *a, struct ttrpc_service *ret)
{
	*ret = (struct ttrpc_service){ &agent__agent__descriptor, methods, a };
}
