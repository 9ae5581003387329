/*
 * The tap beside a pod's interface, and the redirection between the two: what comes in by one goes
 * out by the other, before the namespace's own stack sees it. All in the network namespace of the
 * calling thread; calls wait for the kernel (netlink.h). The interface goes with the last
 * descriptor of the tap; the filter on the pod's interface with the namespace, or with the next
 * tap_redirect.
 */
#ifndef HUSK_SHIM_NET_TAP_H
#define HUSK_SHIM_NET_TAP_H

#include <stdint.h>

#include "base/err.h"
#include "base/net/netlink.h"

#define TAP_NAME "husk0"

/* Makes TAP_NAME, up, without addresses. *ret_fd is ready for AttachTap (vmm.proto). */
int tap_make(struct netlink *nl, uint32_t mtu, int *ret_fd, int *ret_index,
	     struct err *err) must_check;
/* Both ways between two interfaces. */
int tap_redirect(struct netlink *nl, int a, int b, struct err *err) must_check;

#endif
