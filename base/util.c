#include "base/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REMOVE_DEPTH_MAX 64

void fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved;
}

void free_ptr(void *p)
{
	void **pp = p;

	free(*pp);
	*pp = NULL;
}

/* ---- strings ---- */

bool str_eq(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

char *str_fmt(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : s;
}

int str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (str_empty(s))
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	}
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int str_to_i64(const char *s, int64_t min, int64_t max, int64_t *ret)
{
	bool neg = s && *s == '-';
	uint64_t mag;
	int64_t v;
	int r;

	r = str_to_u64(neg ? s + 1 : s, 0, (uint64_t)INT64_MAX + (neg ? 1 : 0), &mag);
	if (r < 0)
		return r;
	v = neg ? (int64_t)(0 - mag) : (int64_t)mag;
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

void strv_free(char **v)
{
	if (!v)
		return;
	for (char **p = v; *p; p++)
		free(*p);
	free(v);
}

void strv_freep(char ***v)
{
	strv_free(*v);
	*v = NULL;
}

size_t strv_len(char *const *v)
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

void hex_encode(const void *data, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

int random_id(char out[65])
{
	unsigned char raw[32];

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		return errno ? -errno : -EIO;
	hex_encode(raw, sizeof(raw), out);
	return 0;
}

/* ---- files ---- */

int read_fd(int fd, size_t max, char **ret, size_t *ret_len)
{
	cleanup_free char *data = NULL;
	size_t len = 0, cap = 0;
	struct stat st;
	ssize_t n;

	/* One byte more than the file has, so that its end is seen without another allocation. */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
	    (size_t)st.st_size <= max)
		cap = (size_t)st.st_size + 1;
	else
		cap = MIN_OF(max, 4 * KIB) + 1;
	data = malloc(cap + 1);
	if (!data)
		return -ENOMEM;
	for (;;) {
		if (len == cap) {
			char *more;

			if (cap > max)
				return -EFBIG;
			cap = cap > max / 2 ? max + 1 : cap * 2;
			more = realloc(data, cap + 1);
			if (!more)
				return -ENOMEM;
			data = more;
		}
		n = read(fd, data + len, cap - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len > max)
		return -EFBIG;
	data[len] = '\0';
	*ret = take_ptr(&data);
	if (ret_len)
		*ret_len = len;
	return 0;
}

int read_file(const char *path, size_t max, char **ret, size_t *ret_len, struct err *err)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int r;

	if (fd < 0)
		return err_errno(err, -errno, "%s", path);
	r = read_fd(fd, max, ret, ret_len);
	return r < 0 ? err_errno(err, r, "read %s", path) : 0;
}

int file_reserve(const char *path, uint64_t n)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	return fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)n) < 0 ? -errno : 0;
}

uint64_t disk_reserve(uint64_t total)
{
	uint64_t least = MAX_OF(total / 80, (uint64_t)(256 * MIB));

	return MIN_OF(MIN_OF(least, (uint64_t)(2 * GIB)), total / 40);
}

int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	while (len > 0) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	cleanup_free char *dir =
		slash ? strndup(path, (size_t)MAX_OF(slash - path, 1)) : strdup(".");
	cleanup_fd int fd = -1;

	if (!dir)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int write_file_atomic(const char *path, const void *data, size_t len, mode_t mode, bool durable,
		      struct err *err)
{
	cleanup_free char *tmp = NULL;
	cleanup_fd int fd = -1;
	char id[65];
	int r;

	r = random_id(id);
	if (r < 0)
		return err_errno(err, r, "write %s", path);
	tmp = str_fmt("%s.tmp.%.16s", path, id);
	if (!tmp)
		return err_nomem(err);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return err_errno(err, -errno, "write %s", tmp);
	r = write_all(fd, data, len);
	if (r == 0 && durable && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlink(tmp);
		return err_errno(err, r, "write %s", path);
	}
	r = durable ? sync_dir_of(path) : 0;
	return r < 0 ? err_errno(err, r, "write %s", path) : 0;
}

int mkdir_p(const char *path, mode_t mode, struct err *err)
{
	cleanup_free char *p = strdup(path);
	struct stat st;

	if (!p)
		return err_nomem(err);
	for (char *s = p + 1; *p; s++) {
		bool last = *s == '\0';

		if (!last && *s != '/')
			continue;
		*s = '\0';
		if (mkdir(p, mode) < 0 && errno != EEXIST)
			return err_errno(err, -errno, "make directory %s", p);
		if (last)
			break;
		*s = '/';
	}
	if (stat(path, &st) < 0)
		return err_errno(err, -errno, "make directory %s", path);
	if (!S_ISDIR(st.st_mode))
		return err_errno(err, -ENOTDIR, "make directory %s", path);
	return 0;
}

