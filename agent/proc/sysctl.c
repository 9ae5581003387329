#include "agent/proc/sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "agent/rootfs/path.h"
#include "base/util.h"

int sysctl_write(const char *name, const char *value, struct err *err)
{
	cleanup_free char *path = str_fmt("/proc/sys/%s", name);
	int r;

	if (!path)
		return err_set(err, -ENOMEM, "out of memory");
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
