/* The methods of runtime.v1.RuntimeService. What is not in the table answers UNIMPLEMENTED. */
#ifndef HUSK_CRI_RUNTIME_SERVICE_H
#define HUSK_CRI_RUNTIME_SERVICE_H

#include "cri/rpc/grpc.h"

extern const struct rpc_method runtime_service_methods[]; /* arg = struct huskd */

#endif
