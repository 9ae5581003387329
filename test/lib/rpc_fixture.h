/* A gRPC server of cri/ on a socket and a thread of its own, for tests. */
#ifndef HUSK_TEST_LIB_RPC_FIXTURE_H
#define HUSK_TEST_LIB_RPC_FIXTURE_H

#include <pthread.h>

#include "base/loop.h"
#include "cri/rpc/grpc.h"

struct rpc_fixture {
	char dir[64], path[96], address[128];
	struct loop *loop; /* of the server's thread */
	const struct rpc_service *services;
	size_t n_services;
	pthread_t thread;
	int ready[2];
	/* Of the test, on the server's thread: before the first call, and after the last. May be
	 * NULL. */
	void (*begin)(struct rpc_fixture *f);
	void (*end)(struct rpc_fixture *f);
};

/* On a path where a server before left its socket. Returns when it listens. */
void rpc_fixture_start(struct rpc_fixture *f, const struct rpc_service *services, size_t n);
/* 0 when nothing of it is left, for cmocka. */
int rpc_fixture_stop(struct rpc_fixture *f);

#endif
