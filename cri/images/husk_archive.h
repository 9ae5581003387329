/* husk.v1 SaveImages and LoadImages: archives of images, in chunks. Loop's thread. */
#ifndef HUSK_CRI_IMAGES_HUSK_ARCHIVE_H
#define HUSK_CRI_IMAGES_HUSK_ARCHIVE_H

#include "base/compiler.h"
#include "cri/rpc/grpc.h"

#define HUSK_ARCHIVE_CHUNK_MAX (1 * MIB) /* of one message, both ways */

void husk_archive_handle_save(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void husk_archive_handle_load(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
