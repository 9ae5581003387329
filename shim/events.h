/*
 * Task events to containerd: containerd.services.events.ttrpc.v1.Events/Forward at TTRPC_ADDRESS,
 * one after the other in the order they were published, each tried EVENTS_TRIES times, over a
 * connection that is made anew when it breaks. Without an address nobody wants them (huskd). Loop
 * thread.
 */
#ifndef HUSK_SHIM_EVENTS_H
#define HUSK_SHIM_EVENTS_H

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/loop.h"

#define EVENTS_QUEUE_MAX 1024u /* the oldest is dropped beyond it */
#define EVENTS_TRIES 6
#define EVENTS_TIMEOUT_MS 5000u
#define EVENTS_RETRY_NS NS_PER_S

struct events;

/* An event was dropped; topic is the one of events_publish. Nothing may be freed. */
typedef void (*events_lost)(const char *topic, const char *why, void *arg);

/* address NULL or "": events go nowhere. Strings are copied. */
int events_new(struct loop *l, const char *address, const char *ns, events_lost lost, void *arg,
	       struct events **ret, struct err *err) must_check;
/* `event` is packed before it returns; its Any type is the message's full name. */
void events_publish(struct events *e, const char *topic, const ProtobufCMessage *event);
bool events_idle(const struct events *e); /* nothing is queued */
void events_free(struct events *e);

#endif
