#include "agent/proc/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"

#define PROC_PATH_MAX 48 /* "/proc/" + pid + "/ns/" + name */
#define FILE_MAX (16 * KIB)

static int read_text(pid_t pid, const char *name, char **ret)
{
	char path[PROC_PATH_MAX];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return read_file(path, FILE_MAX, ret, NULL, NULL);
}

int procfs_state(pid_t pid, char *ret_state, char name[PROCFS_NAME_MAX])
{
	cleanup_free char *text = NULL;
	const char *begin, *end;
	int r = read_text(pid, "stat", &text);

	if (r < 0)
		return r;
	/* "PID (NAME) STATE ...": the name may contain all but a NUL. */
	begin = strchr(text, '(');
	end = strrchr(text, ')');
	if (!begin || !end || end < begin || end[1] != ' ')
		return -EPROTO;
	snprintf(name, PROCFS_NAME_MAX, "%.*s", (int)(end - begin - 1), begin + 1);
	*ret_state = end[2];
	return 0;
}

int procfs_open_namespace(pid_t pid, const char *which, uint64_t *ret_id)
{
	char path[PROC_PATH_MAX];
	cleanup_fd int fd = -1;
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, which);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	*ret_id = st.st_ino;
	return take_fd(&fd);
}

int procfs_namespace(pid_t pid, const char *which, uint64_t *ret)
{
	cleanup_fd int fd = procfs_open_namespace(pid, which, ret);

	return fd < 0 ? fd : 0;
}

int procfs_cgroup(pid_t pid, char **ret)
{
	cleanup_free char *text = NULL;
	const char *line;
	int r = read_text(pid, "cgroup", &text);

	if (r < 0)
		return r;
	/* The line of v2; a host that has v1, too (tests), has others before it. */
	line = str_starts(text, "0::") ? text : strstr(text, "\n0::");
	if (!line)
		return -EPROTO;
	line += *line == '\n';
	*ret = strndup(line + 3, strcspn(line + 3, "\n"));
	return *ret ? 0 : -ENOMEM;
}
