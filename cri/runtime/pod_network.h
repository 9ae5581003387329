/*
 * Whether pods get a network, by huskd's network.mode and what is configured. Loop's thread.
 */
#ifndef HUSK_CRI_RUNTIME_POD_NETWORK_H
#define HUSK_CRI_RUNTIME_POD_NETWORK_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/cri.pb-c.h"

struct huskd;

/* Why huskd->net is NULL, for people. */
const char *pod_network_off(const struct huskd *d);
/* With `auto`, pods of a node without a configuration run without a network. */
bool pod_network_wanted(const struct huskd *d);
/* What can be said before any work. -EBUSY. */
int pod_network_check(const struct huskd *d, const Cri__PodSandboxConfig *c,
		      struct err *err) must_check;

#endif
