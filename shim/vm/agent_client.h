/*
 * The agent's calls (base/proto/agent.proto) with their timeouts, and its event stream, resumed
 * when it breaks. A call that is not answered in time fails alone: what a container does decides
 * how long work takes. Whether the agent lives at all is asked by agent_ping (pod/liveness.h).
 * Loop thread.
 */
#ifndef HUSK_SHIM_VM_AGENT_CLIENT_H
#define HUSK_SHIM_VM_AGENT_CLIENT_H

#include "base/loop.h"
#include "base/ttrpc/ttrpc.h"
#include "proto/agent.pb-c.h"

#define AGENT_BOOT_TIMEOUT_MS 120000u /* boot and CreateSandbox, also on a slow emulator */
#define AGENT_CALL_TIMEOUT_MS 60000u
#define AGENT_SHUTDOWN_TIMEOUT_MS 2000u

struct agent;

struct agent_ops {
	void (*exited)(const Agent__ExitEvent *ev, void *arg);
	void (*oom)(const char *id, void *arg);
	void (*missed)(void *arg); /* events are missing from the stream */
	/* Once: the channel ended, or the agent broke its protocol. Every open call has its error,
	 * or gets it. */
	void (*lost)(const char *why, void *arg);
};

/* Takes fd over, also on failure. Requests may be sent at once, they wait for the guest. */
int agent_new(struct loop *l, int fd, const struct agent_ops *ops, void *arg, struct agent **ret,
	      struct err *err) must_check;
void agent_free(struct agent *a); /* open calls end with -ECANCELED */

/* Starts the event stream; after agent_create_sandbox. */
int agent_events(struct agent *a) must_check;

/* As ttrpc_client_call: exactly one `done` for each that returned 0, never inside. */
int agent_create_sandbox(struct agent *a, const Agent__CreateSandboxRequest *req, ttrpc_done done,
			 void *arg) must_check;
int agent_set_network(struct agent *a, const Agent__SetNetworkRequest *req, ttrpc_done done,
		      void *arg) must_check;
int agent_create_container(struct agent *a, const Agent__CreateContainerRequest *req,
			   ttrpc_done done, void *arg) must_check;
int agent_start_container(struct agent *a, const char *id, ttrpc_done done, void *arg) must_check;
int agent_exec(struct agent *a, const Agent__ExecProcessRequest *req, ttrpc_done done,
	       void *arg) must_check;
int agent_signal(struct agent *a, const char *id, const char *exec_id, uint32_t signal, bool all,
		 ttrpc_done done, void *arg) must_check;
int agent_resize(struct agent *a, const char *id, const char *exec_id, uint32_t width,
		 uint32_t height, ttrpc_done done, void *arg) must_check;
int agent_remove_container(struct agent *a, const char *id, ttrpc_done done, void *arg) must_check;
int agent_list_processes(struct agent *a, const char *id, ttrpc_done done, void *arg) must_check;
int agent_shutdown(struct agent *a, ttrpc_done done, void *arg) must_check;
int agent_ping(struct agent *a, uint64_t timeout_ms, ttrpc_done done, void *arg) must_check;
/* CLOCK_REALTIME of the guest, ns. */
int agent_set_clock(struct agent *a, int64_t realtime_ns, ttrpc_done done, void *arg) must_check;
/* Whether the host is out of room for what containers write. */
int agent_set_disk_room(struct agent *a, bool full, ttrpc_done done, void *arg) must_check;

#endif
