/* Calls of husk.v1 for pods and containers: what the `husk` command asks beyond CRI. */
#ifndef HUSK_CRI_RUNTIME_HUSK_RUNTIME_H
#define HUSK_CRI_RUNTIME_HUSK_RUNTIME_H

#include "cri/rpc/grpc.h"

void husk_runtime_handle_times(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_runtime_handle_wait(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
