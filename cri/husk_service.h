/* The methods of husk.v1, which the `husk` command calls beyond CRI: some are of runtime/, most of
 * images/. */
#ifndef HUSK_CRI_HUSK_SERVICE_H
#define HUSK_CRI_HUSK_SERVICE_H

#include "cri/rpc/grpc.h"

extern const struct rpc_method husk_service_methods[]; /* arg = struct huskd */

#endif
