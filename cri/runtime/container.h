/*
 * The life of a container, as a task of its pod's shim. Loop's thread.
 *
 *	CREATING --Create done--> CREATED --Start--> RUNNING --exit--> EXITED
 *					\--Start failed--------------^
 *
 * One task Wait is open for each running container; its answer is written to memory and database
 * at once. Stopping and removing are joined by later calls for the same container.
 */
#ifndef HUSK_CRI_RUNTIME_CONTAINER_H
#define HUSK_CRI_RUNTIME_CONTAINER_H

#include "cri/huskd.h"
#include "base/ttrpc/ttrpc.h"
#include "cri/runtime/pod.h"

#define CONTAINER_CREATE_MS 60000
#define CONTAINER_START_MS 110000 /* below the two minutes of most clients */
#define CONTAINER_KILL_MS 10000	  /* a Kill call */
#define CONTAINER_DEATH_MS 30000  /* from SIGKILL to the exit */
#define CONTAINER_DELETE_MS 60000
#define CONTAINER_INFO_MS 5000

void container_handle_start(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void container_handle_stop(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void container_handle_remove(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);
void container_handle_reopen_log(struct rpc_call *call, const ProtobufCMessage *msg, void *arg);

/* Exit code of a container whose end was not seen. */
#define EXIT_UNKNOWN 255

/* A call to the task service of its shim, as ttrpc_client_call. -ECONNRESET: there is no shim. */
int container_call(struct container *c, const char *method, const ProtobufCMessage *req,
		   uint64_t timeout_ms, ttrpc_done done, void *arg) must_check;
/* -EBUSY, with the text for a client, unless it runs and its shim can be asked. */
int container_check_running(const struct container *c, struct err *err) must_check;
/* The pod is torn down: what ran is over. */
void container_pod_gone(struct container *c, enum teardown kind);
/* Waits for the exit of a running container (also after a restart of huskd). */
void container_watch(struct container *c);
/* The task has ended with this status: asks the shim for the reason, then container_exited. */
void container_task_exit(struct container *c, uint32_t status, int64_t at);
/* State EXITED in memory and database; waiters are called. Once. finished_at 0 = now. */
void container_exited(struct container *c, int32_t exit_code, int64_t finished_at,
		      const char *reason, const char *message);
/* Record and files; nothing of it may run any more. */
void container_destroy(struct container *c);

#endif
