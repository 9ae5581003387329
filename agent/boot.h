/* The guest's own environment, made by PID 1 once. Before the loop runs. */
#ifndef HUSK_AGENT_BOOT_H
#define HUSK_AGENT_BOOT_H

#include "base/compiler.h"
#include "base/err.h"

#define BOOT_RUN_DIR "/run"
#define BOOT_CGROUP_DIR "/sys/fs/cgroup"
#define BOOT_DISK "/dev/vda"

/* Mounts /proc, /sys, /dev, cgroup2, <run>; a root that can be pivoted away from; lo up; limits. */
int boot_set_up(struct err *err) must_check;
/* Kernel parameters as programs know them from a node: the kernel derives many from the size of
 * its memory, and a pod's is small. What they bound costs memory of the pod alone. The values of
 * a pod come later and win. agent/README.md lists them. */
int boot_set_defaults(struct err *err) must_check;
/* The directories that an agent wants below its run directory. */
int boot_run_dir(const char *run_dir, struct err *err) must_check;
/* Does not come back. */
noreturn_fn void boot_power_off(void);

#endif
