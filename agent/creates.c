#include "agent/creates.h"

#include <errno.h>
#include <stdlib.h>

#include "agent/container.h"
#include "agent/sandbox.h"
#include "agent/validate.h"
#include "base/log.h"
#include "base/pb.h"
#include "base/util.h"

struct waiting_create {
	struct waiting_create *next;
	struct ttrpc_call *call;
	Agent__CreateContainerRequest *req; /* owned: the message itself ends with its handler */
};

static int wait_for_removal(struct agent *a, const Agent__CreateContainerRequest *req,
			    struct ttrpc_call *call, struct err *err)
{
	struct waiting_create *w = malloc(sizeof(*w)), **end = &a->creates;
	Agent__CreateContainerRequest *copy = (void *)pb_clone(&req->base);

	if (!w || !copy) {
		free(w);
		if (copy)
			agent__create_container_request__free_unpacked(copy, NULL);
		return err_nomem(err);
	}
	*w = (struct waiting_create){ .call = call, .req = copy };
	while (*end)
		end = &(*end)->next;
	*end = w;
	return 0;
}

static void waiting_free(struct waiting_create *w)
{
	agent__create_container_request__free_unpacked(w->req, NULL);
	free(w);
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
	if (r < 0) {
		log_debug("refused", "err", err_text(&err));
		ttrpc_reply_err(call, r, &err);
	} else {
		ttrpc_reply(call, &resp.base);
	}
}

void creates_retry(struct agent *a)
{
	struct waiting_create *list = take_ptr(&a->creates), *w;

	while ((w = list)) {
		list = w->next;
		creates_handle(a, w->req, w->call);
		waiting_free(w);
	}
}

void creates_fini(struct agent *a)
{
	struct waiting_create *w;

	while ((w = a->creates)) {
		a->creates = w->next;
		ttrpc_reply_err(w->call, -ECANCELED, NULL);
		waiting_free(w);
	}
}
