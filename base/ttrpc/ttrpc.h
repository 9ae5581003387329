/*
 * ttrpc: RPC over a stream socket. Client and server on a loop, over the codec of codec.h.
 * Messages are protobuf-c; services are described by the generated ProtobufCServiceDescriptor.
 * Everything here runs on the loop's thread. Outgoing bytes are queued up to TTRPC_QUEUE_MAX; a
 * peer that does not read loses its connection then, it never blocks the loop.
 */
#ifndef HUSK_BASE_TTRPC_TTRPC_H
#define HUSK_BASE_TTRPC_TTRPC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <protobuf-c/protobuf-c.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/rpc_code.h"

#define TTRPC_MESSAGE_MAX (4u << 20) /* payload of one frame */
#define TTRPC_QUEUE_MAX (16u << 20)  /* queued for one peer */
#define TTRPC_STREAM_QUEUE_MAX                                                                     \
	(8u << 20)		     /* queued for one peer, from where on ttrpc_send refuses */
#define TTRPC_CALLS_MAX 1024u	     /* open calls of one connection */
#define TTRPC_SERVER_CALLS_MAX 8192u /* calls of one server whose handler has not answered */
#define TTRPC_CONNS_MAX 256u	     /* connections of one server */

/* ---- server ---- */
struct ttrpc_server;
struct ttrpc_call; /* lives until it is answered; any use after that is a bug (check) */

/* Must lead to exactly one ttrpc_reply* for the call, now or later. `req` is only valid inside. */
typedef void (*ttrpc_handler)(struct ttrpc_call *call, const ProtobufCMessage *req, void *arg);

struct ttrpc_method {
	const char *name; /* as in the .proto file; NULL ends the table */
	ttrpc_handler handler;
	bool streams; /* answers with a stream: ttrpc_send, then ttrpc_reply with NULL */
};

struct ttrpc_service {
	const ProtobufCServiceDescriptor *desc;
	const struct ttrpc_method *methods; /* those that are missing are UNIMPLEMENTED */
	void *arg;			    /* of the handlers */
};

/* `services` must stay valid; a table that names a method twice, or one that its descriptor does
 * not have, is a bug (check). No listener yet. */
int ttrpc_server_new(struct loop *l, const struct ttrpc_service *services, size_t n,
		     struct ttrpc_server **ret, struct err *err) must_check;
/* Serves a connection; takes fd over (also on failure). */
int ttrpc_server_add(struct ttrpc_server *s, int fd) must_check;
/* Accepts connections from a listening socket; takes it over. same_user: others than our uid and
 * root are refused. */
int ttrpc_server_listen(struct ttrpc_server *s, int listen_fd, bool same_user) must_check;
/* Closes every connection. Calls that are open stay valid: their answers go nowhere; answer them
 * before the end. */
void ttrpc_server_free(struct ttrpc_server *s);
/* Called when a connection of the server ends (e.g. the agent lost its host). May be NULL. */
void ttrpc_server_on_disconnect(struct ttrpc_server *s, void (*cb)(void *arg), void *arg);

/* Final answers; each ends the call. A NULL message with ttrpc_reply = empty payload (end of a
 * stream). */
void ttrpc_reply(struct ttrpc_call *call, const ProtobufCMessage *resp);
void ttrpc_reply_err(struct ttrpc_call *call, int code,
		     const struct err *err); /* code: -errno; err may be NULL */
/* With one google.protobuf.Any as detail. */
void ttrpc_reply_status(struct ttrpc_call *call, enum rpc_code code, const char *msg,
			const char *detail_type, const ProtobufCMessage *detail);
/* One message of a server stream. -EPIPE when the client is gone (then reply to end the call),
 * -ENOBUFS when its queue is full, -EMSGSIZE, -EINVAL when the method has no stream. */
int ttrpc_send(struct ttrpc_call *call, const ProtobufCMessage *msg) must_check;
/* Called once if the client goes away or its deadline passes, after this and before the answer; the
 * call must still be answered (it goes nowhere). */
void ttrpc_call_on_cancel(struct ttrpc_call *call, void (*cb)(struct ttrpc_call *, void *arg),
			  void *arg);

/* ---- client ---- */
struct ttrpc_client;

/* Takes fd over (also on failure). on_close is called once when the connection ends by the peer or
 * by an error, after every open call got -ECONNRESET; NULL is fine. */
int ttrpc_client_new(struct loop *l, int fd, void (*on_close)(void *arg), void *arg,
		     struct ttrpc_client **ret, struct err *err) must_check;
/* Open calls end with -ECANCELED; on_close is not called. NULL is fine. Callable from callbacks. */
void ttrpc_client_free(struct ttrpc_client *c);

struct ttrpc_result {
	int code; /* 0 or -errno (rpc_code_to_errno); -ETIMEDOUT, -ECONNRESET, -ECANCELED, -EBADMSG
		     from here */
	enum rpc_code status;
	const struct err *err; /* text when code < 0 */
	const ProtobufCMessage
		*resp; /* code == 0; of the method's output type; freed after the callback */
	const char *detail_type; /* first detail of the status, "" = none; prefix
				    "type.googleapis.com/" cut off */
	const uint8_t *detail;
	size_t detail_len;
};
typedef void (*ttrpc_done)(const struct ttrpc_result *res, void *arg);

/* Exactly one `done` for each call that returned 0, never inside this function. timeout_ms 0 =
 * none. The request (NULL = empty) is serialised before it returns. -EINVAL: no such method, or
 * another message type; -ENOBUFS: queue or calls full; -EMSGSIZE: above TTRPC_MESSAGE_MAX;
 * -ECONNRESET: the connection has ended; -ENOMEM. */
int ttrpc_client_call(struct ttrpc_client *c, const ProtobufCServiceDescriptor *svc,
		      const char *method, const ProtobufCMessage *req, uint64_t timeout_ms,
		      ttrpc_done done, void *arg) must_check;
/* A server stream: `data` for each message, then `done` (resp NULL). */
int ttrpc_client_stream(struct ttrpc_client *c, const ProtobufCServiceDescriptor *svc,
			const char *method, const ProtobufCMessage *req,
			void (*data)(const ProtobufCMessage *msg, void *arg), ttrpc_done done,
			void *arg) must_check;
/* Metadata that goes with every request, e.g. "containerd-namespace-ttrpc". At most 8; strings are
 * copied. */
int ttrpc_client_set_metadata(struct ttrpc_client *c, const char *key,
			      const char *value) must_check;

#endif
