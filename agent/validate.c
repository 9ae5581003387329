#include "agent/validate.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "agent/limits.h"
#include "agent/proc/rlimit.h"
#include "agent/proc/sysctl.h"
#include "agent/rootfs/mountopt.h"
#include "base/capname.h"
#include "base/util.h"

#define TTY_SIDE_MAX 65535u /* struct winsize */

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool all_of(const char *s, const char *others)
{
	for (; *s; s++)
		if (!is_alnum(*s) && !strchr(others, *s))
			return false;
	return true;
}

bool id_valid(const char *id)
{
	return id && is_alnum(id[0]) && strnlen(id, CONTAINER_ID_MAX + 1) <= CONTAINER_ID_MAX &&
	       all_of(id, "_.-");
}

static int check_id(const char *id, const char *field, struct err *err)
{
	if (!id_valid(id))
		return err_set(err, -EINVAL,
			       "%s: 1 to %u of letters, digits, '_', '.', '-' expected", field,
			       CONTAINER_ID_MAX);
	return 0;
}

static int check_count(size_t n, size_t max, const char *field, struct err *err)
{
	if (n > max)
		return err_set(err, -EINVAL, "%s: %zu entries, at most %zu are allowed", field, n,
			       max);
	return 0;
}

static int check_hostname(const char *h, struct err *err)
{
	if (strnlen(h, AGENT_HOSTNAME_MAX + 1) > AGENT_HOSTNAME_MAX || !all_of(h, ".-_"))
		return err_set(err, -EINVAL,
			       "hostname: at most %u of letters, digits, '.', '-', '_' expected",
			       AGENT_HOSTNAME_MAX);
	return 0;
}

/* Absolute, shorter than PATH_MAX, without a ".." component. */
static int check_path(const char *path, const char *field, struct err *err)
{
	if (path[0] != '/')
		return err_set(err, -EINVAL, "%s: \"%.100s\" is not an absolute path", field, path);
	if (strnlen(path, PATH_MAX) >= PATH_MAX)
		return err_set(err, -EINVAL, "%s: longer than %d bytes", field, PATH_MAX - 1);
	for (const char *p = path; p; p = strchr(p, '/')) {
		while (*p == '/')
			p++;
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
			return err_set(err, -EINVAL, "%s: \"%.100s\" has a \"..\"", field, path);
	}
	return 0;
}

/* "kernel.shm_rmid_forced" or "net/ipv4/conf/eth0.1/forwarding": a path below /proc/sys. */
static int check_sysctl(const char *name, const char *value, struct err *err)
{
	size_t n = strnlen(name, AGENT_NAME_MAX + 1);

	if (n == 0 || n > AGENT_NAME_MAX || !is_alnum(name[0]) || !all_of(name, "_.-/") ||
	    strstr(name, "..") || strstr(name, "//") || strstr(name, "./") || strstr(name, "/."))
		return err_set(err, -EINVAL, "sysctls: \"%.100s\" is not a sysctl's name", name);
	if (strnlen(value, AGENT_VALUE_MAX + 1) > AGENT_VALUE_MAX)
		return err_set(err, -EINVAL, "sysctls: value of %s is longer than %u bytes", name,
			       AGENT_VALUE_MAX);
	return 0;
}

int validate_sandbox(const Agent__CreateSandboxRequest *req, struct err *err)
{
	int r = check_id(req->id, "id", err);

	if (r == 0)
		r = check_hostname(req->hostname, err);
	if (r == 0)
		r = check_count(req->n_sysctls, AGENT_SYSCTLS_MAX, "sysctls", err);
	for (size_t i = 0; r == 0 && i < req->n_sysctls; i++)
		r = check_sysctl(req->sysctls[i]->key, req->sysctls[i]->value, err);
	if (r < 0)
		return r;
	if (strlen(req->resolv_conf) > AGENT_POD_FILE_MAX ||
	    strlen(req->hosts) > AGENT_POD_FILE_MAX)
		return err_set(err, -EINVAL, "resolv_conf, hosts: longer than 1 MiB");
	if (req->shm_size > INT64_MAX)
		return err_set(err, -EINVAL, "shm_size: too large");
	if (req->realtime_ns < 0)
		return err_set(err, -EINVAL, "realtime_ns: negative");
	return 0;
}

static int check_disk(const Agent__Disk *d, const char *field, struct err *err)
{
	if (d->first_sector % VM_DISK_ALIGN || d->sectors % VM_DISK_ALIGN || d->sectors == 0 ||
	    d->sectors > VM_DISK_SECTORS || d->first_sector > VM_DISK_SECTORS - d->sectors)
		return err_set(err, -EINVAL,
			       "%s: sectors %llu + %llu: multiples of %u within 64 TiB expected",
			       field, (unsigned long long)d->first_sector,
			       (unsigned long long)d->sectors, VM_DISK_ALIGN);
	if (!str_eq(d->fstype, "ext4") && !str_eq(d->fstype, "erofs"))
		return err_set(err, -EOPNOTSUPP, "%s: fstype \"%.32s\": ext4 or erofs expected",
			       field, d->fstype);
	return 0;
}

