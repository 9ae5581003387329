#include "agent/rootfs/mountopt.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "base/util.h"

static const struct {
	const char *name, *fstype;
	enum mount_kind kind;
} kinds[] = {
	{ "proc", "proc", MOUNT_PROC },		{ "sysfs", "sysfs", MOUNT_SYSFS },
	{ "tmpfs", "tmpfs", MOUNT_TMPFS },	{ "devpts", "devpts", MOUNT_DEVPTS },
	{ "mqueue", "mqueue", MOUNT_MQUEUE },	{ "cgroup2", "cgroup2", MOUNT_CGROUP2 },
	{ "cgroup", "cgroup2", MOUNT_CGROUP2 }, /* OCI's name; there is no v1 in the guest */
};

static const struct {
	const char *source, *file;
	bool dir;
} pod_files[] = {
	{ "sandbox:shm", "shm", true },
	{ "sandbox:hosts", "hosts", false },
	{ "sandbox:hostname", "hostname", false },
	{ "sandbox:resolv.conf", "resolv.conf", false },
};

struct flag {
	const char *name;
	uint64_t set, clear;
};

static const struct flag flags[] = {
	{ "ro", MOUNT_ATTR_RDONLY, 0 },
	{ "rw", 0, MOUNT_ATTR_RDONLY },
	{ "nosuid", MOUNT_ATTR_NOSUID, 0 },
	{ "suid", 0, MOUNT_ATTR_NOSUID },
	{ "nodev", MOUNT_ATTR_NODEV, 0 },
	{ "dev", 0, MOUNT_ATTR_NODEV },
	{ "noexec", MOUNT_ATTR_NOEXEC, 0 },
	{ "exec", 0, MOUNT_ATTR_NOEXEC },
	{ "noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME },
	{ "relatime", 0, MOUNT_ATTR__ATIME },
	{ "strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
	{ "nodiratime", MOUNT_ATTR_NODIRATIME, 0 },
	{ "diratime", 0, MOUNT_ATTR_NODIRATIME },
	{ "nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0 },
	{ "defaults", 0, 0 },
};

/* Below a container's root everything is private already. */
static const struct flag propagations[] = {
	{ "private", MS_PRIVATE, 0 },
	{ "rprivate", MS_PRIVATE, 0 },
	{ "slave", MS_SLAVE, 0 },
	{ "rslave", MS_SLAVE, 0 },
};

static const struct flag *find_flag(const struct flag *table, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(table[i].name, name))
			return &table[i];
	return NULL;
}

static int parse_option(const char *opt, struct mount_opts *o, struct err *err)
{
	const struct flag *f = find_flag(flags, ARRAY_SIZE(flags), opt);

	if (f) {
		o->attr = (o->attr & ~f->clear) | f->set;
		return 0;
	}
	f = find_flag(propagations, ARRAY_SIZE(propagations), opt);
	if (f) {
		o->propagation = f->set;
		return 0;
	}
	if (o->kind == MOUNT_BIND) {
		if (str_eq(opt, "bind") || str_eq(opt, "rbind"))
			return 0;
		return err_set(err, -EOPNOTSUPP, "option \"%.100s\" does not go with a bind mount",
			       opt);
	}
	if (*opt == '\0' || *opt == '=' || strnlen(opt, AGENT_VALUE_MAX) >= AGENT_VALUE_MAX)
		return err_set(err, -EINVAL, "an option is empty or too long");
	/* The file system refuses what it does not know; a source is not its option. */
	if (str_starts(opt, "source="))
		return err_set(err, -EINVAL, "option \"source\"");
	o->data[o->n_data++] = opt;
	return 0;
}

static int parse_kind(const Agent__Mount *m, struct mount_opts *o, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (str_eq(kinds[i].name, m->type)) {
			o->kind = kinds[i].kind;
			o->fstype = kinds[i].fstype;
			return 0;
		}
	}
	if (!str_eq(m->type, "bind"))
		return err_set(err, -EOPNOTSUPP, "type \"%.32s\" is not supported", m->type);
	o->kind = MOUNT_BIND;
	for (size_t i = 0; i < ARRAY_SIZE(pod_files); i++) {
		if (str_eq(pod_files[i].source, m->source)) {
			o->pod_file = pod_files[i].file;
			o->pod_file_is_dir = pod_files[i].dir;
			return 0;
		}
	}
	return err_set(err, -EOPNOTSUPP, "bind source \"%.100s\" is none of the pod's files",
		       m->source);
}

int mount_opts_parse(const Agent__Mount *m, struct mount_opts *ret, struct err *err)
{
	struct mount_opts o = { 0 };
	int r = parse_kind(m, &o, err);

	if (r == 0 && m->n_options > AGENT_OPTIONS_MAX)
		r = err_set(err, -EINVAL, "more than %u options", AGENT_OPTIONS_MAX);
	for (size_t i = 0; r == 0 && i < m->n_options; i++)
		r = parse_option(m->options[i], &o, err);
	if (r < 0)
		return r;
	*ret = o;
	return 0;
}
