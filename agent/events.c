#include "agent/events.h"

#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "proto/agent.pb-c.h"

const struct event *events_next(const struct events *e, uint64_t after)
{
	uint64_t oldest = e->last >= AGENT_EVENTS_KEPT ? e->last - AGENT_EVENTS_KEPT + 1 : 1;
	uint64_t seq;

	if (after >= e->last)
		return NULL;
	seq = after + 1 > oldest ? after + 1 : oldest;
	return &e->ring[seq % AGENT_EVENTS_KEPT];
}

static int send_event(struct ttrpc_call *call, const struct event *ev)
{
	Agent__Event msg = AGENT__EVENT__INIT;
	Agent__ExitEvent exit_ev = AGENT__EXIT_EVENT__INIT;
	Agent__OomEvent oom = AGENT__OOM_EVENT__INIT;

	msg.seq = ev->seq;
	if (ev->oom) {
		oom.id = (char *)ev->id;
		msg.event_case = AGENT__EVENT__EVENT_OOM;
		msg.oom = &oom;
	} else {
		exit_ev.id = (char *)ev->id;
		exit_ev.exec_id = (char *)ev->exec_id;
		exit_ev.pid = ev->pid;
		exit_ev.exit_status = ev->exit_status;
		exit_ev.exited_at_ns = ev->exited_at_ns;
		exit_ev.oom_killed = ev->oom_killed;
		msg.event_case = AGENT__EVENT__EVENT_EXIT;
		msg.exit = &exit_ev;
	}
	return ttrpc_send(call, &msg.base);
}

static void drop_sub(struct events *e, struct ttrpc_call *call)
{
	size_t i = 0;

	while (i < e->n_subs && e->subs[i] != call)
		i++;
	check(i < e->n_subs);
	e->subs[i] = e->subs[--e->n_subs];
}

int events_add(struct events *e, const struct event *ev)
{
	struct event *slot;

	if (!e->ring) {
		e->ring = calloc(AGENT_EVENTS_KEPT, sizeof(*e->ring));
		if (!e->ring)
			return -ENOMEM;
	}
	slot = &e->ring[(e->last + 1) % AGENT_EVENTS_KEPT];
	*slot = *ev;
	slot->seq = ++e->last;
	for (size_t i = 0; i < e->n_subs;) {
		struct ttrpc_call *call = e->subs[i];
		int r = send_event(call, slot);

		if (r == 0) {
			i++;
			continue;
		}
		/* It does not read, or is gone: it can come back with the last number it saw. */
		drop_sub(e, call);
		ttrpc_call_on_cancel(call, NULL, NULL);
		ttrpc_reply_err(call, r, NULL);
	}
	return 0;
}

static void events_on_cancel(struct ttrpc_call *call, void *arg)
{
	drop_sub(arg, call);
	ttrpc_reply_err(call, -ECANCELED, NULL);
}

void events_subscribe(struct events *e, struct ttrpc_call *call, uint64_t after)
{
	struct err err = { 0 };
	int r = 0;

	if (after > e->last)
		r = err_set(&err, -EINVAL, "after_seq: event %llu has not happened yet",
			    (unsigned long long)after);
	else if (e->n_subs == AGENT_SUBSCRIBERS_MAX)
		r = err_set(&err, -ENOBUFS, "events: %u streams are open already",
			    AGENT_SUBSCRIBERS_MAX);
	for (const struct event *ev; r == 0 && (ev = events_next(e, after)); after = ev->seq)
		r = send_event(call, ev);
	if (r < 0) {
		ttrpc_reply_err(call, r, &err);
		return;
	}
	e->subs[e->n_subs++] = call;
	ttrpc_call_on_cancel(call, events_on_cancel, e);
}

void events_fini(struct events *e)
{
	while (e->n_subs > 0) {
		struct ttrpc_call *call = e->subs[--e->n_subs];

		ttrpc_call_on_cancel(call, NULL, NULL);
		ttrpc_reply(call, NULL);
	}
	free(e->ring);
	e->ring = NULL;
}
