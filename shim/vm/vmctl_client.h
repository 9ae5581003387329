/*
 * Client of the monitor's control socket (base/proto/vmm.proto): one SEQPACKET packet a message,
 * descriptors beside it, answers in order. A request that is not answered in time fails alone, and
 * its answer is dropped when it comes; whether the monitor lives at all is asked by vmctl_ping
 * (pod/liveness.h). Loop thread.
 *
 * Descriptors given to a request are borrowed: they are sent (or duplicated) before it returns.
 */
#ifndef HUSK_SHIM_VM_VMCTL_CLIENT_H
#define HUSK_SHIM_VM_VMCTL_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/loop.h"
#include "proto/vmm.pb-c.h"

#define VMCTL_REQUESTS_MAX 4096u /* unanswered */
#define VMCTL_TIMEOUT_MS 20000u
#define VMCTL_BOOT_TIMEOUT_MS 60000u

struct vmctl;

struct vmctl_ops {
	/* AgentConnected, Ended or DiskRoom. */
	void (*event)(const Vmm__Packet *p, void *arg);
	/* The connection is unusable: end of file, or a packet that breaks the protocol. Every open
	 * request has got its error before; nothing more comes. */
	void (*closed)(int code, const struct err *err, void *arg);
};

/* code 0, or -errno with text. `p` is the answer, NULL unless one came. */
typedef void (*vmctl_done)(int code, const struct err *err, const Vmm__Packet *p, void *arg);

/* Takes fd over, also on failure. */
int vmctl_new(struct loop *l, int fd, const struct vmctl_ops *ops, void *arg, struct vmctl **ret,
	      struct err *err) must_check;
/* Open requests end with -ECANCELED; `closed` is not called. NULL is fine; not in a callback of
 * this client. */
void vmctl_free(struct vmctl *v);

/* Takes what is in the socket now, e.g. the last words of a monitor that has just been reaped. */
void vmctl_drain(struct vmctl *v);

/* Exactly one `done` for each that returned 0, never inside. `done` may be NULL. -ENOBUFS when too
 * many are open, -ECONNRESET after `closed`. */
int vmctl_boot(struct vmctl *v, const Vmm__Boot *boot, int agent_fd, int console_fd,
	       vmctl_done done, void *arg) must_check; /* console_fd -1 = none */
int vmctl_map(struct vmctl *v, uint64_t first, uint64_t sectors, bool readonly, int fd,
	      vmctl_done done, void *arg) must_check;
/* Has no time limit: whoever unmaps must know when the sectors are free. */
int vmctl_unmap(struct vmctl *v, uint64_t first, vmctl_done done, void *arg) must_check;
int vmctl_connect(struct vmctl *v, uint32_t port, int fd, vmctl_done done, void *arg) must_check;
/* The guest's network card gets the tap, and a link. Before and after the boot. */
int vmctl_attach_tap(struct vmctl *v, int tap, vmctl_done done, void *arg) must_check;
int vmctl_kill(struct vmctl *v, vmctl_done done, void *arg) must_check;
int vmctl_info(struct vmctl *v, vmctl_done done, void *arg) must_check;
/* An Info with a time limit of its own. */
int vmctl_ping(struct vmctl *v, uint64_t timeout_ms, vmctl_done done, void *arg) must_check;

#endif
