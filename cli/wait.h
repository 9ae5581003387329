/*
 * Waits for a container's exit in a thread of its own, so that its owner can poll for it beside
 * other descriptors. The owner's thread calls everything here.
 */
#ifndef HUSK_CLI_WAIT_H
#define HUSK_CLI_WAIT_H

#include <pthread.h>

#include "base/compiler.h"
#include "base/err.h"
#include "cli/rpc.h"
#include "proto/husk.pb-c.h"

struct waiter {
	struct rpc *rpc;
	char *ct_id;
	int fd; /* eventfd, readable when the fields below are there */
	pthread_t thread;
	/* after waiter_join */
	int result; /* of the call */
	struct err err;
	Husk__WaitContainerResponse *resp; /* owned; result == 0 */
};

/* A waiter that is not joined is left to the end of the program, with its `ct_id`. */
int waiter_new(struct rpc *rpc, const char *ct_id, struct waiter **ret, struct err *err) must_check;
/* When fd is readable, or to wait for that; then waiter_free. */
void waiter_join(struct waiter *w);
void waiter_free(struct waiter *w);

#endif
