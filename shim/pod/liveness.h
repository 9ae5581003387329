/*
 * Does the pod's VM still live? Two peers are asked, each by a request that only its own loop
 * answers: the guest's agent (Ping) and the monitor (Info). Nothing that a container does or a
 * slow disk holds up decides over a pod's life, and a guest that hangs is noticed when nobody
 * wants anything from it, too.
 *
 * Both are asked once a period. A question that is not answered in time is lost, and the next one
 * follows at once; after LIVENESS_LOST_MAX lost ones in a row the peer is dead. Each is sent after
 * the one before was given up, and time is CLOCK_MONOTONIC: so a host that slept, or one that was
 * stopped or starved for a while, loses one question at most. Loop thread.
 */
#ifndef HUSK_SHIM_POD_LIVENESS_H
#define HUSK_SHIM_POD_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "shim/vm/agent_client.h"
#include "shim/vm/vm.h"

#define LIVENESS_PERIOD_MS 30000u
#define LIVENESS_TIMEOUT_MS 20000u /* of one question */
#define LIVENESS_LOST_MAX 3u

struct liveness_times {
	uint64_t period_ms, timeout_ms;
};

struct liveness_ops {
	void (*beat)(void *arg); /* once a period, when both are asked: for what comes along */
	/* Once: "agent died: no answer for 60 s". Nothing is asked any more. */
	void (*dead)(const char *why, void *arg);
};

struct liveness_peer {
	struct liveness *owner;
	bool asked; /* the answer is due */
	unsigned lost;
	uint64_t since_ns; /* when the first of the lost ones was sent */
};

/* Embedded in its owner, which outlives the agent and the VM: answers come until they are freed. */
struct liveness {
	struct loop *loop;
	struct liveness_times times;
	struct agent *agent; /* borrowed; NULL = stopped */
	struct vm *vm;	     /* borrowed */
	const struct liveness_ops *ops;
	void *arg;
	struct liveness_peer guest, monitor;
	struct ev_timer timer;
};

/* times NULL = those above. Asks for the first time after one period. */
void liveness_start(struct liveness *l, struct loop *loop, const struct liveness_times *times,
		    struct agent *agent, struct vm *vm, const struct liveness_ops *ops, void *arg);
void liveness_stop(struct liveness *l); /* before agent and VM are freed; again is fine */

#endif
