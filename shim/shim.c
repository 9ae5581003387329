#include "shim/shim.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "shim/pids.h"

#define CONSOLE_LOGGED 1500		 /* bytes of its end, when a VM has ended by itself */
#define EXIT_LINGER_NS (500 * NS_PER_MS) /* for the last answer and the last events */

int shim_record_pids(struct shim *s, struct err *err)
{
	const struct vm_info *i = &s->sandbox.info;
	bool vm = s->sandbox.vm;
	struct pid_entry list[] = { { "shim", getpid() },
				    { "vmm", vm ? i->pid : 0, i->start },
				    { "qemu", vm ? i->qemu_pid : 0, i->qemu_start } };

	return pids_write(s->bundle, list, ARRAY_SIZE(list), err);
}

/* ---- the end ---- */

static void shim_on_exit_timer(struct ev_timer *t)
{
	struct shim *s = t->arg;

	loop_stop(s->loop, 0);
}

void shim_on_disconnect(void *arg)
{
	struct shim *s = arg;

	/* The client has its answer. */
	if (s->exiting && s->sandbox.state == SB_STOPPED && events_idle(s->events))
		loop_stop(s->loop, 0);
}

/* Nothing of the pod runs any more. */
static void finish(struct shim *s)
{
	(void)unlink(s->socket);
	waits_run(&s->exit_waits, 0, NULL);
	if (ev_timer_add(s->loop, &s->exit_timer, EXIT_LINGER_NS, shim_on_exit_timer, s) < 0)
		loop_stop(s->loop, 0);
}

void shim_exit(struct shim *s)
{
	bool again = s->exiting;

	s->exiting = true;
	if (again && s->sandbox.state == SB_STOPPED)
		waits_run(&s->exit_waits, 0, NULL);
	else if (!again && sandbox_end(&s->sandbox))
		finish(s);
}

/* ---- what the sandbox says ---- */

static void shim_on_exited(const Agent__ExitEvent *ev, void *arg)
{
	struct shim *s = arg;

	containers_exited(&s->containers, ev);
}

static void shim_on_oom(const char *id, void *arg)
{
	struct shim *s = arg;

	containers_oom(&s->containers, id);
}

static void shim_on_ready(void *arg)
{
	const struct shim *s = arg;

	log_info("pod is up", "backend", s->sandbox.info.backend);
}

static void shim_on_died(uint32_t status, const char *why, void *arg)
{
	struct shim *s = arg;
	const struct console *console = s->sandbox.console;

	if (*why)
		log_error("the VM ended", "why", why, "console",
			  console ? console_tail(console, CONSOLE_LOGGED) : "");
	containers_died(&s->containers, status, why);
}

static void shim_on_ended(void *arg)
{
	struct shim *s = arg;

	if (s->exiting)
		finish(s);
}

static void shim_on_pids_changed(void *arg)
{
	struct shim *s = arg;
	struct err err = { 0 };

	if (shim_record_pids(s, &err) < 0)
		log_warn("record of processes", "err", err_text(&err));
}

static void shim_on_trouble(const char *what, const struct err *err, void *arg)
{
	log_limited(LOG_WARN, "trouble that the pod survives", "what", what, "err",
		    err ? err_text(err) : "");
}

/* What it says is the monitor's word: cut, and not too often. */
static void shim_on_disk_room(const Vmm__DiskRoom *room, void *arg)
{
	char text[300];

	if (!room->full) {
		log_limited(LOG_INFO, "the host's disk has room again: containers can write");
		return;
	}
	(void)snprintf(text, sizeof(text), "%.200s: %llu MiB are free, %llu have to stay free",
		       room->file, (unsigned long long)(room->free / MIB),
		       (unsigned long long)(room->least / MIB));
	log_limited(
		LOG_WARN,
		"the host's disk is full: containers that write get ENOSPC until there is room; "
		"remove containers or images (husk rm, husk rmi, husk prune), or make room",
		"disk", text);
}

void shim_init(struct shim *s, const struct sandbox_setup *setup,
	       const struct container_ops *container_ops)
{
	static const struct sandbox_ops ops = {
		.exited = shim_on_exited,
		.oom = shim_on_oom,
		.ready = shim_on_ready,
		.died = shim_on_died,
		.ended = shim_on_ended,
		.pids_changed = shim_on_pids_changed,
		.disk_room = shim_on_disk_room,
		.trouble = shim_on_trouble,
	};

	sandbox_init(&s->sandbox, s->loop, setup, &ops, s);
	containers_init(&s->containers, s->loop, &s->sandbox, container_ops, s);
}

void shim_fini(struct shim *s)
{
	/* Answers that are due come from the sandbox's end, while containers are still there. */
	sandbox_fini(&s->sandbox);
	containers_fini(&s->containers);
	waits_run(&s->exit_waits, -ECANCELED, NULL);
	ev_timer_del(&s->exit_timer);
}
