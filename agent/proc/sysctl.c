#include "agent/proc/sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "agent/rootfs/path.h"
#include "base/util.h"

bool sysctl_namespaced(const char *name, bool own_ipc)
{
	static const char *const ipc[] = { "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.",
					   "kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/" };

	if (str_starts(name, "net.") || str_starts(name, "net/"))
		return true; /* the pod's network namespace, shared by its containers */
	for (size_t i = 0; own_ipc && i < ARRAY_SIZE(ipc); i++)
		if (str_starts(name, ipc[i]))
			return true;
	return false;
}

int sysctl_write(const char *name, const char *value, struct err *err)
{
	cleanup_free char *path = str_fmt("/proc/sys/%s", name);
	int r;

	if (!path)
		return err_nomem(err);
	/* With a slash anywhere, dots are part of names (interfaces). */
	if (!strchr(name, '/'))
		for (char *p = path + strlen("/proc/sys/"); *p; p++)
			if (*p == '.')
				*p = '/';
	r = write_at(AT_FDCWD, path, value);
	if (r == -ENOENT)
		return err_set(err, -EINVAL, "sysctl %s: the guest kernel has none of that name",
			       name);
	return r < 0 ? err_errno(err, r, "sysctl %s = \"%.100s\"", name, value) : 0;
}
