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
/* The directories that an agent wants below its run directory. */
int boot_run_dir(const char *run_dir, struct err *err) must_check;
/* Does not come back. */
noreturn_fn void boot_power_off(void);

#endif
