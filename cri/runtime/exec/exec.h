/*
 * Exec: a URL for a command in a container, and the command once a client has come with it. Loop's
 * thread.
 */
#ifndef HUSK_CRI_RUNTIME_EXEC_EXEC_H
#define HUSK_CRI_RUNTIME_EXEC_EXEC_H

#include "base/compiler.h"
#include "cri/rpc/grpc.h"

/* Commands with a client, beside those of ExecSync: people and their terminals do not keep out
 * probes. */
#define EXEC_STREAMS_MAX 512u
/* Arguments behind URLs that nobody took yet, of all of them. */
#define EXEC_WAITING_MAX (16 * MIB)

void exec_handle(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

#endif
