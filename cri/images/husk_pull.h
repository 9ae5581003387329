/* husk.v1 PullImage: a pull that tells how far it is. Loop's thread. */
#ifndef HUSK_CRI_IMAGES_HUSK_PULL_H
#define HUSK_CRI_IMAGES_HUSK_PULL_H

#include "cri/rpc/grpc.h"

void husk_pull_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
