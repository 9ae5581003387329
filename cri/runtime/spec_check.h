/*
 * What a pod or container may not ask for: what Husk cannot honour is refused with -ENOSYS (not
 * yet),
 * -EINVAL (never right) or -EBUSY (the pod was not made for it), never ignored. Input is a hostile
 * client's. Pure functions, no I/O.
 */
#ifndef HUSK_CRI_RUNTIME_SPEC_CHECK_H
#define HUSK_CRI_RUNTIME_SPEC_CHECK_H

#include "base/compiler.h"
#include "base/err.h"
#include "cri/runtime/spec.h"

/* RunPodSandbox: everything that can be said about its configuration before any work. */
int spec_check_pod(const Cri__PodSandboxConfig *c, struct err *err) must_check;
/* CreateContainer: what spec_build does not look at. */
int spec_check_container(const struct spec_input *in, struct err *err) must_check;
/* log_directory/log_path; NULL = no log. -EINVAL: not absolute, or it climbs out by "..". */
int spec_check_log_path(const Cri__PodSandboxConfig *pod, const Cri__ContainerConfig *container,
			char **ret, struct err *err) must_check;

#endif
