#include "base/capname.h"

#include <errno.h>
#include <stddef.h>
#include <strings.h>

#include "base/compiler.h"
#include "base/util.h"

#define PREFIX_LEN 4u /* of "CAP_" */

/* By number (linux/capability.h). */
static const char *const names[] = {
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_DAC_READ_SEARCH",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST",
	"CAP_NET_ADMIN",
	"CAP_NET_RAW",
	"CAP_IPC_LOCK",
	"CAP_IPC_OWNER",
	"CAP_SYS_MODULE",
	"CAP_SYS_RAWIO",
	"CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE",
	"CAP_SYS_PACCT",
	"CAP_SYS_ADMIN",
	"CAP_SYS_BOOT",
	"CAP_SYS_NICE",
	"CAP_SYS_RESOURCE",
	"CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG",
	"CAP_MKNOD",
	"CAP_LEASE",
	"CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL",
	"CAP_SETFCAP",
	"CAP_MAC_OVERRIDE",
	"CAP_MAC_ADMIN",
	"CAP_SYSLOG",
	"CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ",
	"CAP_PERFMON",
	"CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
};
_Static_assert(ARRAY_SIZE(names) == CAPNAME_LAST + 1, "a name for each number");

const char *capname(unsigned cap)
{
	return cap <= CAPNAME_LAST ? names[cap] : NULL;
}

int capname_find(const char *name)
{
	for (unsigned i = 0; i <= CAPNAME_LAST; i++)
		if (str_eq(names[i], name))
			return (int)i;
	return -EINVAL;
}

int capname_find_loose(const char *name)
{
	if (!name)
		return -EINVAL;
	if (strncasecmp(name, "CAP_", PREFIX_LEN) == 0)
		name += PREFIX_LEN;
	for (unsigned i = 0; i <= CAPNAME_LAST; i++)
		if (strcasecmp(names[i] + PREFIX_LEN, name) == 0)
			return (int)i;
	return -EINVAL;
}
