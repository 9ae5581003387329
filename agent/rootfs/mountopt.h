/*
 * The options of one Mount, as OCI writes them, split into what the kernel's mount calls take.
 * Pure: no I/O, any thread.
 */
#ifndef HUSK_AGENT_ROOTFS_MOUNTOPT_H
#define HUSK_AGENT_ROOTFS_MOUNTOPT_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/agent.pb-c.h"
#include "agent/limits.h"
#include "base/compiler.h"
#include "base/err.h"

enum mount_kind {
	MOUNT_PROC,
	MOUNT_SYSFS,
	MOUNT_TMPFS,
	MOUNT_DEVPTS,
	MOUNT_MQUEUE,
	MOUNT_CGROUP2,
	MOUNT_BIND,
};

struct mount_opts {
	enum mount_kind kind;
	const char *fstype;   /* for fsopen; NULL for MOUNT_BIND */
	const char *pod_file; /* MOUNT_BIND: name below the sandbox's directory */
	bool pod_file_is_dir;
	uint64_t attr;	      /* MOUNT_ATTR_* to set */
	uint64_t propagation; /* MS_PRIVATE or MS_SLAVE, 0 = as it is */
	/* Options for the file system itself, of the Mount's own strings: "size=64k",
	 * "newinstance". */
	const char *data[AGENT_OPTIONS_MAX];
	size_t n_data;
};

/* -EINVAL, -EOPNOTSUPP with a text that names the option. The result borrows from `m`. */
int mount_opts_parse(const Agent__Mount *m, struct mount_opts *ret, struct err *err) must_check;

#endif
