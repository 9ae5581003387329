/*
 * The shim's daemon: one process for one pod. What it consists of, and how its parts hear of each
 * other. Everything runs on one loop; nothing here is shared with another thread.
 */
#ifndef HUSK_SHIM_SHIM_H
#define HUSK_SHIM_SHIM_H

#include <stdbool.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/waits.h"
#include "shim/events.h"
#include "shim/pod/container.h"
#include "shim/pod/sandbox.h"

struct shim {
	struct loop *loop;
	const char *ns, *id;
	const char *bundle; /* absolute; the pod's */
	const char *socket; /* path of the socket */
	struct events *events;
	struct sandbox sandbox;
	struct containers containers;
	bool exiting;		 /* ShutdownSandbox came, or Shutdown */
	struct waits exit_waits; /* run when nothing of the pod runs any more */
	struct ev_timer exit_timer;
};

/* The parts; the loop and the strings are set before. The parts' answers come in shim_fini, so the
 * server of those who ask goes after it. */
void shim_init(struct shim *s, const struct sandbox_setup *setup,
	       const struct container_ops *container_ops);
void shim_fini(struct shim *s);

/* The pod's record of processes (pids.h), anew. */
int shim_record_pids(struct shim *s, struct err *err) must_check;
/* Ends the VM, removes the socket, runs exit_waits, and stops the loop. */
void shim_exit(struct shim *s);
/* A client went away: nothing holds a shim back that has told everybody about its end. */
void shim_on_disconnect(void *arg);

#endif
