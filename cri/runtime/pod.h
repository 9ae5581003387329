/*
 * The life of a pod: starting its shim and VM, and taking both down. Loop's thread.
 *
 *	CREATING --RunPodSandbox done--> READY --stop, or the VM or its shim died--> NOTREADY
 *	CREATING --it failed, and so did taking down what it had made--> NOTREADY
 *
 * Taking down is one machine whatever the cause, and ends with nothing of the pod running:
 * StopSandbox, ShutdownSandbox; where one of them fails, `shim delete`; then the network's DEL.
 */
#ifndef HUSK_CRI_RUNTIME_POD_H
#define HUSK_CRI_RUNTIME_POD_H

#include "cri/huskd.h"
#include "cri/rpc/grpc.h"

#define POD_CREATE_MS 20000
#define POD_START_MS 240000 /* an emulated guest on a busy machine; clients have their own limit */
#define POD_STOP_MS 15000
#define POD_SHUTDOWN_MS 10000
#define POD_STATUS_MS 3000

void pod_handle_run(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void pod_handle_stop(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void pod_handle_remove(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

enum teardown {
	TEARDOWN_STOP,	/* it was asked for */
	TEARDOWN_DIED,	/* VM or shim ended by themselves */
	TEARDOWN_ABORT, /* it never was ready */
};

/*
 * `done` when nothing of the pod runs any more, or with the error that prevented that; a later call
 * tries again. Joins a teardown in progress; called at once when all is down already.
 */
void pod_teardown(struct pod *p, enum teardown kind, wait_fn done, void *arg);
/* Connects to the shim at p->address and waits for the sandbox's end. */
int pod_attach(struct pod *p, struct err *err) must_check;
int pod_watch(struct pod *p, struct err *err) must_check;
/* Removes records and files of a pod that is torn down, with its containers. */
void pod_destroy(struct pod *p);

#endif
