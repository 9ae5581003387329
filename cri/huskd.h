/* The daemon: what its parts share. Made by main.c, handed to every handler. Loop's thread. */
#ifndef HUSK_CRI_HUSKD_H
#define HUSK_CRI_HUSKD_H

#include "base/compiler.h"
#include "base/err.h"
#include "cri/runtime/backend.h"
#include "cri/config.h"
#include "cri/rpc/grpc.h"
#include "cri/store/state.h"

struct image_store;

struct huskd {
	struct loop *loop;
	struct config config;
	struct db *db;
	struct state state;
	struct image_store *images;
	struct rpc_server *rpc;
	struct backend backend;
	unsigned execs; /* running ExecSync calls */
	bool stopping;
};

/* ---- where things are; the caller frees, NULL without memory ---- */
char *path_pod(const struct huskd *d, const char *pod_id);	  /* bundle */
char *path_container(const struct huskd *d, const char *id);	  /* bundle */
char *path_container_data(const struct huskd *d, const char *id); /* <root>: scratch disk */
char *path_exec(const struct huskd *d, const char *exec_id);	  /* FIFOs */

/* ---- method tables, for main.c ---- */
extern const struct rpc_method runtime_methods[]; /* runtime/service.c; arg = struct huskd */
extern const struct rpc_method image_methods[];	  /* images/service.c */
extern const struct rpc_method husk_methods[];	  /* husk_service.c */

/* ---- handlers, by file ---- */
#define HANDLER(name) void name(struct rpc_call *call, const ProtobufCMessage *msg, void *arg)
/* pod.c */
HANDLER(pod_handle_run);
HANDLER(pod_handle_stop);
HANDLER(pod_handle_remove);
/* container.c */
HANDLER(container_handle_create);
HANDLER(container_handle_start);
HANDLER(container_handle_stop);
HANDLER(container_handle_remove);
HANDLER(container_handle_reopen_log);
HANDLER(container_handle_wait); /* husk.v1 */
/* exec.c */
HANDLER(exec_handle_sync);
/* status.c */
HANDLER(status_handle_version);
HANDLER(status_handle_status);
HANDLER(status_handle_runtime_config);
HANDLER(status_handle_update_runtime_config);
HANDLER(status_handle_list_pods);
HANDLER(status_handle_pod);
HANDLER(status_handle_list_containers);
HANDLER(status_handle_container);

/* recover.c: every record against its shim; `done` once all have answered, or the time is up. */
int recover_start(struct huskd *d, void (*done)(struct huskd *d), struct err *err) must_check;

#endif
