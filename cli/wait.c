#include "cli/wait.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"

static void *wait_for_exit(void *arg)
{
	Husk__WaitContainerRequest req = HUSK__WAIT_CONTAINER_REQUEST__INIT;
	struct waiter *w = arg;
	const uint64_t one = 1;

	req.container_id = w->ct_id;
	w->result = rpc_call(w->rpc, &husk__husk__descriptor, "WaitContainer", &req.base, 0,
			     (ProtobufCMessage **)(void *)&w->resp, NULL, &w->err);
	(void)!write(w->fd, &one, sizeof(one));
	return NULL;
}

int waiter_new(struct rpc *rpc, const char *ct_id, struct waiter **ret, struct err *err)
{
	struct waiter *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_nomem(err);
	w->rpc = rpc;
	w->ct_id = strdup(ct_id);
	w->fd = eventfd(0, EFD_CLOEXEC);
	r = !w->ct_id ? -ENOMEM : w->fd < 0 ? -errno : 0;
	if (r == 0)
		r = -pthread_create(&w->thread, NULL, wait_for_exit, w);
	if (r < 0) {
		waiter_free(w);
		return err_errno(err, r, "wait for the container");
	}
	*ret = w;
	return 0;
}

void waiter_join(struct waiter *w)
{
	pthread_join(w->thread, NULL);
}

void waiter_free(struct waiter *w)
{
	fd_close(&w->fd);
	if (w->resp)
		husk__wait_container_response__free_unpacked(w->resp, NULL);
	free(w->ct_id);
	free(w);
}
