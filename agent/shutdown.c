#include "agent/shutdown.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define KILL_PATIENCE_MS 2000

/* Waits until nothing runs in the pod's cgroup any more: the kernel wakes a poll on cgroup.events
 * when they have changed since this descriptor read them. */
static void wait_empty(int pod)
{
	cleanup_fd int fd = openat(pod, "cgroup.events", O_RDONLY | O_CLOEXEC);
	uint64_t end = now_mono_ns() + KILL_PATIENCE_MS * NS_PER_MS, now;
	struct pollfd p = { .fd = fd, .events = POLLPRI };
	char text[128];
	ssize_t n;

	while ((n = pread(fd, text, sizeof(text) - 1, 0)) > 0) {
		text[n] = '\0';
		now = now_mono_ns();
		if (strstr(text, "populated 0") || now >= end)
			return;
		(void)poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1);
	}
}

static int shutdown_work(void *arg)
{
	struct agent *a = arg;
	cleanup_fd int dev = -1;

	if (a->sandboxed) {
		(void)!cgroup_kill(a->cgroups.pod);
		wait_empty(a->cgroups.pod);
	}
	if (disks_open(&a->disks, &dev, NULL) == 0)
		for (size_t i = 0; i < POD_DISKS_MAX; i++)
			if (a->disks.slots[i].refs > 0 && !a->disks.slots[i].readonly)
				(void)!disk_detach(&a->disks, dev, &a->disks.slots[i]);
	/* For the one that is still in use, should there be one. */
	sync();
	return 0;
}

static void shutdown_done(struct worker *w, int result)
{
	struct agent *a = container_of(w, struct agent, end_worker);

	a->cfg.power_off(a->cfg.arg);
}

void agent_shutdown(struct agent *a)
{
	const int keep[] = { a->cgroups.pod };

	if (a->ending)
		return;
	a->ending = true;
	if (worker_start(&a->reaper, &a->end_worker, shutdown_work, a, keep, ARRAY_SIZE(keep),
			 shutdown_done) < 0)
		a->cfg.power_off(a->cfg.arg);
}
