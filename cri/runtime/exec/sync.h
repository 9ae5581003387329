/*
 * ExecSync: one more process in a container, its output collected from two FIFOs. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_EXEC_SYNC_H
#define HUSK_CRI_RUNTIME_EXEC_SYNC_H

#include "base/compiler.h"
#include "cri/rpc/grpc.h"

#define EXEC_OUTPUT_MAX (16 * MIB) /* each stream, and both together; the rest is dropped */
#define EXEC_MAX 256		   /* at a time */
/* What all of them hold together; beyond it output is dropped, but for the first of each stream, so
 * that no container can make another's probes silent. */
#define EXEC_OUTPUT_TOTAL (64 * MIB)
#define EXEC_OUTPUT_SURE (16 * KIB)
/* After the exit, which the shim reports when all output has come or at the latest after two
 * seconds: how long a stream may be silent, and how long both may go on, when a child left behind
 * has them. */
#define EXEC_SILENCE_MS 300
#define EXEC_DRAIN_MS 10000

void sync_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
