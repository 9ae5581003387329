#include "cli/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

#define READ_CHUNK (64 * KIB)
#define OUT_MAX (128 * KIB)
#define WATCHED (IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF)

int follow_open(struct follow *f, const char *path, bool watch, struct err *err)
{
	int r;

	*f = (struct follow){ .fd = -1, .inotify = -1 };
	buf_init(&f->in, READ_CHUNK + FOLLOW_LINE_MAX);
	buf_init(&f->out[0], OUT_MAX);
	buf_init(&f->out[1], OUT_MAX);
	f->path = strdup(path);
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	r = !f->path ? -ENOMEM : f->fd < 0 ? -errno : 0;
	if (r == 0 && watch) {
		f->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		if (f->inotify < 0 || inotify_add_watch(f->inotify, path, WATCHED) < 0)
			r = -errno;
	}
	if (r < 0) {
		follow_close(f);
		return err_errno(err, r, "log %s", path);
	}
	return 0;
}

void follow_close(struct follow *f)
{
	fd_close(&f->fd);
	fd_close(&f->inotify);
	buf_fini(&f->in);
	buf_fini(&f->out[0]);
	buf_fini(&f->out[1]);
	free_ptr(&f->path);
}

int follow_fd(const struct follow *f)
{
	return f->inotify;
}

/* Skips one word and the space behind it; its length, or 0 when there is none. */
static size_t word(const char **p, const char *end)
{
	const char *space = memchr(*p, ' ', (size_t)(end - *p));
	size_t n;

	if (!space || space == *p)
		return 0;
	n = (size_t)(space - *p);
	*p = space + 1;
	return n;
}

int follow_parse(const char *line, size_t n, struct follow_line *ret)
{
	const char *p = line, *end = line + n, *stream, *tag;
	size_t len;

	if (word(&p, end) == 0)
		return -EBADMSG;
	stream = p;
	len = word(&p, end);
	if (len != 6 || (memcmp(stream, "stdout", 6) != 0 && memcmp(stream, "stderr", 6) != 0))
		return -EBADMSG;
	tag = p;
	len = word(&p, end);
	if (len == 0 || (*tag != 'P' && *tag != 'F') || (len > 1 && tag[1] != ':'))
		return -EBADMSG;
	*ret = (struct follow_line){ .is_stderr = stream[3] == 'e',
				     .partial = *tag == 'P',
				     .content = p,
				     .len = (size_t)(end - p) };
	return 0;
}

static int flush(struct follow *f, int which)
{
	int r = write_all(which == 0 ? STDOUT_FILENO : STDERR_FILENO, buf_data(&f->out[which]),
			  buf_len(&f->out[which]));

	buf_clear(&f->out[which]);
	return r;
}

static int emit(struct follow *f, const char *data, size_t n, int which)
{
	int r;

	/* Order between the two streams is kept as far as the log has it. */
	if (buf_len(&f->out[!which])) {
		r = flush(f, !which);
		if (r < 0)
			return r;
	}
	if (buf_len(&f->out[which]) + n > OUT_MAX) {
		r = flush(f, which);
		if (r < 0)
			return r;
	}
	return buf_put(&f->out[which], data, n);
}

/* Takes complete lines from `in`. */
static int take_lines(struct follow *f)
{
	struct follow_line l;
	const char *p, *nl;
	size_t n;
	int r;

	while (buf_len(&f->in) > 0) {
		p = (const char *)buf_data(&f->in);
		nl = memchr(p, '\n', buf_len(&f->in));
		if (!nl)
			return buf_len(&f->in) > FOLLOW_LINE_MAX ? -EBADMSG : 0;
		n = (size_t)(nl - p);
		r = follow_parse(p, n, &l);
		if (r == 0)
			r = emit(f, l.content, l.len, l.is_stderr);
		if (r == 0 && !l.partial)
			r = emit(f, "\n", 1, l.is_stderr);
		if (r < 0)
			return r;
		buf_consume(&f->in, n + 1);
	}
	return 0;
}

static int read_to_end(struct follow *f)
{
	ssize_t n;
	int r;

	for (;;) {
		n = buf_read_fd(&f->in, f->fd, READ_CHUNK);
		if (n < 0)
			return (int)n;
		if (n == 0)
			break;
		r = take_lines(f);
		if (r < 0)
			return r;
	}
	r = flush(f, 0);
	return r < 0 ? r : flush(f, 1);
}

/* Opens the file at the path again if it is another one than the one in hand. */
static bool rotated(struct follow *f)
{
	struct stat now, old;
	int fd;

	if (fstat(f->fd, &old) < 0 || stat(f->path, &now) < 0 ||
	    (now.st_ino == old.st_ino && now.st_dev == old.st_dev))
		return false;
	fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	fd_close(&f->fd);
	f->fd = fd;
	if (f->inotify >= 0)
		(void)inotify_add_watch(f->inotify, f->path, WATCHED);
	return true;
}

int follow_read(struct follow *f, struct err *err)
{
	char events[4096];
	int r;

	while (f->inotify >= 0 && read(f->inotify, events, sizeof(events)) > 0)
		;
	do {
		r = read_to_end(f);
		if (r == -EBADMSG)
			return err_set(err, r, "log %s: not the log of a container", f->path);
		if (r < 0)
			return err_errno(err, r, "log %s", f->path);
	} while (rotated(f));
	return 0;
}
