/*
 * CreateContainer: checks, files, the shim's Create; and the way back when one of them fails.
 * Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_CREATE_H
#define HUSK_CRI_RUNTIME_CREATE_H

#include "cri/rpc/grpc.h"

void create_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
