/*
 * What a pod's configuration (CRI) means for its VM and for its agent: the size of the VM, the
 * files that all containers see, sysctls. Reads the host's /etc/resolv.conf, nothing else. Any
 * thread.
 */
#ifndef HUSK_SHIM_POD_SANDBOX_CONFIG_H
#define HUSK_SHIM_POD_SANDBOX_CONFIG_H

#include <stdint.h>

#include "base/err.h"
#include "base/pb.h"
#include "proto/agent.pb-c.h"
#include "proto/cri.pb-c.h"
#include "proto/shim.pb-c.h"

#define SANDBOX_VCPUS_DEFAULT 1u
#define SANDBOX_MEMORY_DEFAULT_MIB 256u
#define SANDBOX_MEMORY_MIN_MIB 128u
#define SANDBOX_OVERHEAD_MIB 96u /* of guest kernel and agent, when the pod names none */

/* The request that sets the pod up in the guest, in `a`, without realtime_ns. cfg NULL: a pod of
 * defaults. -ENOBUFS: larger than the arena may be. */
int sandbox_config_request(struct pb_arena *a, const char *id, const Cri__PodSandboxConfig *cfg,
			   const char *hostname, Agent__CreateSandboxRequest **ret,
			   struct err *err) must_check;
/* Options give the size, the pod's own resources (when kubelet tells them) override it. */
void sandbox_config_size(const Shim__Options *opts, const Cri__PodSandboxConfig *cfg,
			 uint32_t *ret_vcpus, uint32_t *ret_memory_mib);
/* oom_score_adj of the VM. True: the pod's own resources say it; false: a guess by the class of
 * service in cgroup_parent, until there are containers. */
bool sandbox_config_oom_score(const Cri__PodSandboxConfig *cfg, int *ret) must_check;

#endif
