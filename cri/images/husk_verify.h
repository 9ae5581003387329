/* husk.v1 VerifyImages: all damage is reported, what is intact only as progress. Loop's thread. */
#ifndef HUSK_CRI_IMAGES_HUSK_VERIFY_H
#define HUSK_CRI_IMAGES_HUSK_VERIFY_H

#include "cri/rpc/grpc.h"

void husk_verify_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
