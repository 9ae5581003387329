#include "agent/agent.h"

#include <string.h>
#include <unistd.h>

#include "agent/container.h"
#include "agent/creates.h"

int agent_init(struct agent *a, struct loop *l, const struct agent_config *cfg, struct err *err)
{
	int r;

	memset(a, 0, sizeof(*a));
	a->cfg = *cfg;
	a->loop = l;
	a->on_memory_event = container_on_memory_event;
	a->on_settled = creates_retry;
	a->cgroups.pod = a->cgroups.dev_prog = a->cgroups.inotify = -1;
	r = ns_init(&a->pidns, &a->reaper, cfg->run_dir, err);
	if (r < 0) {
		close(cfg->stream_listener);
		return r;
	}
	r = stdio_init(&a->stdio, l, cfg->stream_listener, cfg->vsock, err);
	if (r == 0)
		r = disks_init(&a->disks, cfg->disk, cfg->run_dir, err);
	return r == 0 ? reaper_init(&a->reaper, l, err) : r;
}

void agent_fini(struct agent *a)
{
	creates_fini(a);
	for (size_t i = 0; i < POD_CONTAINERS_MAX; i++)
		container_free(a->containers[i]);
	events_fini(&a->events);
	ns_fini(&a->pidns);
	reaper_fini(&a->reaper);
	cgroups_fini(&a->cgroups);
	stdio_fini(&a->stdio);
	disks_fini(&a->disks);
}
