#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

#define BUF_FIRST_CAP 256u

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){ .max = max };
}

void buf_fini(struct buf *b)
{
	free(b->data);
	buf_init(b, b->max);
}

void buf_clear(struct buf *b)
{
	b->off = b->len = 0;
}

int buf_reserve(struct buf *b, size_t n, uint8_t **ret)
{
	size_t used = buf_len(b), cap;
	uint8_t *data;

	if (n > b->max - used)
		return -ENOBUFS;
	if (b->cap - b->len < n && b->off > 0) {
		if (used)
			memmove(b->data, b->data + b->off, used);
		b->off = 0;
		b->len = used;
	}
	if (b->cap - b->len < n) {
		cap = b->cap ? b->cap : BUF_FIRST_CAP;
		while (cap < used + n)
			cap = cap > b->max / 2 ? b->max : cap * 2;
		/* One byte more than counted: buf_take_str ends the string there. */
		data = realloc(b->data, cap + 1);
		if (!data)
			return -ENOMEM;
		b->data = data;
		b->cap = cap;
	}
	*ret = b->data ? b->data + b->len : NULL; /* n may be 0 */
	return 0;
}

void buf_commit(struct buf *b, size_t n)
{
	check(n <= b->cap - b->len);
	b->len += n;
}

void buf_consume(struct buf *b, size_t n)
{
	check(n <= buf_len(b));
	b->off += n;
	if (b->off == b->len)
		buf_clear(b);
}

int buf_put(struct buf *b, const void *data, size_t n)
{
	uint8_t *p;
	int r;

	if (n == 0)
		return 0;
	r = buf_reserve(b, n, &p);
	if (r < 0)
		return r;
	memcpy(p, data, n);
	buf_commit(b, n);
	return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	uint8_t *p;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	r = buf_reserve(b, (size_t)n, &p);
	if (r < 0)
		return r;
	/* The spare byte behind the capacity holds the NUL. */
	if (n > 0) {
		va_start(ap, fmt);
		(void)vsnprintf((char *)p, (size_t)n + 1, fmt, ap);
		va_end(ap);
	}
	buf_commit(b, (size_t)n);
	return 0;
}

ssize_t buf_read_fd(struct buf *b, int fd, size_t most)
{
	size_t room = b->max - buf_len(b);
	uint8_t *p;
	ssize_t n;
	int r;

	if (most > room)
		most = room;
	if (most == 0)
		return -ENOBUFS;
	r = buf_reserve(b, most, &p);
	if (r < 0)
		return r;
	do {
		n = read(fd, p, most);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	buf_commit(b, (size_t)n);
	return n;
}

ssize_t buf_write_fd(struct buf *b, int fd)
{
	ssize_t n;

	if (buf_len(b) == 0)
		return 0;
	do {
		n = write(fd, buf_data(b), buf_len(b));
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	buf_consume(b, (size_t)n);
	return n;
}

char *buf_take_str(struct buf *b)
{
	size_t n = buf_len(b);
	char *s;

	if (!b->data) {
		s = malloc(1);
		if (s)
			*s = '\0';
		return s;
	}
	if (b->off)
		memmove(b->data, b->data + b->off, n);
	s = (char *)b->data;
	s[n] = '\0';
	buf_init(b, b->max);
	return s;
}

const uint8_t *cur_bytes(struct cur *c, size_t n)
{
	const uint8_t *p = c->p;

	if (c->bad || cur_left(c) < n) {
		c->bad = true;
		return NULL;
	}
	c->p += n;
	return p;
}

bool cur_copy(struct cur *c, void *out, size_t n)
{
	const uint8_t *p = cur_bytes(c, n);

	if (!p) {
		memset(out, 0, n);
		return false;
	}
	memcpy(out, p, n);
	return true;
}

static uint64_t cur_le(struct cur *c, size_t n)
{
	const uint8_t *p = cur_bytes(c, n);
	uint64_t v = 0;

	for (size_t i = 0; p && i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static uint64_t cur_be(struct cur *c, size_t n)
{
	const uint8_t *p = cur_bytes(c, n);
	uint64_t v = 0;

	for (size_t i = 0; p && i < n; i++)
		v = v << 8 | p[i];
	return v;
}

uint8_t cur_u8(struct cur *c)
{
	return (uint8_t)cur_le(c, 1);
}

uint16_t cur_le16(struct cur *c)
{
	return (uint16_t)cur_le(c, 2);
}

uint32_t cur_le32(struct cur *c)
{
	return (uint32_t)cur_le(c, 4);
}

uint64_t cur_le64(struct cur *c)
{
	return cur_le(c, 8);
}

uint16_t cur_be16(struct cur *c)
{
	return (uint16_t)cur_be(c, 2);
}

uint32_t cur_be32(struct cur *c)
{
	return (uint32_t)cur_be(c, 4);
}

uint64_t cur_be64(struct cur *c)
{
	return cur_be(c, 8);
}

void put_be32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}
