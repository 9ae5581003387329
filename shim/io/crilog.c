#include "shim/io/crilog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define BATCH_IOV 510 /* a line takes up to 4; IOV_MAX is 1024 */
#define HEADER_MAX 64

struct crilog {
	char *path;
	int fd;
	uint64_t lost;
	bool torn; /* the file ends in a broken line that could not be cut off */
};

/* Lines of one call, gathered for one writev. Headers differ in the tag only. */
struct batch {
	struct crilog *log;
	struct iovec iov[BATCH_IOV];
	int n;
	int code;		    /* of the last failure */
	char header[2][HEADER_MAX]; /* P, F */
	size_t header_n;
};

int crilog_open(const char *path, struct crilog **ret, struct err *err)
{
	cleanup_free char *dir = NULL;
	struct crilog *log;
	const char *slash;
	int r;

	if (path[0] != '/')
		return err_set(err, -EINVAL, "log path %s is not absolute", path);
	slash = strrchr(path, '/');
	dir = strndup(path, (size_t)(slash - path));
	if (!dir)
		return err_nomem(err);
	if (*dir) {
		r = mkdir_p(dir, 0755, err);
		if (r < 0)
			return err_wrap(err, r, "log directory");
	}
	log = calloc(1, sizeof(*log));
	if (!log)
		return err_nomem(err);
	log->fd = -1;
	log->path = strdup(path);
	r = log->path ? crilog_reopen(log, err) : err_nomem(err);
	if (r < 0) {
		crilog_free(log);
		return r;
	}
	*ret = log;
	return 0;
}

/* /dev/null, /dev/full and their kin: "mem" in Documentation/admin-guide/devices.txt. */
#define MEMORY_DEVICES 1

bool crilog_never_waits(const struct stat *st)
{
	return S_ISREG(st->st_mode) ||
	       (S_ISCHR(st->st_mode) && major(st->st_rdev) == MEMORY_DEVICES);
}

int crilog_reopen(struct crilog *log, struct err *err)
{
	/* O_NONBLOCK: a FIFO in this place must not stop the shim. */
	cleanup_fd int fd = open(
		log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
	struct stat st;

	if (fd < 0)
		return err_errno(err, -errno, "log %s", log->path);
	if (fstat(fd, &st) < 0)
		return err_errno(err, -errno, "log %s", log->path);
	if (!crilog_never_waits(&st))
		return err_set(err, -EINVAL, "log %s is not a regular file", log->path);
	fd_close(&log->fd);
	log->fd = take_fd(&fd);
	log->torn = false;
	return 0;
}

const char *crilog_path(const struct crilog *log)
{
	return log->path;
}

uint64_t crilog_lost(const struct crilog *log)
{
	return log->lost;
}

void crilog_free(struct crilog *log)
{
	if (!log)
		return;
	fd_close(&log->fd);
	free(log->path);
	free(log);
}

/* ---- a batch ---- */

static void batch_init(struct batch *b, struct crilog_stream *s, int64_t real_ns)
{
	time_t sec = (time_t)(real_ns / (int64_t)NS_PER_S);
	struct tm tm;
	char when[32];

	b->log = s->log;
	b->n = 0;
	b->code = 0;
	gmtime_r(&sec, &tm);
	if (!strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm))
		when[0] = 0;
	for (int i = 0; i < 2; i++)
		b->header_n = (size_t)snprintf(b->header[i], HEADER_MAX, "%s.%09lldZ %s %c ", when,
					       (long long)(real_ns % (int64_t)NS_PER_S),
					       s->is_stderr ? "stderr" : "stdout", "PF"[i]);
}

static void batch_failed(struct batch *b, off_t start, size_t bytes, int code)
{
	struct crilog *log = b->log;

	log->lost += bytes;
	/* Only the shim writes here, so the torn end can be cut off. */
	if (start >= 0 && ftruncate(log->fd, start) < 0)
		log->torn = true;
	b->code = code;
}

