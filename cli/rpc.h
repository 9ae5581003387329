/*
 * The client side of gRPC, as much as a command line needs: blocking calls over a unix socket.
 * The only file of cli/ that knows gRPC. A `struct rpc` may be used by several threads at once.
 */
#ifndef HUSK_CLI_RPC_H
#define HUSK_CLI_RPC_H

#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/compiler.h"
#include "base/err.h"

struct rpc;

/* endpoint: "unix:///path". Does not connect yet. */
int rpc_open(const char *endpoint, struct rpc **ret, struct err *err) must_check;
void rpc_close(struct rpc *rpc); /* NULL is fine */
const char *rpc_endpoint(const struct rpc *rpc);

struct rpc_status {
	int code;      /* gRPC status code */
	int exit_code; /* trailing metadata husk-exit-code, or -1 */
};

/*
 * One call; timeout_ms 0 = no limit. *ret_resp (may be NULL) is of the method's output type,
 * freed by the caller with protobuf_c_message_free_unpacked. `status` may be NULL. Fails with the
 * errno that belongs to the status (base/rpc_code.h) and the server's text.
 */
int rpc_call(struct rpc *rpc, const ProtobufCServiceDescriptor *svc, const char *method,
	     const ProtobufCMessage *req, uint64_t timeout_ms, ProtobufCMessage **ret_resp,
	     struct rpc_status *status, struct err *err) must_check;

/* A server stream: on_msg for each message (negative = cancel and return that), until the end. */
int rpc_stream(struct rpc *rpc, const ProtobufCServiceDescriptor *svc, const char *method,
	       const ProtobufCMessage *req, int (*on_msg)(const ProtobufCMessage *msg, void *arg),
	       void *arg, struct err *err) must_check;

/*
 * A client stream that is answered by a stream. `next` is called for each message to send: 1 with
 * *ret (lent until the next call), 0 at the end, negative to cancel and return that. It is not
 * called any more when the server has had enough. Then on_msg as in rpc_stream.
 */
int rpc_upload(struct rpc *rpc, const ProtobufCServiceDescriptor *svc, const char *method,
	       int (*next)(void *arg, const ProtobufCMessage **ret),
	       int (*on_msg)(const ProtobufCMessage *msg, void *arg), void *arg,
	       struct err *err) must_check;

#endif
