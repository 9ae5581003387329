/*
 * What device nodes a container may open: a small BPF program on its cgroup, as cgroup v2 has no
 * file for it. Any node may be made (CAP_MKNOD decides), but only the standard ones can be opened;
 * /dev/vda, with the disks of all containers of the pod, cannot.
 */
#ifndef HUSK_AGENT_PROC_DEVFILTER_H
#define HUSK_AGENT_PROC_DEVFILTER_H

#include "base/compiler.h"
#include "base/err.h"

/* Loads the program. The caller owns *ret_fd. */
int devfilter_load(int *ret_fd, struct err *err) must_check;
int devfilter_attach(int prog_fd, int cgroup_fd, struct err *err) must_check;

#endif
