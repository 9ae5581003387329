#include "shim/vm/agent_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"

#define RESUME_DELAY_NS (100 * NS_PER_MS)
#define RESUMES_MAX 50 /* in a row without one event */

struct agent {
	struct loop *loop;
	struct ttrpc_client *client;
	const struct agent_ops *ops;
	void *arg;
	uint64_t seq; /* last event seen */
	int resumes;
	struct ev_timer resume_timer;
	struct ev_timer lost_timer;
	bool lost;
	char why[200];
};

/* A call in flight: the owner's callback behind the check for an agent that is gone. */
struct pending {
	struct agent *agent;
	ttrpc_done done;
	void *arg;
};

static void agent_on_lost_timer(struct ev_timer *t)
{
	struct agent *a = t->arg;

	a->ops->lost(a->why, a->arg);
}

/* Told from a fresh round of the loop: the owner may free the agent then. */
static void set_lost(struct agent *a, const char *why)
{
	if (a->lost)
		return;
	a->lost = true;
	(void)snprintf(a->why, sizeof(a->why), "%s", why);
	ev_timer_del(&a->resume_timer);
	if (ev_timer_add(a->loop, &a->lost_timer, 0, agent_on_lost_timer, a) < 0)
		a->ops->lost(a->why, a->arg);
}

static void agent_on_close(void *arg)
{
	set_lost(arg, "the agent's channel ended");
}

int agent_new(struct loop *l, int fd, const struct agent_ops *ops, void *arg, struct agent **ret,
	      struct err *err)
{
	struct agent *a = calloc(1, sizeof(*a));
	int r;

	if (!a) {
		fd_close(&fd);
		return err_nomem(err);
	}
	*a = (struct agent){ .loop = l, .ops = ops, .arg = arg };
	r = ttrpc_client_new(l, fd, agent_on_close, a, &a->client, err);
	if (r < 0) {
		free(a);
		return err_wrap(err, r, "agent client");
	}
	*ret = a;
	return 0;
}

void agent_free(struct agent *a)
{
	if (!a)
		return;
	a->lost = true; /* calls that end now tell nobody */
	ttrpc_client_free(a->client);
	ev_timer_del(&a->resume_timer);
	ev_timer_del(&a->lost_timer);
	free(a);
}

/* ---- events ---- */

static void agent_on_event(const ProtobufCMessage *msg, void *arg)
{
	const Agent__Event *ev = (const Agent__Event *)msg;
	struct agent *a = arg;

	if (ev->seq <= a->seq)
		return; /* sent again after a resume */
	if (ev->seq != a->seq + 1)
		a->ops->missed(a->arg);
	a->seq = ev->seq;
	a->resumes = 0;
	if (ev->event_case == AGENT__EVENT__EVENT_EXIT)
		a->ops->exited(ev->exit, a->arg);
	else if (ev->event_case == AGENT__EVENT__EVENT_OOM)
		a->ops->oom(ev->oom->id, a->arg);
}

static void agent_on_resume_timer(struct ev_timer *t)
{
	struct agent *a = t->arg;

	if (agent_events(a) < 0)
		set_lost(a, "the agent's event stream cannot be resumed");
}

static void agent_on_events_end(const struct ttrpc_result *res, void *arg)
{
	struct agent *a = arg;

	if (a->lost)
		return;
	if (res->code == -ENOSYS || res->code == -EINVAL || ++a->resumes > RESUMES_MAX) {
		set_lost(a, "the agent's event stream cannot be resumed");
		return;
	}
	if (ev_timer_add(a->loop, &a->resume_timer, RESUME_DELAY_NS, agent_on_resume_timer, a) < 0)
		set_lost(a, "out of memory");
}

int agent_events(struct agent *a)
{
	Agent__EventsRequest req = AGENT__EVENTS_REQUEST__INIT;

	req.after_seq = a->seq;
	return ttrpc_client_stream(a->client, &agent__agent__descriptor, "Events", &req.base,
				   agent_on_event, agent_on_events_end, a);
}

/* ---- calls ---- */

static void agent_on_done(const struct ttrpc_result *res, void *arg)
{
	struct pending *p = arg;

	/* Neither is an answer that the agent ever gives: whoever gives it is not to be trusted
	 * with a pod. */
	if (res->code == -ECONNRESET || res->code == -ECANCELED)
		set_lost(p->agent, "the agent's channel ended");
	p->done(res, p->arg);
	free(p);
}

