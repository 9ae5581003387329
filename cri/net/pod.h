/*
 * What a pod is to the plug-ins: CNI_ARGS, and the values for capabilities that they may ask for.
 * Leaf functions.
 */
#ifndef HUSK_CRI_NET_POD_H
#define HUSK_CRI_NET_POD_H

#include <jansson.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "proto/cri.pb-c.h"

#define NET_PORTS_MAX 1024u
#define NET_TEXT_MAX 253u /* of a pod's name, namespace, uid */

/* "IgnoreUnknown=1;K8S_POD_NAMESPACE=..."; the caller's. -EINVAL: what cannot be written so. */
int net_pod_args(const char *id, const Cri__PodSandboxConfig *c, char **ret,
		 struct err *err) must_check;
/* {"portMappings": [...], "bandwidth": {...}, ...}; the bandwidth is of the annotations
 * kubernetes.io/{ingress,egress}-bandwidth. */
int net_pod_caps(const Cri__PodSandboxConfig *c, json_t **ret, struct err *err) must_check;
/* Kubernetes' quantities ("10M", "1.5Gi", "2e6") as a whole number, rounded up; -EINVAL where it is
 * none, or not within [min, max]. */
int net_quantity(const char *text, uint64_t min, uint64_t max, uint64_t *ret) must_check;

#endif