static int check_rootfs(const Agent__Rootfs *root, struct err *err)
{
	int r;

	if (!root || (root->n_lower == 0 && !root->upper))
		return err_set(err, -EINVAL, "rootfs: no disk");
	r = check_count(root->n_lower, CONTAINER_LOWERS_MAX, "rootfs.lower", err);
	for (size_t i = 0; r == 0 && i < root->n_lower; i++) {
		r = check_disk(root->lower[i], "rootfs.lower", err);
		if (r == 0 && !root->lower[i]->readonly)
			r = err_set(err, -EINVAL, "rootfs.lower: a layer must be read-only");
		for (size_t j = 0; r == 0 && j < i; j++)
			if (root->lower[j]->first_sector == root->lower[i]->first_sector)
				r = err_set(err, -EINVAL, "rootfs.lower: disk %llu twice",
					    (unsigned long long)root->lower[i]->first_sector);
	}
	if (r < 0 || !root->upper)
		return r;
	r = check_disk(root->upper, "rootfs.upper", err);
	if (r == 0 && (root->upper->readonly || !str_eq(root->upper->fstype, "ext4")))
		r = err_set(err, -EINVAL, "rootfs.upper: a writable ext4 disk expected");
	return r;
}

static int check_mount(const Agent__Mount *m, struct err *err)
{
	struct mount_opts o;
	int r = check_path(m->destination, "mounts.destination", err);

	if (r == 0)
		r = check_count(m->n_options, AGENT_OPTIONS_MAX, "mounts.options", err);
	if (r == 0)
		r = mount_opts_parse(m, &o, err);
	return r < 0 ? err_wrap(err, r, "mount on %.100s", m->destination) : 0;
}

static int check_cgroup_file(const char *name, const char *value, struct err *err)
{
	/* cgroup.kill, cgroup.freeze, cgroup.procs ... do not limit resources. */
	if (!is_alnum(name[0]) || strnlen(name, AGENT_NAME_MAX + 1) > AGENT_NAME_MAX ||
	    !all_of(name, "_.-") || !strchr(name, '.') || str_starts(name, "cgroup."))
		return err_set(err, -EINVAL, "cgroup: \"%.100s\" is not a resource file", name);
	if (strnlen(value, AGENT_VALUE_MAX + 1) > AGENT_VALUE_MAX)
		return err_set(err, -EINVAL, "cgroup: value of %s is longer than %u bytes", name,
			       AGENT_VALUE_MAX);
	return 0;
}

static int check_paths(char *const *paths, size_t n, const char *field, struct err *err)
{
	int r = check_count(n, CONTAINER_PATHS_MAX, field, err);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = check_path(paths[i], field, err);
	return r;
}

static int check_ns(Agent__NamespaceMode mode, const char *field, struct err *err)
{
	if (mode != AGENT__NAMESPACE_MODE__PRIVATE && mode != AGENT__NAMESPACE_MODE__POD)
		return err_set(err, -EOPNOTSUPP, "%s: unknown mode %d", field, (int)mode);
	return 0;
}

int validate_container(const Agent__CreateContainerRequest *req, struct err *err)
{
	bool own_ipc = req->ipc_namespace == AGENT__NAMESPACE_MODE__PRIVATE;
	int r = check_id(req->id, "id", err);

	if (r == 0)
		r = check_rootfs(req->rootfs, err);
	if (r == 0)
		r = check_count(req->n_mounts, CONTAINER_MOUNTS_MAX, "mounts", err);
	for (size_t i = 0; r == 0 && i < req->n_mounts; i++)
		r = check_mount(req->mounts[i], err);
	if (r == 0)
		r = check_ns(req->pid_namespace, "pid_namespace", err);
	if (r == 0)
		r = check_ns(req->ipc_namespace, "ipc_namespace", err);
	if (r == 0)
		r = check_paths(req->masked_paths, req->n_masked_paths, "masked_paths", err);
	if (r == 0)
		r = check_paths(req->readonly_paths, req->n_readonly_paths, "readonly_paths", err);
	if (r == 0)
		r = check_count(req->n_sysctls, AGENT_SYSCTLS_MAX, "sysctls", err);
	for (size_t i = 0; r == 0 && i < req->n_sysctls; i++) {
		r = check_sysctl(req->sysctls[i]->key, req->sysctls[i]->value, err);
		if (r == 0 && !sysctl_namespaced(req->sysctls[i]->key, own_ipc))
			r = err_set(err, -EOPNOTSUPP,
				    "sysctls: %s belongs to the whole pod, not to a container",
				    req->sysctls[i]->key);
	}
	if (r == 0)
		r = check_count(req->n_cgroup, AGENT_CGROUP_FILES_MAX, "cgroup", err);
	for (size_t i = 0; r == 0 && i < req->n_cgroup; i++)
		r = check_cgroup_file(req->cgroup[i]->key, req->cgroup[i]->value, err);
	if (r == 0)
		r = check_hostname(req->hostname, err);
	if (r == 0)
		r = validate_process(req->process, "process", err);
	return r;
}

