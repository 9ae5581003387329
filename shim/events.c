#include "shim/events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"
#include "proto/containerd_events_ttrpc.pb-c.h"

struct event {
	struct event *next;
	const char *topic;     /* literal */
	const char *type_name; /* of a static descriptor */
	int64_t real_ns;
	int tries;
	size_t len;
	uint8_t bytes[];
};

struct events {
	struct loop *loop;
	char *address, *ns;
	struct ttrpc_client *client;
	struct event *head, **tail;
	size_t n;
	bool sending; /* the first one is on its way */
	struct ev_timer timer;
	events_lost lost;
	void *arg;
};

static void send_first(struct events *e);

int events_new(struct loop *l, const char *address, const char *ns, events_lost lost, void *arg,
	       struct events **ret, struct err *err)
{
	struct events *e = calloc(1, sizeof(*e));

	if (!e)
		return err_nomem(err);
	e->loop = l;
	e->tail = &e->head;
	e->lost = lost;
	e->arg = arg;
	if (!str_empty(address)) {
		e->address = strdup(address);
		e->ns = strdup(ns);
		if (!e->address || !e->ns) {
			events_free(e);
			return err_nomem(err);
		}
	}
	*ret = e;
	return 0;
}

static void drop_first(struct events *e)
{
	struct event *ev = e->head;

	e->head = ev->next;
	if (!e->head)
		e->tail = &e->head;
	e->n--;
	free(ev);
}

static void events_on_timer(struct ev_timer *t)
{
	send_first(t->arg);
}

static void again_later(struct events *e)
{
	struct event *ev = e->head;

	if (++ev->tries >= EVENTS_TRIES) {
		e->lost(ev->topic, "the receiver does not take it", e->arg);
		drop_first(e);
	}
	/* Without memory for a timer the next event brings them along. */
	if (e->head)
		(void)!ev_timer_add(e->loop, &e->timer, EVENTS_RETRY_NS, events_on_timer, e);
}

static void events_on_close(void *arg)
{
	struct events *e = arg;

	ttrpc_client_free(e->client);
	e->client = NULL;
}

static void events_on_sent(const struct ttrpc_result *res, void *arg)
{
	struct events *e = arg;

	e->sending = false;
	if (res->code == -ECANCELED)
		return; /* being freed */
	if (res->code < 0) {
		log_debug("event", "topic", e->head->topic, "err", err_text(res->err));
		again_later(e);
		return;
	}
	drop_first(e);
	send_first(e);
}

static int connect_client(struct events *e)
{
	int fd = -1, r;

	if (e->client)
		return 0;
	r = unix_connect(e->address, &fd, NULL);
	if (r == 0)
		r = ttrpc_client_new(e->loop, fd, events_on_close, e, &e->client, NULL);
	if (r == 0)
		r = ttrpc_client_set_metadata(e->client, "containerd-namespace-ttrpc", e->ns);
	return r;
}

static void send_first(struct events *e)
{
	EventsTtrpc__ForwardRequest req = EVENTS_TTRPC__FORWARD_REQUEST__INIT;
	Types__Envelope env = TYPES__ENVELOPE__INIT;
	Wkt__Timestamp ts = WKT__TIMESTAMP__INIT;
	Wkt__Any any = WKT__ANY__INIT;
	struct event *ev = e->head;
	int r;

	if (!ev || e->sending)
		return;
	r = connect_client(e);
	if (r < 0) {
		again_later(e);
		return;
	}
	ts.seconds = ev->real_ns / (int64_t)NS_PER_S;
	ts.nanos = (int32_t)(ev->real_ns % (int64_t)NS_PER_S);
	any.type_url = (char *)ev->type_name;
	any.value.data = ev->bytes;
	any.value.len = ev->len;
	env.timestamp = &ts;
	env.namespace_ = e->ns;
	env.topic = (char *)ev->topic;
	env.event = &any;
	req.envelope = &env;
	r = ttrpc_client_call(e->client, &events_ttrpc__events__descriptor, "Forward", &req.base,
			      EVENTS_TIMEOUT_MS, events_on_sent, e);
	if (r < 0)
		again_later(e);
	else
		e->sending = true;
}

void events_publish(struct events *e, const char *topic, const ProtobufCMessage *event)
{
	struct event *ev;

	if (!e->address)
		return;
	if (e->n == EVENTS_QUEUE_MAX) {
		/* The first may be on its way; then it is the second that goes. */
		struct event **p = e->sending ? &e->head->next : &e->head, *old = *p;

		e->lost(old->topic, "too many wait", e->arg);
		*p = old->next;
		e->n--;
		free(old);
	}
	ev = malloc(sizeof(*ev) + protobuf_c_message_get_packed_size(event));
	if (!ev) {
		e->lost(topic, "out of memory", e->arg);
		return;
	}
	*ev = (struct event){ .topic = topic,
			      .type_name = event->descriptor->name,
			      .real_ns = now_real_ns() };
	ev->len = protobuf_c_message_pack(event, ev->bytes);
	*e->tail = ev;
	e->tail = &ev->next;
	e->n++;
	if (!e->timer.loop)
		send_first(e);
}

bool events_idle(const struct events *e)
{
	return e->n == 0;
}

void events_free(struct events *e)
{
	if (!e)
		return;
	ev_timer_del(&e->timer);
	ttrpc_client_free(e->client);
	while (e->head)
		drop_first(e);
	free(e->address);
	free(e->ns);
	free(e);
}
