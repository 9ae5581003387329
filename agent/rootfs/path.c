#include "agent/rootfs/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define RACES_MAX 32	/* openat2 gives EAGAIN when it races with a rename */
#define SYMLINKS_MAX 40 /* as the kernel's MAXSYMLINKS */
#define SMALL_FILE_MAX 4096

int path_open(int root, const char *path, int flags, int *ret_fd)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	long fd = -1;

	for (int i = 0; i < RACES_MAX; i++) {
		fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	if (fd < 0)
		return -errno;
	*ret_fd = (int)fd;
	return 0;
}

static int fd_kind(int fd, mode_t *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret = st.st_mode & S_IFMT;
	return 0;
}

/* Puts the target of the symlink `name` in `dir` in the place of path[0..end), whose directory part
 * is path[0..start). `path` has room for PATH_MAX bytes. */
static int expand_link(int dir, const char *name, char *path, size_t start, size_t end)
{
	char target[PATH_MAX], out[PATH_MAX];
	ssize_t n = readlinkat(dir, name, target, sizeof(target));
	size_t head, rest = strlen(path + end);

	if (n < 0)
		return -errno;
	head = target[0] == '/' ? 0 : start;
	if ((size_t)n >= sizeof(target) || head + (size_t)n + rest >= sizeof(out))
		return -ENAMETOOLONG;
	memcpy(out, path, head);
	memcpy(out + head, target, (size_t)n);
	memcpy(out + head + (size_t)n, path + end, rest + 1);
	memcpy(path, out, head + (size_t)n + rest + 1);
	return 0;
}

/* Makes `name` in `parent`. -EEXIST when something is there, e.g. a symlink to nothing. */
static int make_one(int parent, const char *name, enum path_kind kind)
{
	int r = kind == PATH_DIR ? mkdirat(parent, name, 0755)
				 : mknodat(parent, name, S_IFREG | 0644, 0);

	return r < 0 ? -errno : 0;
}

/*
 * One component after the other: the prefix path[0..end) is resolved as a whole by the kernel, so
 * that symlinks and ".." in it keep to the root. When it is missing it is made in its directory,
 * which the step before has opened.
 */
static int make_walk(int root, char *path, enum path_kind kind, int *ret_fd)
{
	cleanup_fd int parent = -1;
	size_t start = 0, end;
	int links = 0, r;

	r = path_open(root, "/", O_PATH | O_DIRECTORY, &parent);
	if (r < 0)
		return r;
	for (;;) {
		cleanup_fd int fd = -1;
		char keep;
		bool last;

		start += strspn(path + start, "/");
		if (path[start] == '\0')
			break;
		end = start + strcspn(path + start, "/");
		last = path[end + strspn(path + end, "/")] == '\0';
		keep = path[end];
		path[end] = '\0';
		r = path_open(root, path, O_PATH, &fd);
		if (r == -ENOENT) {
			enum path_kind k = last ? kind : PATH_DIR;

			r = make_one(parent, path + start, k);
			if (r == 0)
				r = path_open(root, path, O_PATH, &fd);
			else if (r == -EEXIST && ++links <= SYMLINKS_MAX) {
				char name[NAME_MAX + 1];

				if (end - start > NAME_MAX)
					return -ENAMETOOLONG;
				memcpy(name, path + start, end - start + 1);
				path[end] = keep;
				r = expand_link(parent, name, path, start, end);
				if (r < 0)
					return r == -EINVAL ? -EEXIST : r;
				fd_close(&parent);
				r = path_open(root, "/", O_PATH | O_DIRECTORY, &parent);
				if (r < 0)
					return r;
				start = 0;
				continue;
			} else if (r == -EEXIST) {
				r = -ELOOP;
			}
		}
		path[end] = keep;
		if (r < 0)
			return r;
		fd_close(&parent);
		parent = take_fd(&fd);
		start = end;
	}
	*ret_fd = take_fd(&parent);
	return 0;
}

int path_make(int root, const char *path, enum path_kind kind, int *ret_fd)
{
	cleanup_fd int fd = -1;
	char buf[PATH_MAX];
	size_t n = strnlen(path, sizeof(buf));
	mode_t mode = 0;
	int r;

	if (n >= sizeof(buf))
		return -ENAMETOOLONG;
	/* Nearly always it is there. */
	r = path_open(root, path, O_PATH, &fd);
	if (r == -ENOENT) {
		memcpy(buf, path, n + 1);
		r = make_walk(root, buf, kind, &fd);
	}
	if (r == 0)
		r = fd_kind(fd, &mode);
	if (r < 0)
		return r;
	if (kind == PATH_DIR && mode != S_IFDIR)
		return -ENOTDIR;
	if (kind == PATH_FILE && mode == S_IFDIR)
		return -EISDIR;
	*ret_fd = take_fd(&fd);
	return 0;
}

int path_read(int root, const char *path, size_t max, char **ret, size_t *ret_len)
{
	cleanup_fd int probe = -1, fd = -1;
	mode_t mode = 0;
	int r = path_open(root, path, O_PATH, &probe);

	if (r == 0)
		r = fd_kind(probe, &mode);
	if (r < 0)
		return r;
	if (mode != S_IFREG)
		return -EINVAL;
	/* O_NONBLOCK in case it was swapped meanwhile. */
	r = path_open(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &fd);
	if (r == 0)
		r = fd_kind(fd, &mode);
	if (r < 0)
		return r;
	return mode == S_IFREG ? read_fd(fd, max, ret, ret_len) : -EINVAL;
}

int write_at(int dir, const char *name, const char *text)
{
	cleanup_fd int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	size_t n = strlen(text);
	ssize_t w;

	if (fd < 0)
		return -errno;
	w = write(fd, text, n);
	if (w < 0)
		return -errno;
	return (size_t)w == n ? 0 : -EIO;
}

int read_number_at(int dir, const char *name, const char *key, uint64_t *ret)
{
	cleanup_fd int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	char buf[SMALL_FILE_MAX];
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	for (char *line = buf; line;) {
		char *next = strchr(line, '\n'), *num = line;

		if (next)
			*next++ = '\0';
		if (key) {
			size_t k = strlen(key);

			num = str_starts(line, key) && line[k] == ' ' ? line + k + 1 : NULL;
		}
		if (num)
			return str_to_u64(num, 0, UINT64_MAX, ret);
		line = next;
	}
	return -ENOENT;
}
