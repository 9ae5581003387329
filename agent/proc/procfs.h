/*
 * What /proc of the guest's root says of a process that may be hostile: its state, its name, its
 * namespaces. Bounded reads; a process that is gone, or becomes another one meanwhile, is an
 * error at worst: who acts on the answer holds a pidfd from before. Leaf functions.
 */
#ifndef HUSK_AGENT_PROC_PROCFS_H
#define HUSK_AGENT_PROC_PROCFS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

#define PROCFS_NAME_MAX 16u /* TASK_COMM_LEN */

/* The letter of /proc/PID/stat ('R': runs or waits for its turn, 'D': waits for a disk, 'T': was
 * stopped, ...) and the name. -ENOENT, -ESRCH: gone. */
int procfs_state(pid_t pid, char *ret_state, char name[PROCFS_NAME_MAX]) must_check;
/* Identity of a namespace ("cgroup", "uts", ...). -ENOENT, -ESRCH: gone, or a zombie. */
int procfs_namespace(pid_t pid, const char *which, uint64_t *ret) must_check;
/* The same with a descriptor, which the caller closes: until then no other namespace gets that
 * identity. */
int procfs_open_namespace(pid_t pid, const char *which, uint64_t *ret_id) must_check;
/* Its path in the cgroup v2 hierarchy, as the caller's namespace sees it. The caller frees. */
int procfs_cgroup(pid_t pid, char **ret) must_check;

#endif
