/*
 * The container's view of its file system, put together below the root mount before the child moves
 * in: mounts, /dev, masked and read-only paths, the terminal. Runs in the child, in the container's
 * namespaces, with the agent's own file system still visible.
 */
#ifndef HUSK_AGENT_ROOTFS_MOUNTS_H
#define HUSK_AGENT_ROOTFS_MOUNTS_H

#include "proto/agent.pb-c.h"
#include "base/compiler.h"
#include "base/err.h"

struct tty {
	int master, slave;
};

/* `root` is the root mount's descriptor. Where the process wants a terminal it is made, too: it is
 * /dev/console then. */
int mounts_set_up(int root, const char *run_dir, const Agent__CreateContainerRequest *spec,
		  struct tty *ret_tty, struct err *err) must_check;
/* A new terminal of the devpts instance below `root`. */
int tty_open(int root, struct tty *ret, struct err *err) must_check;
/* Makes `root` the root of this mount namespace and lets go of the old one. */
int mounts_enter(int root, struct err *err) must_check;

#endif
