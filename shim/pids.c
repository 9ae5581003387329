#include "shim/pids.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/util.h"

#define FILE_MAX 4096
#define STAT_MAX 4096

static int start_time(pid_t pid, uint64_t *ret)
{
	cleanup_free char *text = NULL;
	char path[64], *p, *save = NULL;
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = read_file(path, STAT_MAX, &text, NULL, NULL);
	if (r < 0)
		return r;
	/* The name in parentheses may hold anything, also ") ". */
	p = strrchr(text, ')');
	if (!p)
		return -EBADMSG;
	p = strtok_r(p + 1, " ", &save); /* field 3 */
	for (int field = 3; p && field < 22; field++)
		p = strtok_r(NULL, " ", &save);
	if (!p)
		return -EBADMSG;
	return str_to_u64(p, 0, UINT64_MAX, ret);
}

int pids_write(const char *bundle, const struct pid_entry *list, size_t n, struct err *err)
{
	cleanup_free char *path = str_fmt("%s/" PIDS_FILE, bundle);
	cleanup_buf struct buf b;
	uint64_t when;
	int r = 0;

	buf_init(&b, FILE_MAX);
	for (size_t i = 0; i < n && r == 0; i++) {
		if (list[i].pid <= 0 || start_time(list[i].pid, &when) < 0)
			continue;
		r = buf_printf(&b, "%s %d %llu\n", list[i].name, (int)list[i].pid,
			       (unsigned long long)when);
	}
	if (!path || r < 0)
		return err_errno(err, -ENOMEM, "record of processes");
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
		return -ENOMEM;
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
		(void)syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0);
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
