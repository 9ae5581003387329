/*
 * The pod's cgroup over the pod's life (cgroup.h does the work): made before its VM, gone after it.
 * Its path is recorded in the bundle before it is there, for `delete`. Loop thread.
 */
#ifndef HUSK_SHIM_POD_HOSTGROUP_H
#define HUSK_SHIM_POD_HOSTGROUP_H

#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

/* What a VM takes on the host beyond its memory: programs, page tables (1/128), and for QEMU the
 * code that it translates (its tb-size) and itself. Measured: monitor 2 MiB, QEMU 83 MiB idle. The
 * host's cache of the pod's disks counts, too: it is given up before anybody is killed, but a pod
 * that writes must have some. */
#define HOSTGROUP_KVM_MIB 256u
#define HOSTGROUP_QEMU_MIB 512u

/* Embedded in its owner, all zero = none. */
struct hostgroup {
	struct loop *loop;
	char *path;   /* owned; NULL = none */
	char *record; /* owned; file in the bundle */
	uint32_t memory_mib;
	struct ev_timer timer;
	unsigned tries;
};

/* memory_mib: of the VM. On failure the pod has none. -EOPNOTSUPP: the host has none. */
int hostgroup_make(struct hostgroup *g, struct loop *l, const char *parent, const char *id,
		   const char *record, uint32_t memory_mib, struct err *err) must_check;
/* The limit for what runs the VM now is known. */
void hostgroup_set_backend(struct hostgroup *g, const char *backend);
/* The VM is gone: removes it, now or when the last process has been reaped by whoever has it. */
void hostgroup_end(struct hostgroup *g);
void hostgroup_fini(struct hostgroup *g);

#endif
