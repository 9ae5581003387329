/*
 * The gRPC server of huskd, on a unix socket. The only file that knows gRPC C core.
 *
 * One thread waits on the completion queue and posts to the loop; handlers, callbacks and every
 * function below run on the loop's thread. Services are described by protobuf-c descriptors; a
 * method without a handler answers UNIMPLEMENTED.
 */
#ifndef HUSK_CRI_RPC_GRPC_H
#define HUSK_CRI_RPC_GRPC_H

#include <stdbool.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/limits.h" /* RPC_MESSAGE_MAX */
#include "base/loop.h"
#include "base/rpc_code.h"

#define RPC_CALLS_MAX 1024u    /* open calls; more wait inside gRPC */
#define RPC_STREAMS_MAX 256    /* open calls of one connection */
#define RPC_METADATA_MAX 16384 /* bytes of headers of one call */

struct rpc_server;
struct rpc_call; /* lives until it is answered; the pointer is dead after that */

/* Must lead to exactly one rpc_reply* for the call, now or later. `req` lives until then. */
typedef void (*rpc_handler)(struct rpc_call *call, const ProtobufCMessage *req, void *arg);

struct rpc_method {
	const char *name; /* as in the .proto file; NULL ends the table */
	rpc_handler handler;
	bool streams;  /* answers with rpc_send before rpc_reply */
	bool receives; /* the client sends a stream: the handler gets its first message */
};

struct rpc_service {
	const ProtobufCServiceDescriptor *desc;
	const struct rpc_method *methods;
	void *arg;
	/* Appended to the UNIMPLEMENTED answer of methods that are not in `methods`. */
	const char *unimplemented;
};

/* `services` must stay valid. Not listening yet. -EINVAL: a table names an unknown method. */
int rpc_server_new(struct loop *l, const struct rpc_service *services, size_t n,
		   struct rpc_server **ret, struct err *err) must_check;
/* Accepts connections from a listening socket, which it takes over (also on failure). */
int rpc_server_listen(struct rpc_server *s, int listen_fd, struct err *err) must_check;
/*
 * Ends every call and the thread. Calls that are open get their on_cancel callback, as if the
 * client had gone, and must be answered then or never. NULL is fine. Runs rounds of the loop.
 */
void rpc_server_free(struct rpc_server *s);

/* Final answers: exactly one for each call, which it ends. A second one ends huskd. A NULL message
 * is an empty answer, or the end of a stream. */
void rpc_reply(struct rpc_call *call, const ProtobufCMessage *resp);
/* code: -errno, mapped by rpc_code_of_errno; err may be NULL. */
void rpc_reply_err(struct rpc_call *call, int code, const struct err *err);
void rpc_reply_status(struct rpc_call *call, enum rpc_code code, const char *msg);
/* As a wait_fn (base/waits.h) whose arg is the call: an empty answer, or the error. */
void rpc_reply_done(void *call, int code, const struct err *err);
/* A key and value in the trailing metadata of the answer; one per call, a later one replaces it. */
void rpc_set_trailer(struct rpc_call *call, const char *key, const char *value);
/*
 * One message of a server stream. -EAGAIN while the one before is still on its way (try again with
 * a newer one), -EPIPE when the client is gone.
 */
int rpc_send(struct rpc_call *call, const ProtobufCMessage *msg) must_check;
/* A message is on its way: rpc_send would give -EAGAIN. */
bool rpc_sending(const struct rpc_call *call);
/* Called once, when the message of the last rpc_send is on its way: there is room for another one.
 * Not called any more once the call is answered or cancelled. */
void rpc_on_sent(struct rpc_call *call, void (*cb)(struct rpc_call *, void *arg), void *arg);
/*
 * Asks for the next message of a client's stream; until then the client waits. `cb` is called once,
 * never inside rpc_recv: with a message, valid during the callback; with code 0 and NULL at the end
 * of the stream; with a negative code when it cannot be read, after which no more can come. Not
 * called any more once the call is answered or cancelled. A client that goes away may first look as
 * if it had ended its stream: messages must say which one is the last.
 */
typedef void (*rpc_recv_fn)(struct rpc_call *call, int code, const ProtobufCMessage *msg,
			    void *arg);
void rpc_recv(struct rpc_call *call, rpc_recv_fn cb, void *arg);
/* Called once if the client goes away before the answer, also when it has gone already; never
 * inside. The call must still be answered. */
void rpc_on_cancel(struct rpc_call *call, void (*cb)(struct rpc_call *, void *arg), void *arg);
bool rpc_cancelled(const struct rpc_call *call);
/* Name of the method, for the log. */
const char *rpc_method_name(const struct rpc_call *call);

#endif
