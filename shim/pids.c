#include "shim/pids.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/process.h"
#include "base/util.h"

#define FILE_MAX 4096
#define STAT_MAX 4096

/* Fields 4 and 22 of /proc/PID/stat. The directory stands for one process, also when its number
 * goes to another one. */
static int read_stat(int proc_fd, pid_t *ret_parent, uint64_t *ret_start)
{
	cleanup_fd int fd = openat(proc_fd, "stat", O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;
	uint64_t parent = 0;
	char *p, *save = NULL;
	int r = fd < 0 ? -errno : read_fd(fd, STAT_MAX, &text, NULL);

	if (r < 0)
		return r;
	/* The name in parentheses may hold anything, also ") ". */
	p = strrchr(text, ')');
	if (!p)
		return -EBADMSG;
	p = strtok_r(p + 1, " ", &save); /* field 3 */
	for (int field = 3; p && field < 22; field++) {
		if (field == 4 && str_to_u64(p, 0, INT32_MAX, &parent) < 0)
			return -EBADMSG;
		p = strtok_r(NULL, " ", &save);
	}
	if (!p)
		return -EBADMSG;
	*ret_parent = (pid_t)parent;
	return str_to_u64(p, 0, UINT64_MAX, ret_start);
}

static int open_proc(pid_t pid, pid_t *ret_parent, uint64_t *ret_start)
{
	char path[40];
	int fd, r;

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	r = read_stat(fd, ret_parent, ret_start);
	if (r < 0)
		fd_close(&fd);
	return r < 0 ? r : fd;
}

static int start_time(pid_t pid, uint64_t *ret)
{
	cleanup_fd int fd = -1;
	pid_t parent;

	fd = open_proc(pid, &parent, ret);
	return fd < 0 ? fd : 0;
}

int pids_start_time(pid_t pid, pid_t parent, uint64_t *ret)
{
	cleanup_fd int fd = -1;
	uint64_t start;
	pid_t is;

	fd = open_proc(pid, &is, &start);
	if (fd < 0)
		return fd;
	if (is != parent)
		return -ESRCH;
	*ret = start;
	return 0;
}

int pids_set_oom_score(pid_t pid, pid_t parent, uint64_t start, int score)
{
	cleanup_fd int proc = -1, fd = -1;
	uint64_t is_start;
	char text[16];
	pid_t is;
	int n;

	proc = open_proc(pid, &is, &is_start);
	if (proc < 0)
		return proc;
	if (is != parent || is_start != start)
		return -ESRCH;
	fd = openat(proc, "oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%d", score);
	return write_all(fd, text, (size_t)n);
}

int pids_write(const char *bundle, const struct pid_entry *list, size_t n, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" PIDS_FILE, bundle);
	cleanup_buf struct buf b;
	uint64_t when;
	int r = 0;

	buf_init(&b, FILE_MAX);
	for (size_t i = 0; i < n && r == 0; i++) {
		when = list[i].start;
		if (list[i].pid <= 0 || (!when && start_time(list[i].pid, &when) < 0))
			continue;
		r = buf_printf(&b, "%s %d %llu\n", list[i].name, (int)list[i].pid,
			       (unsigned long long)when);
	}
	if (!path || r < 0)
		return err_nomem(err);
	return write_file_atomic(path, buf_data(&b), buf_len(&b), 0600, false, err);
}

/* A pidfd of the process when it is still the recorded one, else -1. */
static int open_same(pid_t pid, uint64_t when)
{
	cleanup_fd int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	uint64_t now;

	/* Opened first, then compared: the number cannot change its owner in between unnoticed. */
	if (fd < 0 || start_time(pid, &now) < 0 || now != when)
		return -1;
	return take_fd(&fd);
}

int pids_kill(const char *bundle, int timeout_ms, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" PIDS_FILE, bundle);
	cleanup_free char *text = NULL;
	uint64_t deadline = now_mono_ns() + (uint64_t)timeout_ms * NS_PER_MS, now;
	int fds[PIDS_MAX], n = 0, r;
	char *line, *save = NULL;

	if (!path)
		return err_nomem(err);
	r = read_file(path, FILE_MAX, &text, NULL, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (line = strtok_r(text, "\n", &save); line && n < PIDS_MAX;
	     line = strtok_r(NULL, "\n", &save)) {
		unsigned long long when;
		int pid, fd;

		if (sscanf(line, "%*15[a-z] %d %llu", &pid, &when) != 2 || pid <= 1)
			continue;
		fd = open_same(pid, when);
		if (fd >= 0)
			fds[n++] = fd;
	}
	for (int i = 0; i < n; i++)
		(void)pidfd_signal(fds[i], SIGKILL);
	r = n;
	for (int i = 0; i < n; i++) {
		struct pollfd p = { .fd = fds[i], .events = POLLIN };

		now = now_mono_ns();
		if (poll(&p, 1, now < deadline ? (int)((deadline - now) / NS_PER_MS) : 0) <= 0)
			r = err_set(err, -ETIMEDOUT, "processes of the pod do not end");
		fd_close(&fds[i]);
	}
	return r;
}

/* ---- the lock ---- */

static void pids_on_alarm(int signal)
{
}

/* flock with an end. */
static int lock_in_time(int fd, unsigned ms)
{
	struct sigaction act = { .sa_handler = pids_on_alarm }, old; /* no SA_RESTART */
	/* Again and again: the first may come before flock waits. */
	struct itimerval on = { .it_value.tv_sec = ms / 1000,
				.it_value.tv_usec = (suseconds_t)(ms % 1000) * 1000,
				.it_interval.tv_usec = 100000 };
	struct itimerval off = { 0 };
	int r = 0;

	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (sigaction(SIGALRM, &act, &old) < 0)
		return -errno;
	if (setitimer(ITIMER_REAL, &on, NULL) < 0 || flock(fd, LOCK_EX) < 0)
		r = errno == EINTR ? -ETIMEDOUT : -errno;
	(void)setitimer(ITIMER_REAL, &off, NULL);
	(void)sigaction(SIGALRM, &old, NULL);
	return r;
}

int pids_lock(const char *bundle, int *ret_fd, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" PIDS_LOCK, bundle);
	cleanup_fd int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	int r;

	if (!path)
		return err_nomem(err);
	if (fd < 0)
		return err_errno(err, -errno, "lock of %s", bundle);
	r = lock_in_time(fd, PIDS_LOCK_MS);
	if (r < 0)
		return err_errno(err, r, "lock of %s", bundle);
	*ret_fd = take_fd(&fd);
	return 0;
}

int pids_lock_check(int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_errno(err, -errno, "lock");
	if (st.st_nlink == 0 || st.st_size > 0)
		return err_set(err, -ESTALE, "the bundle was deleted in the meantime");
	return 0;
}

int pids_lock_mark(int fd, struct err *err)
{
	static const char mark[] = "deleted\n";
	int r = write_all(fd, mark, sizeof(mark) - 1);

	return r < 0 ? err_errno(err, r, "lock") : 0;
}
