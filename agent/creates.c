#include "agent/creates.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/container.h"
#include "agent/sandbox.h"
#include "agent/validate.h"
#include "base/util.h"

struct waiting_create {
	struct waiting_create *next;
	struct ttrpc_call *call;
	size_t len;
	uint8_t bytes[];
};

/* The message ends with its handler, so a copy waits, packed. */
static int wait_for_removal(struct agent *a, const Agent__CreateContainerRequest *req,
			    struct ttrpc_call *call, struct err *err)
{
	size_t n = protobuf_c_message_get_packed_size(&req->base);
	struct waiting_create *w, **end = &a->creates;

	w = malloc(sizeof(*w) + n);
	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	w->next = NULL;
	w->call = call;
	w->len = protobuf_c_message_pack(&req->base, w->bytes);
	while (*end)
		end = &(*end)->next;
	*end = w;
	return 0;
}

void creates_handle(struct agent *a, const Agent__CreateContainerRequest *req,
		    struct ttrpc_call *call)
{
	Agent__CreateContainerResponse resp = AGENT__CREATE_CONTAINER_RESPONSE__INIT;
	struct err err = { 0 };
	int r = sandbox_ready(a, &err);

	if (r == 0)
		r = validate_container(req, &err);
	if (r == 0)
		r = container_create(a, req, &err);
	if (r == -EAGAIN) {
		r = wait_for_removal(a, req, call, &err);
		if (r == 0)
			return;
	}
	if (r < 0)
		ttrpc_reply_err(call, r, &err);
	else
		ttrpc_reply(call, &resp.base);
}

void creates_retry(struct agent *a)
{
	struct waiting_create *list = take_ptr(&a->creates), *w;

	while ((w = list)) {
		Agent__CreateContainerRequest *req =
			agent__create_container_request__unpack(NULL, w->len, w->bytes);

		list = w->next;
		if (req)
			creates_handle(a, req, w->call);
		else
			ttrpc_reply_err(w->call, -ENOMEM, NULL);
		if (req)
			agent__create_container_request__free_unpacked(req, NULL);
		free(w);
	}
}

void creates_fini(struct agent *a)
{
	struct waiting_create *w;

	while ((w = a->creates)) {
		a->creates = w->next;
		ttrpc_reply_err(w->call, -ECANCELED, NULL);
		free(w);
	}
}
