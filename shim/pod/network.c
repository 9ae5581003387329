#include "shim/pod/network.h"

#include <errno.h>

#include "base/util.h"

static void finish(struct pod_network *n, int code, const struct err *err)
{
	if (!n->vm)
		return; /* stopped, or told already */
	n->vm = NULL;
	n->done(code, err, n->arg);
}

static void answered(struct pod_network *n, int code, const struct err *err, const char *what)
{
	struct err why = { 0 };

	if (code < 0) {
		(void)err_set(&why, code, "%s: %s", what, err_text(err));
		finish(n, code, &why);
	} else if (--n->due == 0) {
		finish(n, 0, NULL);
	}
}

static void pod_network_on_attached(int code, const struct err *err, const Vmm__Packet *p,
				    void *arg)
{
	answered(arg, code, err, "attach the tap");
}

static void pod_network_on_set(const struct ttrpc_result *res, void *arg)
{
	answered(arg, res->code, res->err, "in the guest");
}

/* Both go at once: the card has its link when the guest takes it up. */
static int hand_over(struct pod_network *n, int tap, const Agent__Interface *i)
{
	Agent__SetNetworkRequest req = AGENT__SET_NETWORK_REQUEST__INIT;
	struct vmctl *ctl = vm_ctl(n->vm);
	int r = ctl ? vmctl_attach_tap(ctl, tap, pod_network_on_attached, n) : -ECONNRESET;

	if (r < 0)
		return r;
	n->due++;
	req.interface = (Agent__Interface *)i;
	r = agent_set_network(n->agent, &req, pod_network_on_set, n);
	if (r == 0)
		n->due++;
	return r;
}

static void pod_network_on_joined(int code, const struct err *err, int tap,
				  const Agent__Interface *i, void *arg)
{
	struct pod_network *n = arg;
	struct err why = *err; /* the join's own goes with it */
	bool none = code == 0 && !i;
	int r = code;

	if (code == 0 && i) {
		r = hand_over(n, tap, i);
		if (r < 0)
			(void)err_errno(&why, r, "the pod's network");
	}
	fd_close(&tap);
	join_free(take_ptr(&n->join));
	if (r < 0 || none)
		finish(n, r, &why);
}

int pod_network_start(struct pod_network *n, struct loop *loop, const char *netns, struct vm *vm,
		      struct agent *agent, pod_network_done done, void *arg, struct err *err)
{
	int r;

	*n = (struct pod_network){ .vm = vm, .agent = agent, .done = done, .arg = arg };
	r = join_start(loop, netns, pod_network_on_joined, n, &n->join, err);
	if (r < 0)
		n->vm = NULL;
	return r;
}

void pod_network_stop(struct pod_network *n)
{
	n->vm = NULL;
	join_free(take_ptr(&n->join));
}
