#include "shim/pod/guest_clock.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/util.h"

#define NEVER_S (1ull << 33) /* 272 years after the epoch */

static void guest_clock_on_set(const struct ttrpc_result *res, void *arg);

static void send_time(struct guest_clock *g)
{
	g->again = false;
	g->sent_ns = now_mono_ns();
	g->sent = agent_set_clock(g->agent, now_real_ns(), guest_clock_on_set, g) == 0;
}

static void guest_clock_on_set(const struct ttrpc_result *res, void *arg)
{
	struct guest_clock *g = arg;
	bool late = now_mono_ns() - g->sent_ns > GUEST_CLOCK_LATE_NS;

	g->sent = false;
	/* One that refuses or does not answer is asked again with the next beat. */
	if (g->agent && res->code == 0 && (g->again || (late && ++g->tries < GUEST_CLOCK_TRIES)))
		send_time(g);
}

void guest_clock_set(struct guest_clock *g)
{
	if (!g->agent)
		return;
	g->tries = 0;
	if (g->sent)
		g->again = true;
	else
		send_time(g);
}

/* A timer that never ends, but is cancelled when the clock jumps: also by a resume. */
static int arm(struct guest_clock *g)
{
	const struct itimerspec never = { .it_value.tv_sec = (time_t)NEVER_S };

	return timerfd_settime(g->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0
		       ? -errno
		       : 0;
}

static void guest_clock_on_jump(struct ev_io *io, uint32_t events)
{
	struct guest_clock *g = io->arg;
	uint64_t n;

	if (read(g->fd, &n, sizeof(n)) < 0 && errno == EAGAIN)
		return;
	/* ECANCELED is the news; the timer has to be armed anew for the next one. */
	if (arm(g) < 0)
		ev_io_del(&g->io);
	guest_clock_set(g);
}

int guest_clock_start(struct guest_clock *g, struct loop *loop, struct agent *agent,
		      struct err *err)
{
	int r;

	*g = (struct guest_clock){ .agent = agent };
	g->fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	r = g->fd < 0 ? -errno : arm(g);
	if (r == 0)
		r = ev_io_add(loop, &g->io, g->fd, EPOLLIN, guest_clock_on_jump, g);
	guest_clock_set(g);
	return r < 0 ? err_errno(err, r, "notice of the host's clock") : 0;
}

void guest_clock_stop(struct guest_clock *g)
{
	if (!g->agent)
		return;
	ev_io_del(&g->io);
	fd_close(&g->fd);
	g->agent = NULL;
}
