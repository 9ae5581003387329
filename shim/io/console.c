#include "shim/io/console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

#define CHUNK (4 * KIB)
#define ESCAPED_MAX 4	/* bytes of "\xNN" */
#define DRAIN_ROUNDS 32 /* a pipe holds 64 KiB */

struct console {
	char *path;
	int file;    /* -1 = cannot be written */
	size_t size; /* of the file */
	int pipe;
	struct ev_io io;
	uint64_t tokens, filled_ns; /* bytes that may be written now, and when that was counted */
	uint64_t dropped;	    /* since the file said so */
	size_t n;
	char tail[CONSOLE_TAIL_MAX + 1];
};

/* ---- the file ---- */

static int open_file(struct console *c)
{
	struct stat st;

	/* O_NONBLOCK: a FIFO in this place must not stop the shim. */
	c->file = open(c->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
		       0640);
	if (c->file < 0 || fstat(c->file, &st) < 0)
		return -errno;
	c->size = (size_t)st.st_size;
	return 0;
}

static void rotate(struct console *c)
{
	cleanup_free char *old = str_fmt("%s.1", c->path);

	fd_close(&c->file);
	if (old && rename(c->path, old) == 0)
		(void)!open_file(c);
}

/* A file that cannot be written loses text; the tail has it still. */
static void put_file(struct console *c, const char *text, size_t n)
{
	ssize_t w;

	if (c->file >= 0 && c->size + n > CONSOLE_FILE_MAX)
		rotate(c);
	if (c->file < 0)
		return;
	w = write(c->file, text, n);
	if (w > 0)
		c->size += (size_t)w;
}

/* ---- limits ---- */

/* May n bytes be written now? */
static bool within_rate(struct console *c, size_t n)
{
	uint64_t now = now_mono_ns(), passed = now - c->filled_ns;
	uint64_t more = MIN_OF(passed, 3600 * NS_PER_S) * CONSOLE_RATE / NS_PER_S;

	if (more > 0) {
		c->tokens = MIN_OF(c->tokens + more, CONSOLE_BURST);
		c->filled_ns = now;
	}
	if (n > c->tokens)
		return false;
	c->tokens -= n;
	return true;
}

static size_t escape(const uint8_t *in, size_t n, char *out)
{
	static const char hex[] = "0123456789abcdef";
	char *o = out;

	for (size_t i = 0; i < n; i++) {
		if (in[i] == '\r') /* before each newline of a serial port */
			continue;
		if (in[i] == '\n' || in[i] == '\t' || (in[i] >= 0x20 && in[i] < 0x7f)) {
			*o++ = (char)in[i];
			continue;
		}
		*o++ = '\\';
		*o++ = 'x';
		*o++ = hex[in[i] >> 4];
		*o++ = hex[in[i] & 15];
	}
	return (size_t)(o - out);
}

static void put_tail(struct console *c, const char *text, size_t n)
{
	size_t keep;

	if (n > CONSOLE_TAIL_MAX) {
		text += n - CONSOLE_TAIL_MAX;
		n = CONSOLE_TAIL_MAX;
	}
	keep = MIN_OF(c->n, CONSOLE_TAIL_MAX - n);
	memmove(c->tail, c->tail + c->n - keep, keep);
	memcpy(c->tail + keep, text, n);
	c->n = keep + n;
	c->tail[c->n] = 0;
}

static void take(struct console *c, const uint8_t *data, size_t n)
{
	char text[CHUNK * ESCAPED_MAX], said[80];
	size_t len = escape(data, n, text);
	int k;

	put_tail(c, text, len);
	if (!within_rate(c, n)) {
		c->dropped += n;
		return;
	}
	if (c->dropped) {
		k = snprintf(said, sizeof(said), "\n[%llu bytes dropped]\n",
			     (unsigned long long)c->dropped);
		put_file(c, said, (size_t)k);
		c->dropped = 0;
	}
	put_file(c, text, len);
}

/* ---- the pipe ---- */

/* False: nothing there, or nothing any more. */
static bool receive(struct console *c)
{
	uint8_t data[CHUNK];
	ssize_t n = read(c->pipe, data, sizeof(data));

	if (n > 0)
		take(c, data, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		ev_io_del(&c->io);
	return n > 0;
}

static void console_on_output(struct ev_io *io, uint32_t events)
{
	(void)receive(io->arg);
}

void console_drain(struct console *c)
{
	for (int i = 0; i < DRAIN_ROUNDS && receive(c); i++)
		;
}

int console_new(struct loop *l, const char *path, struct console **ret, int *ret_fd,
		struct err *err)
{
	struct console *c = calloc(1, sizeof(*c));
	int p[2] = { -1, -1 }, r = 0;

	if (!c)
		return err_nomem(err);
	*c = (struct console){ .path = strdup(path),
			       .file = -1,
			       .tokens = CONSOLE_BURST,
			       .filled_ns = now_mono_ns() };
	if (!c->path)
		r = -ENOMEM;
	if (r == 0 && pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		r = -errno;
	c->pipe = p[0];
	if (r == 0)
		r = open_file(c);
	if (r == 0)
		r = ev_io_add(l, &c->io, c->pipe, EPOLLIN, console_on_output, c);
	if (r < 0) {
		fd_close(&p[1]);
		console_free(c);
		return r == -ENOMEM ? err_nomem(err) : err_errno(err, r, "console %s", path);
	}
	*ret_fd = p[1];
	*ret = c;
	return 0;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	ev_io_del(&c->io);
	fd_close(&c->pipe);
	fd_close(&c->file);
	free(c->path);
	free(c);
}

/* ---- what it said ---- */

const char *console_path(const struct console *c)
{
	return c->path;
}

const char *console_tail(const struct console *c, size_t max)
{
	const char *from = c->tail, *line;

	if (c->n > max)
		from = c->tail + c->n - max;
	if (from == c->tail ? c->n < CONSOLE_TAIL_MAX : from[-1] == '\n')
		return from; /* a whole line */
	line = strchr(from, '\n');
	return line ? line + 1 : from;
}

/* The text of the last line that has `word` in it, without the kernel's time in front. */
static const char *find_line(const char *text, const char *word, size_t *ret_n)
{
	const char *at = NULL, *p = text, *end;

	while ((p = strstr(p, word))) {
		at = p;
		p += strlen(word);
	}
	if (!at)
		return NULL;
	while (at > text && at[-1] != '\n')
		at--;
	end = at + strcspn(at, "\n");
	if (*at == '[') {
		p = memchr(at, ']', (size_t)(end - at));
		if (p)
			at = p + 1;
	}
	while (*at == ' ')
		at++;
	*ret_n = (size_t)(end - at);
	return at;
}

void console_cause(const struct console *c, char *buf, size_t size)
{
	static const char *const before[] = { "BUG: ", "Oops: ", "general protection fault" };
	size_t n = 0, m = 0;
	const char *panic = find_line(c->tail, "Kernel panic - not syncing", &n), *first = NULL;

	/* "Fatal exception" alone says nothing: what it was stands some lines before. */
	for (size_t i = 0; i < ARRAY_SIZE(before) && !first; i++)
		first = find_line(c->tail, before[i], &m);
	buf[0] = 0;
	if (panic && first && first < panic)
		(void)snprintf(buf, size, "%.*s; %.*s", (int)n, panic, (int)m, first);
	else if (panic)
		(void)snprintf(buf, size, "%.*s", (int)n, panic);
}