static int check_user(const Agent__User *u, struct err *err)
{
	int r;

	if (!u)
		return 0;
	r = check_count(u->n_additional_gids, PROCESS_GROUPS_MAX, "user.additional_gids", err);
	if (r < 0)
		return r;
	/* (uid_t)-1 means "leave it" to setresuid. */
	if (u->uid == UINT32_MAX || u->gid == UINT32_MAX)
		return err_set(err, -EINVAL, "user: 4294967295 is no id");
	if (strnlen(u->name, AGENT_NAME_MAX + 1) > AGENT_NAME_MAX || strchr(u->name, '\n'))
		return err_set(err, -EINVAL, "user.name: too long or more than one line");
	if (u->umask > 0777)
		return err_set(err, -EINVAL, "user.umask: %o is beyond 0777", u->umask);
	return 0;
}

static int check_caps(const Agent__Capabilities *c, struct err *err)
{
	if (!c)
		return 0;
	if ((c->bounding | c->effective | c->permitted | c->inheritable | c->ambient) &
	    ~CAPNAME_ALL)
		return err_set(err, -EINVAL, "capabilities: the last one is %u", CAPNAME_LAST);
	if (c->effective & ~c->permitted)
		return err_set(err, -EINVAL, "capabilities: effective ones must be permitted");
	if (c->ambient & ~(c->permitted & c->inheritable))
		return err_set(err, -EINVAL,
			       "capabilities: ambient ones must be permitted and inheritable");
	return 0;
}

static int check_stdio(const Agent__Process *p, struct err *err)
{
	const Agent__Stdio *s = p->stdio;

	if (p->width > TTY_SIDE_MAX || p->height > TTY_SIDE_MAX)
		return err_set(err, -EINVAL, "terminal: larger than %u", TTY_SIDE_MAX);
	if (!s)
		return 0;
	if (p->terminal && s->stderr_stream != 0)
		return err_set(err, -EINVAL, "stdio: a terminal has no stderr of its own");
	if ((s->stdin_stream && s->stdin_stream == s->stdout_stream) ||
	    (s->stdin_stream && s->stdin_stream == s->stderr_stream) ||
	    (s->stdout_stream && s->stdout_stream == s->stderr_stream))
		return err_set(err, -EINVAL, "stdio: a stream is named twice");
	return 0;
}

static int check_variable(const ProtobufCBinaryData *v, struct err *err)
{
	const char *s = (const char *)v->data;

	if (v->len == 0 || *s == '=' || !memchr(s, '=', v->len))
		return err_set(err, -EINVAL, "env: \"%.*s\" is not NAME=VALUE",
			       (int)MIN_OF(v->len, 100), v->len ? s : "");
	if (memchr(s, 0, v->len))
		return err_set(err, -EINVAL, "env: a NUL byte");
	return 0;
}

static int check_process(const Agent__Process *p, struct err *err)
{
	int r;

	if (!p)
		return err_set(err, -EINVAL, "missing");
	if (p->n_args == 0 || str_empty(p->args[0]))
		return err_set(err, -EINVAL, "args: no command");
	r = check_count(p->n_args, PROCESS_ARGS_MAX, "args", err);
	if (r == 0)
		r = check_count(p->n_env, PROCESS_ARGS_MAX, "env", err);
	for (size_t i = 0; r == 0 && i < p->n_env; i++)
		r = check_variable(&p->env[i], err);
	if (r == 0 && !str_empty(p->cwd))
		r = check_path(p->cwd, "cwd", err);
	if (r == 0)
		r = check_user(p->user, err);
	if (r == 0)
		r = check_caps(p->capabilities, err);
	if (r == 0)
		r = check_count(p->n_rlimits, AGENT_RLIMITS_MAX, "rlimits", err);
	for (size_t i = 0; r == 0 && i < p->n_rlimits; i++) {
		if (rlimit_of(p->rlimits[i]->type) < 0)
			r = err_set(err, -EOPNOTSUPP, "rlimits: unknown \"%.32s\"",
				    p->rlimits[i]->type);
		else if (p->rlimits[i]->soft > p->rlimits[i]->hard)
			r = err_set(err, -EINVAL, "rlimits: %s: soft is above hard",
				    p->rlimits[i]->type);
	}
	if (r == 0 && (p->oom_score_adj < -1000 || p->oom_score_adj > 1000))
		r = err_set(err, -EINVAL, "oom_score_adj: -1000 to 1000 expected");
	if (r == 0)
		r = check_stdio(p, err);
	return r;
}

int validate_process(const Agent__Process *p, const char *what, struct err *err)
{
	int r = check_process(p, err);

	return r < 0 ? err_wrap(err, r, "%s", what) : 0;
}

int validate_exec(const Agent__ExecProcessRequest *req, struct err *err)
{
	int r = check_id(req->id, "id", err);

	if (r == 0)
		r = check_id(req->exec_id, "exec_id", err);
	return r < 0 ? r : validate_process(req->process, "process", err);
}
