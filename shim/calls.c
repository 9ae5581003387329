#include "shim/calls.h"

#include <errno.h>
#include <stdlib.h>

struct call_node {
	struct call_node *next;
	struct calls *list;
	struct ttrpc_call *call;
};

static void on_cancel(struct ttrpc_call *call, void *arg)
{
	struct call_node *n = arg, **p = &n->list->head;

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	ttrpc_reply_err(call, -ECANCELED, NULL);
	free(n);
}

void calls_add(struct calls *list, struct ttrpc_call *call)
{
	struct call_node *n = malloc(sizeof(*n));

	if (!n) {
		ttrpc_reply_err(call, -ENOMEM, NULL);
		return;
	}
	*n = (struct call_node){ .next = list->head, .list = list, .call = call };
	list->head = n;
	ttrpc_call_on_cancel(call, on_cancel, n);
}

void calls_reply(struct calls *list, const ProtobufCMessage *msg, int code, const struct err *err)
{
	struct call_node *n;

	while ((n = list->head)) {
		list->head = n->next;
		if (msg)
			ttrpc_reply(n->call, msg);
		else
			ttrpc_reply_err(n->call, code, err);
		free(n);
	}
}
