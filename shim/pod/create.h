/*
 * Create of a container: its bundle is read and its files are opened, then the VM has to be there,
 * then each disk gets its window, then the agent sets it up. Loop thread.
 */
#ifndef HUSK_SHIM_POD_CREATE_H
#define HUSK_SHIM_POD_CREATE_H

#include "proto/containerd_task_v2.pb-c.h"
#include "shim/pod/container.h"

/* Exactly one `done`, now or later. When it fails nothing is left. */
void container_create(struct containers *cs, const TaskV2__CreateTaskRequest *req,
		      container_done done, void *arg);

#endif
