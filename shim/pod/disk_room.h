/*
 * The guest knows whether the host has room for what containers write to their disks: the monitor
 * sees it, and the agent is told, one call at a time, the last word only. One that fails is sent
 * again with the next beat of liveness.h. Loop thread.
 */
#ifndef HUSK_SHIM_POD_DISK_ROOM_H
#define HUSK_SHIM_POD_DISK_ROOM_H

#include <stdbool.h>

#include "shim/vm/agent_client.h"

/* Embedded in its owner, which outlives the agent. All zero = room, and not started. */
struct disk_room {
	struct agent *agent; /* borrowed; NULL = not started */
	bool full;
	bool told; /* what the agent knows */
	bool sent; /* the answer is due */
	bool sent_full;
};

void disk_room_set(struct disk_room *d, bool full); /* at any time */
void disk_room_start(struct disk_room *d, struct agent *agent);
void disk_room_beat(struct disk_room *d);
void disk_room_stop(struct disk_room *d); /* before the agent is freed; again is fine */

#endif
