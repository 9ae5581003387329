#include "shim/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/process.h"
#include "base/util.h"

#define ROOT_V2 "/sys/fs/cgroup"
#define ROOT_V1 "/sys/fs/cgroup/memory"
#define PROCS_MAX (64 * KIB)
#define PATH_BYTES_MAX 3000
#define KILL_ROUNDS 10 /* processes may fork meanwhile */

static bool is_fs(const char *path, long magic)
{
	struct statfs s;

	return statfs(path, &s) == 0 && s.f_type == magic;
}

static const char *root_of_host(void)
{
	if (is_fs(ROOT_V2, CGROUP2_SUPER_MAGIC))
		return ROOT_V2;
	return is_fs(ROOT_V1, CGROUP_SUPER_MAGIC) ? ROOT_V1 : NULL;
}

static bool is_v2(const char *path)
{
	return !str_starts(path, ROOT_V1 "/");
}

/* "a-b-c.slice" -> "/a.slice/a-b.slice/a-b-c.slice"; it may come with the path of its parent. */
static char *slice_path(const char *slice)
{
	const char *name = strrchr(slice, '/');
	char *path = strdup("");

	name = name ? name + 1 : slice;
	for (size_t n = 1; path && name[n]; n++) {
		char *longer;

		if (name[n] != '-' && !str_eq(name + n, ".slice"))
			continue;
		longer = str_fmt("%s/%.*s.slice", path, (int)n, name);
		free(path);
		path = longer;
		if (name[n] == '.')
			break;
	}
	return path;
}

/* No way out of the tree. */
static bool is_plain(const char *path)
{
	return strlen(path) <= PATH_BYTES_MAX && !strstr(path, "/../") && !str_ends(path, "/..") &&
	       !strchr(path, '\n') && !str_starts(path, "../") && !str_eq(path, "..");
}

static bool has_room(const char *path, uint64_t bytes)
{
	cleanup_free char *file =
		str_fmt("%s/%s", path, is_v2(path) ? "memory.max" : "memory.limit_in_bytes");
	cleanup_free char *text = NULL;
	uint64_t max;

	if (!file || read_file(file, 64, &text, NULL, NULL) < 0)
		return access(path, F_OK) == 0; /* there, but without the controller */
	text[strcspn(text, "\n")] = 0;
	return str_to_u64(text, 0, UINT64_MAX, &max) < 0 || max >= bytes; /* "max" is no number */
}

int cgroup_path(const char *parent, const char *id, uint64_t bytes, char **ret, struct err *err)
{
	const char *root = root_of_host();
	cleanup_free char *below = NULL, *full = NULL;

	if (!root)
		return err_set(err, -EOPNOTSUPP, "the host has no cgroups for memory");
	if (!is_plain(parent))
		return err_set(err, -EINVAL, "cgroup_parent \"%.200s\" is not a cgroup", parent);
	if (str_ends(parent, ".slice"))
		below = slice_path(parent);
	else
		below = str_fmt("%s%s", *parent && *parent != '/' ? "/" : "", parent);
	full = below ? str_fmt("%s%s", root, below) : NULL;
	if (!full)
		return err_nomem(err);
	/* Kubelet makes what it names. We make no parents in somebody else's tree. */
	if (!*parent || !has_room(full, bytes)) {
		free(full);
		full = str_fmt("%s" CGROUP_OWN, root);
	}
	*ret = full ? str_fmt("%s/husk-%s", full, id) : NULL;
	return *ret ? 0 : err_nomem(err);
}

static int write_file(const char *path, const char *file, const char *text)
{
	cleanup_free char *name = str_fmt("%s/%s", path, file);
	cleanup_fd int fd = name ? open(name, O_WRONLY | O_CLOEXEC) : -1;

	if (!name)
		return -ENOMEM;
	if (fd < 0)
		return -errno;
	return write_all(fd, text, strlen(text));
}

int cgroup_make(const char *path, struct err *err)
{
	cleanup_free char *parent = strdup(path);
	char *slash = parent ? strrchr(parent, '/') : NULL;

	if (!slash)
		return err_nomem(err);
	*slash = 0;
	if (str_ends(parent, CGROUP_OWN) && mkdir(parent, 0755) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "cgroup %s", parent);
	/* A parent that has processes may not; then there is no limit, but still a group. */
	if (is_v2(path)) {
		if (str_eq(parent, ROOT_V2 CGROUP_OWN))
			(void)!write_file(ROOT_V2, "cgroup.subtree_control", "+memory");
		(void)!write_file(parent, "cgroup.subtree_control", "+memory");
	}
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_errno(err, -errno, "cgroup %s", path);
	return 0;
}

int cgroup_limit_memory(const char *path, uint64_t bytes, struct err *err)
{
	char text[32];
	int r;

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	r = write_file(path, is_v2(path) ? "memory.max" : "memory.limit_in_bytes", text);
	if (r == 0 && is_v2(path))
		r = write_file(path, "memory.oom.group", "1");
	return r < 0 ? err_errno(err, r, "memory limit of cgroup %s", path) : 0;
}

int cgroup_add(const char *path, pid_t pid, struct err *err)
{
	char text[16];
	int r;

	(void)snprintf(text, sizeof(text), "%d", (int)pid);
	r = write_file(path, "cgroup.procs", text);
	return r < 0 ? err_errno(err, r, "cgroup %s", path) : 0;
}

/* A pidfd first, then a second look: the number may have gone to somebody else. */
static void kill_listed(const char *path, const char *list, int pid)
{
	cleanup_free char *again = NULL;
	cleanup_fd int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	char *line, *save = NULL;

	if (fd < 0 || read_file(list, PROCS_MAX, &again, NULL, NULL) < 0)
		return;
	for (line = strtok_r(again, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		uint64_t n;

		if (str_to_u64(line, 1, INT32_MAX, &n) == 0 && (int)n == pid)
			(void)pidfd_signal(fd, SIGKILL);
	}
}

int cgroup_kill(const char *path)
{
	cleanup_free char *list = str_fmt("%s/cgroup.procs", path);
	int r = write_file(path, "cgroup.kill", "1"); /* v2, Linux 5.14 */

	if (r == 0 || !list)
		return list ? 0 : -ENOMEM;
	for (int round = 0; round < KILL_ROUNDS; round++) {
		cleanup_free char *text = NULL;
		char *line, *save = NULL;
		uint64_t pid;

		r = read_file(list, PROCS_MAX, &text, NULL, NULL);
		if (r < 0)
			return r == -ENOENT || r == -ENODEV ? 0 : r;
		if (!*text)
			return 0;
		for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
			if (str_to_u64(line, 1, INT32_MAX, &pid) == 0)
				kill_listed(path, list, (int)pid);
		}
	}
	return 0;
}

int cgroup_remove(const char *path)
{
	return rmdir(path) < 0 && errno != ENOENT ? -errno : 0;
}