/* Takes fd over. */
static int empty_dir(int fd, int depth)
{
	const struct open_how how = { .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
				      .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS };
	DIR *d = fdopendir(fd);
	struct dirent *e;
	int r = 0, sub;

	if (!d) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	if (depth > REMOVE_DEPTH_MAX)
		r = -ELOOP;
	while (r == 0 && (errno = 0, e = readdir(d))) {
		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM) {
			r = -errno;
			break;
		}
		/* A device number would not show a bind mount of the same file system. */
		sub = (int)syscall(SYS_openat2, dirfd(d), e->d_name, &how, sizeof(how));
		if (sub < 0) {
			r = -errno;
			break;
		}
		r = empty_dir(sub, depth + 1);
		if (r == 0 && unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) < 0 && errno != ENOENT)
			r = -errno;
	}
	if (r == 0 && errno)
		r = -errno;
	(void)closedir(d);
	return r;
}

int remove_tree(const char *path, struct err *err)
{
	int fd, r;

	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		if (errno == ENOENT)
			return 0;
		if (errno == ENOTDIR || errno == ELOOP)
			return unlink(path) < 0 && errno != ENOENT
				       ? err_errno(err, -errno, "remove %s", path)
				       : 0;
		return err_errno(err, -errno, "remove %s", path);
	}
	r = empty_dir(fd, 0);
	if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
		r = -errno;
	return r < 0 ? err_errno(err, r, "remove %s", path) : 0;
}

int fd_set_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0)
		return -errno;
	fl = on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK;
	return fcntl(fd, F_SETFL, fl) < 0 ? -errno : 0;
}

/* ---- unix sockets ---- */

static int unix_addr(const char *addr, struct sockaddr_un *ret, struct err *err)
{
	const char *path = str_starts(addr, "unix://") ? addr + strlen("unix://") : addr;
	size_t n = strlen(path);

	if (n == 0)
		return err_set(err, -EINVAL, "empty socket address");
	if (n >= sizeof(ret->sun_path))
		return err_set(
			err, -ENAMETOOLONG,
			"%s: a socket path has at most %zu bytes; choose a shorter directory", path,
			sizeof(ret->sun_path) - 1);
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, path, n + 1);
	return 0;
}

int unix_connect(const char *addr, int *ret_fd, struct err *err)
{
	cleanup_fd int fd = -1;
	struct sockaddr_un sa;
	int r;

	r = unix_addr(addr, &sa, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(err, -errno, "socket");
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = -errno;
		if (r == -EAGAIN)
			return err_set(err, r, "connect %s: nobody takes the connections there",
				       sa.sun_path);
		return err_errno(err, r, "connect %s", sa.sun_path);
	}
	r = fd_set_nonblock(fd, false);
	if (r < 0)
		return err_errno(err, r, "connect %s", sa.sun_path);
	*ret_fd = take_fd(&fd);
	return 0;
}

int unix_listen(const char *addr, mode_t mode, int *ret_fd, struct err *err)
{
	cleanup_fd int fd = -1;
	int probe = -1, r;
	struct sockaddr_un sa;
	struct stat st;

	r = unix_addr(addr, &sa, err);
	if (r < 0)
		return r;
	r = unix_connect(addr, &probe, NULL);
	if (r == 0 || r == -EAGAIN) {
		fd_close(&probe);
		return err_set(err, -EADDRINUSE, "listen %s: another process serves there",
			       sa.sun_path);
	}
	/* Refused is also what a regular file answers. */
	if (r == -ECONNREFUSED && lstat(sa.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
		(void)unlink(sa.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(err, -errno, "socket");
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_errno(err, -errno, "listen %s", sa.sun_path);
	/* Nobody can connect before listen(), so the mode is right from the first moment. */
	if (chmod(sa.sun_path, mode) < 0 || listen(fd, SOMAXCONN) < 0) {
		r = -errno;
		(void)unlink(sa.sun_path);
		return err_errno(err, r, "listen %s", sa.sun_path);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

int program_dir(char **ret, struct err *err)
{
	char path[PATH_MAX];
	char *slash;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n < 0)
		return err_errno(err, -errno, "/proc/self/exe");
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return err_set(err, -EINVAL, "/proc/self/exe: not an absolute path: %s", path);
	*slash = '\0';
	*ret = strdup(slash == path ? "/" : path);
	return *ret ? 0 : err_nomem(err);
}

/* ---- clocks ---- */

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t now_mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t now_real_ns(void)
{
	return (int64_t)clock_ns(CLOCK_REALTIME);
}
