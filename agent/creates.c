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
	struct agent *agent;
	struct ttrpc_call *call;
	Agent__CreateContainerRequest *req; /* owned: the message itself ends with its handler */
};

/* Out of the list, and freed: its call is the caller's now. */
static void waiting_free(struct waiting_create *w)
{
	struct waiting_create **at = &w->agent->creates;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	ttrpc_call_on_cancel(w->call, NULL, NULL);
	agent__create_container_request__free_unpacked(w->req, NULL);
	free(w);
}

/* Nobody waits for the answer any more, so nobody would ever remove what it makes. */
static void creates_on_cancel(struct ttrpc_call *call, void *arg)
{
	waiting_free(arg);
	ttrpc_reply_err(call, -ECANCELED, NULL);
}

static int wait_for_disks(struct agent *a, const Agent__CreateContainerRequest *req,
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
	*w = (struct waiting_create){ .agent = a, .call = call, .req = copy };
	while (*end)
		end = &(*end)->next;
	*end = w;
	ttrpc_call_on_cancel(call, creates_on_cancel, w);
	return 0;
}

void creates_handle(struct agent *a, const Agent__CreateContainerRequest *req,
		    struct ttrpc_call *call)
{
	struct err err = { 0 };
	int r = sandbox_ready(a, &err);

	if (r == 0)
		r = validate_container(req, &err);
	if (r == 0)
		r = container_create(a, req, call, &err);
	if (r == -EAGAIN)
		r = wait_for_disks(a, req, call, &err);
	if (r < 0) {
		log_debug("refused", "err", err_text(&err));
		ttrpc_reply_err(call, r, &err);
	}
}

void creates_retry(struct agent *a)
{
	size_t n = 0;

	for (const struct waiting_create *w = a->creates; w; w = w->next)
		n++;
	/* Those that wait on come to the end of the list again, in their order. An answer may end
	 * the connection, and with it all that is in the list. */
	for (; n > 0 && a->creates; n--) {
		Agent__CreateContainerRequest *req = a->creates->req;
		struct ttrpc_call *call = a->creates->call;

		a->creates->req = NULL;
		waiting_free(a->creates);
		creates_handle(a, req, call);
		agent__create_container_request__free_unpacked(req, NULL);
	}
}

bool creates_withdraw(struct agent *a, const char *id, struct ttrpc_call *remove)
{
	Agent__RemoveContainerResponse resp = AGENT__REMOVE_CONTAINER_RESPONSE__INIT;
	uint64_t sectors[CONTAINER_LOWERS_MAX + 1];
	struct waiting_create *w = a->creates;
	struct container *other;
	struct ttrpc_call *call;
	struct err err = { 0 };

	if (container_find(a, id, &other, NULL) == 0)
		return false;
	while (w && !str_eq(w->req->id, id))
		w = w->next;
	if (!w)
		return false;
	call = w->call;
	resp.n_detached_disks = disks_unknown(&a->disks, w->req->rootfs, sectors);
	resp.detached_disks = sectors;
	waiting_free(w);
	ttrpc_reply_err(call, err_set(&err, -ECANCELED, "the container was removed"), &err);
	ttrpc_reply(remove, &resp.base);
	return true;
}

void creates_fini(struct agent *a)
{
	while (a->creates) {
		struct ttrpc_call *call = a->creates->call;

		waiting_free(a->creates);
		ttrpc_reply_err(call, -ECANCELED, NULL);
	}
}