static void batch_flush(struct batch *b)
{
	struct crilog *log = b->log;
	struct iovec *iov = b->iov;
	size_t left = 0, total;
	off_t start = -1;
	ssize_t got;

	if (!b->n)
		return;
	for (int i = 0; i < b->n; i++)
		left += iov[i].iov_len;
	total = left;
	if (log->torn && write(log->fd, "\n", 1) == 1)
		log->torn = false;
	while (left) {
		got = writev(log->fd, iov, b->n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got == (ssize_t)left)
			break;
		if (got <= 0) {
			batch_failed(b, start, total, got < 0 ? -errno : -ENOSPC);
			b->n = 0;
			return;
		}
		/* A short write: usually the disk is full now. Try the rest once more. */
		if (start < 0)
			start = lseek(log->fd, 0, SEEK_END) - got;
		left -= (size_t)got;
		while (got > 0 && (size_t)got >= iov->iov_len) {
			got -= (ssize_t)iov->iov_len;
			iov++;
			b->n--;
		}
		iov->iov_base = (char *)iov->iov_base + got;
		iov->iov_len -= (size_t)got;
	}
	b->n = 0;
}

static void batch_add(struct batch *b, const void *p, size_t n)
{
	if (n)
		b->iov[b->n++] = (struct iovec){ .iov_base = (void *)p, .iov_len = n };
}

/* One line of the log: what was held (borrowed until the flush) and `n` bytes more. */
static void batch_line(struct batch *b, bool full, const uint8_t *held, size_t held_n,
		       const uint8_t *p, size_t n)
{
	if (b->n + 4 > BATCH_IOV)
		batch_flush(b);
	batch_add(b, b->header[full], b->header_n);
	batch_add(b, held, held_n);
	batch_add(b, p, n);
	batch_add(b, "\n", 1);
}

/* ---- streams ---- */

static void drop_held(struct crilog_stream *s)
{
	free(s->held);
	s->held = NULL;
	s->held_n = 0;
}

/* Keeps an incomplete line. Without memory it is written as a piece at once. */
static void hold(struct crilog_stream *s, struct batch *b, const uint8_t *p, size_t n)
{
	if (!n)
		return;
	if (!s->held)
		s->held = malloc(CRILOG_LINE_MAX);
	if (!s->held) {
		batch_line(b, false, NULL, 0, p, n);
		return;
	}
	memcpy(s->held + s->held_n, p, n);
	s->held_n += n;
}

int crilog_write(struct crilog_stream *s, const uint8_t *data, size_t n, int64_t real_ns)
{
	const uint8_t *end = data + n;
	struct batch b;

	batch_init(&b, s, real_ns);
	while (data < end) {
		const uint8_t *nl = memchr(data, '\n', (size_t)(end - data)), *line = data;
		size_t len = (size_t)((nl ? nl : end) - data), room = CRILOG_LINE_MAX - s->held_n;
		size_t held_n = s->held_n;

		if (!nl && len <= room) {
			hold(s, &b, line, len);
			break;
		}
		if (len > room) {
			batch_line(&b, false, s->held, held_n, line, room);
			data += room;
		} else {
			data = nl + 1;
			if (len && line[len - 1] == '\r')
				len--;
			else if (!len && held_n && s->held[held_n - 1] == '\r')
				held_n--;
			batch_line(&b, true, s->held, held_n, line, len);
		}
		if (s->held) {
			batch_flush(&b); /* the batch points into it */
			drop_held(s);
		}
	}
	batch_flush(&b);
	return b.code;
}

void crilog_eof(struct crilog_stream *s, int64_t real_ns)
{
	struct batch b;

	if (s->held_n) {
		batch_init(&b, s, real_ns);
		batch_line(&b, false, s->held, s->held_n, NULL, 0);
		batch_flush(&b);
	}
	drop_held(s);
}
