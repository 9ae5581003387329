/* husk.v1 PushImage and CheckLogin: calls to a registry with a user's credentials. Loop's
 * thread. */
#ifndef HUSK_CRI_IMAGES_HUSK_PUSH_H
#define HUSK_CRI_IMAGES_HUSK_PUSH_H

#include "cri/rpc/grpc.h"

void husk_push_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_push_handle_login(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
