#include "shim/pod/hostgroup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "shim/cgroup.h"

#define REMOVE_EVERY_NS (20 * NS_PER_MS)
#define REMOVE_TRIES 100u
#define FINI_TRIES 25u

static uint64_t limit_of(uint32_t memory_mib, uint32_t more_mib)
{
	return (memory_mib + memory_mib / 128 + (uint64_t)more_mib) * MIB;
}

/* A group without a limit still ends as one. */
static void set_limit(const struct hostgroup *g, uint32_t more_mib)
{
	struct err err = { 0 };

	if (cgroup_limit_memory(g->path, limit_of(g->memory_mib, more_mib), &err) < 0)
		log_debug("no memory limit for the pod", "err", err_text(&err));
}

static void forget(struct hostgroup *g)
{
	ev_timer_del(&g->timer);
	free_ptr(&g->path);
	free_ptr(&g->record);
}

int hostgroup_make(struct hostgroup *g, struct loop *l, const char *parent, const char *id,
		   const char *record, uint32_t memory_mib, struct err *err)
{
	int r;

	*g = (struct hostgroup){ .loop = l, .memory_mib = memory_mib };
	r = cgroup_path(parent, id, limit_of(memory_mib, HOSTGROUP_QEMU_MIB), &g->path, err);
	if (r < 0)
		return r;
	g->record = strdup(record);
	r = g->record ? write_file_atomic(record, g->path, strlen(g->path), 0600, false, err)
		      : err_nomem(err);
	if (r == 0)
		r = cgroup_make(g->path, err);
	if (r < 0) {
		forget(g);
		return r;
	}
	set_limit(g, HOSTGROUP_QEMU_MIB);
	return 0;
}

void hostgroup_set_backend(struct hostgroup *g, const char *backend)
{
	if (g->path && str_eq(backend, "kvm"))
		set_limit(g, HOSTGROUP_KVM_MIB);
}

/* True: it is gone, or nothing more can be done. */
static bool try_remove(struct hostgroup *g)
{
	int r = cgroup_remove(g->path);

	if (r == -EBUSY) {
		(void)!cgroup_kill(g->path); /* QEMU dies with the monitor, a moment later */
		return false;
	}
	if (r < 0)
		log_debug("the pod's cgroup stays", "err", strerror(-r));
	else
		(void)unlink(g->record);
	forget(g);
	return true;
}

static void hostgroup_on_timer(struct ev_timer *t)
{
	hostgroup_end(t->arg);
}

void hostgroup_end(struct hostgroup *g)
{
	if (g->path && !try_remove(g) && ++g->tries < REMOVE_TRIES)
		(void)!ev_timer_add(g->loop, &g->timer, REMOVE_EVERY_NS, hostgroup_on_timer, g);
}

void hostgroup_fini(struct hostgroup *g)
{
	ev_timer_del(&g->timer);
	/* The shim ends here, and nothing waits for its loop. */
	for (unsigned i = 0; i < FINI_TRIES && g->path && !try_remove(g); i++)
		(void)usleep(REMOVE_EVERY_NS / 1000);
	forget(g);
}
