/*
 * Attach: a URL for the streams of a container's first process, and what is copied between both
 * once a client has come with it. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_EXEC_ATTACH_H
#define HUSK_CRI_RUNTIME_EXEC_ATTACH_H

#include "base/compiler.h"
#include "cri/rpc/grpc.h"

#define ATTACH_STREAMS_MAX 512u /* clients, of all containers; the shim has a limit for each */
#define ATTACH_MS 10000		/* a call of the shim */

void attach_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
