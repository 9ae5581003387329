/*
 * vminitd: PID 1 of the guest, alone in its initramfs. The order of the start: listen for streams,
 * begin to connect the channel, set up the guest while the host answers, serve. When the channel is
 * lost the guest powers off: a VM never outlives its shim.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/boot.h"
#include "agent/channel.h"
#include "agent/service.h"
#include "base/log.h"
#include "base/ttrpc/ttrpc.h"
#include "base/util.h"

struct guest {
	struct agent agent;
	struct ttrpc_server *server;
	struct ttrpc_service service;
	struct ev_io channel;
};

static void main_power_off(void *arg)
{
	boot_power_off();
}

static noreturn_fn void give_up(const char *what, const struct err *err)
{
	log_error(what, "err", err_text(err));
	boot_power_off();
}

static void main_on_lost(void *arg)
{
	struct guest *g = arg;

	/* During a shutdown the host may hang up first; the disks are still being written back. */
	if (!g->agent.ending)
		boot_power_off();
}

static void main_on_connected(struct ev_io *io, uint32_t events)
{
	struct guest *g = io->arg;
	struct err err = { 0 };
	int fd = io->fd, r = channel_result(fd);

	if (r < 0) {
		err_errno(&err, r, "connect to the host");
		give_up("channel", &err);
	}
	ev_io_del(io);
	r = ttrpc_server_add(g->server, fd);
	if (r < 0) {
		err_errno(&err, r, "serve");
		give_up("channel", &err);
	}
}

static int main_serve(struct guest *g, struct loop *loop, int channel, int streams, struct err *err)
{
	const struct agent_config cfg = {
		.run_dir = BOOT_RUN_DIR,
		.cgroup_dir = BOOT_CGROUP_DIR,
		.disk = BOOT_DISK,
		.stream_listener = streams,
		.vsock = true,
		.set_defaults = boot_set_defaults,
		.power_off = main_power_off,
	};
	int r = agent_init(&g->agent, loop, &cfg, err);

	if (r < 0)
		return r;
	agent_service(&g->agent, &g->service);
	r = ttrpc_server_new(loop, &g->service, 1, &g->server, err);
	if (r < 0)
		return r;
	ttrpc_server_on_disconnect(g->server, main_on_lost, g);
	r = ev_io_add(loop, &g->channel, channel, EPOLLOUT, main_on_connected, g);
	if (r < 0)
		return err_errno(err, r, "channel");
	g->agent.ready_ns = (int64_t)now_mono_ns();
	return loop_run(loop);
}

int main(void)
{
	static struct guest g;
	struct err err = { 0 };
	struct loop *loop;
	int streams = -1, channel = -1, r;

	if (getpid() != 1) {
		log_init("vminitd", STDERR_FILENO, LOG_INFO, false);
		log_error("vminitd is the init process of Husk's guests and runs as PID 1 only");
		return 1;
	}
	log_init("vminitd", STDERR_FILENO, LOG_WARN, false);
	signal(SIGPIPE, SIG_IGN);
	r = channel_listen(&streams);
	if (r == 0)
		r = channel_connect(&channel);
	if (r < 0) {
		err_errno(&err, r, "vsock");
		give_up("channel", &err);
	}
	r = boot_set_up(&err);
	if (r == 0)
		r = loop_new(&loop, &err);
	if (r == 0)
		r = main_serve(&g, loop, channel, streams, &err);
	if (r < 0)
		give_up("start", &err);
	boot_power_off();
}