static int call(struct agent *a, const char *method, const ProtobufCMessage *req,
		uint64_t timeout_ms, ttrpc_done done, void *arg)
{
	struct pending *p;
	int r;

	if (a->lost)
		return -ECONNRESET;
	p = malloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct pending){ .agent = a, .done = done, .arg = arg };
	r = ttrpc_client_call(a->client, &agent__agent__descriptor, method, req, timeout_ms,
			      agent_on_done, p);
	if (r < 0)
		free(p);
	return r;
}

int agent_create_sandbox(struct agent *a, const Agent__CreateSandboxRequest *req, ttrpc_done done,
			 void *arg)
{
	return call(a, "CreateSandbox", &req->base, AGENT_BOOT_TIMEOUT_MS, done, arg);
}

/* Waits for the boot, as agent_create_sandbox does. */
int agent_set_network(struct agent *a, const Agent__SetNetworkRequest *req, ttrpc_done done,
		      void *arg)
{
	return call(a, "SetNetwork", &req->base, AGENT_BOOT_TIMEOUT_MS, done, arg);
}

int agent_create_container(struct agent *a, const Agent__CreateContainerRequest *req,
			   ttrpc_done done, void *arg)
{
	return call(a, "CreateContainer", &req->base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_start_container(struct agent *a, const char *id, ttrpc_done done, void *arg)
{
	Agent__StartContainerRequest req = AGENT__START_CONTAINER_REQUEST__INIT;

	req.id = (char *)id;
	return call(a, "StartContainer", &req.base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_exec(struct agent *a, const Agent__ExecProcessRequest *req, ttrpc_done done, void *arg)
{
	return call(a, "ExecProcess", &req->base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_signal(struct agent *a, const char *id, const char *exec_id, uint32_t signal, bool all,
		 ttrpc_done done, void *arg)
{
	Agent__SignalProcessRequest req = AGENT__SIGNAL_PROCESS_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.signal = signal;
	req.all = all;
	return call(a, "SignalProcess", &req.base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_resize(struct agent *a, const char *id, const char *exec_id, uint32_t width,
		 uint32_t height, ttrpc_done done, void *arg)
{
	Agent__ResizeTtyRequest req = AGENT__RESIZE_TTY_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.width = width;
	req.height = height;
	return call(a, "ResizeTty", &req.base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_remove_container(struct agent *a, const char *id, ttrpc_done done, void *arg)
{
	Agent__RemoveContainerRequest req = AGENT__REMOVE_CONTAINER_REQUEST__INIT;

	req.id = (char *)id;
	/* A scratch disk lives as long as its container. */
	req.discard = true;
	return call(a, "RemoveContainer", &req.base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_list_processes(struct agent *a, const char *id, ttrpc_done done, void *arg)
{
	Agent__ListProcessesRequest req = AGENT__LIST_PROCESSES_REQUEST__INIT;

	req.id = (char *)id;
	return call(a, "ListProcesses", &req.base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_shutdown(struct agent *a, ttrpc_done done, void *arg)
{
	Agent__ShutdownRequest req = AGENT__SHUTDOWN_REQUEST__INIT;

	return call(a, "Shutdown", &req.base, AGENT_SHUTDOWN_TIMEOUT_MS, done, arg);
}

int agent_ping(struct agent *a, uint64_t timeout_ms, ttrpc_done done, void *arg)
{
	Agent__PingRequest req = AGENT__PING_REQUEST__INIT;

	return call(a, "Ping", &req.base, timeout_ms, done, arg);
}

int agent_set_clock(struct agent *a, int64_t realtime_ns, ttrpc_done done, void *arg)
{
	Agent__SetClockRequest req = AGENT__SET_CLOCK_REQUEST__INIT;

	req.realtime_ns = realtime_ns;
	return call(a, "SetClock", &req.base, AGENT_CALL_TIMEOUT_MS, done, arg);
}

int agent_set_disk_room(struct agent *a, bool full, ttrpc_done done, void *arg)
{
	Agent__SetDiskRoomRequest req = AGENT__SET_DISK_ROOM_REQUEST__INIT;

	req.full = full;
	return call(a, "SetDiskRoom", &req.base, AGENT_CALL_TIMEOUT_MS, done, arg);
}
