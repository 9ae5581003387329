#include "shim/pod/liveness.h"

#include <errno.h>
#include <stdio.h>

#include "base/util.h"

static void ask(struct liveness_peer *p);

static void dead(struct liveness *l, const struct liveness_peer *p)
{
	unsigned long long s = (now_mono_ns() - p->since_ns) / NS_PER_S;
	bool guest = p == &l->guest;
	char why[80];

	/* Through a monitor that is silent no agent can answer. */
	if (l->monitor.lost + 1 >= LIVENESS_LOST_MAX)
		guest = false;
	(void)snprintf(why, sizeof(why), "%s died: no answer for %llu s",
		       guest ? "agent" : "monitor", s);
	liveness_stop(l);
	l->ops->dead(why, l->arg);
}

/* code: of the answer. Any answer is a sign of life, also "no such method". */
static void answered(struct liveness_peer *p, int code)
{
	struct liveness *l = p->owner;

	p->asked = false;
	if (!l->agent || code == -ECANCELED || code == -ECONNRESET)
		return; /* it is gone, and its end is told by others */
	if (code != -ETIMEDOUT)
		p->lost = 0;
	else if (++p->lost < LIVENESS_LOST_MAX)
		ask(p);
	else
		dead(l, p);
}

static void liveness_on_agent(const struct ttrpc_result *res, void *arg)
{
	answered(arg, res->code);
}

static void liveness_on_monitor(int code, const struct err *err, const Vmm__Packet *packet,
				void *arg)
{
	answered(arg, code);
}

static void ask(struct liveness_peer *p)
{
	struct liveness *l = p->owner;
	struct vmctl *ctl = vm_ctl(l->vm);
	int r;

	if (p->asked)
		return;
	if (!p->lost)
		p->since_ns = now_mono_ns();
	if (p == &l->guest)
		r = agent_ping(l->agent, l->times.timeout_ms, liveness_on_agent, p);
	else
		r = ctl ? vmctl_ping(ctl, l->times.timeout_ms, liveness_on_monitor, p) : -ENOTCONN;
	/* Not sent: the next period tries again. */
	p->asked = r == 0;
}

static void liveness_on_timer(struct ev_timer *t)
{
	struct liveness *l = t->arg;

	ask(&l->guest);
	ask(&l->monitor);
	/* Without memory for a timer nobody asks any more; calls still have their own limits. */
	(void)!ev_timer_add(l->loop, &l->timer, l->times.period_ms * NS_PER_MS, liveness_on_timer,
			    l);
	l->ops->beat(l->arg);
}

void liveness_start(struct liveness *l, struct loop *loop, const struct liveness_times *times,
		    struct agent *agent, struct vm *vm, const struct liveness_ops *ops, void *arg)
{
	static const struct liveness_times normal = { LIVENESS_PERIOD_MS, LIVENESS_TIMEOUT_MS };

	*l = (struct liveness){ .loop = loop,
				.times = times ? *times : normal,
				.agent = agent,
				.vm = vm,
				.ops = ops,
				.arg = arg };
	l->guest.owner = l->monitor.owner = l;
	(void)!ev_timer_add(loop, &l->timer, l->times.period_ms * NS_PER_MS, liveness_on_timer, l);
}

void liveness_stop(struct liveness *l)
{
	ev_timer_del(&l->timer);
	l->agent = NULL;
}
