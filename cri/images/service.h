/* The methods of runtime.v1.ImageService, over image/image.h. Loop's thread. */
#ifndef HUSK_CRI_IMAGES_SERVICE_H
#define HUSK_CRI_IMAGES_SERVICE_H

#include "cri/rpc/grpc.h"

extern const struct rpc_method image_service_methods[]; /* arg = struct huskd */

#endif
