/* Calls of husk.v1 for images that are here: list, inspect, tag, remove, disk usage, prune. */
#ifndef HUSK_CRI_IMAGES_HUSK_IMAGES_H
#define HUSK_CRI_IMAGES_HUSK_IMAGES_H

#include "cri/rpc/grpc.h"

void husk_images_handle_list(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_images_handle_inspect(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_images_handle_tag(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_images_handle_remove(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_images_handle_usage(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_images_handle_prune(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
