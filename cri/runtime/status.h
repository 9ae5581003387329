/* The lists and states of pods and containers, as CRI shows them. Changes nothing. */
#ifndef HUSK_CRI_RUNTIME_STATUS_H
#define HUSK_CRI_RUNTIME_STATUS_H

#include "cri/rpc/grpc.h"

void status_handle_list_pods(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void status_handle_pod(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void status_handle_list_containers(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void status_handle_container(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
