/*
 * Bounded byte buffers and cursors. Bytes from outside the process are read through a `struct cur`,
 * which refuses instead of overrunning; everything that grows is a `struct buf` with a maximum that
 * is fixed when it is made. Not thread-safe.
 */
#ifndef HUSK_BASE_BUF_H
#define HUSK_BASE_BUF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

struct buf {
	uint8_t *data; /* owned */
	size_t off;    /* first unread byte */
	size_t len;    /* end of the bytes */
	size_t cap;
	size_t max; /* len - off never exceeds this */
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b); /* frees; the buffer can be used again with the same maximum */
#define cleanup_buf cleanup_with(buf_fini)

static inline size_t buf_len(const struct buf *b)
{
	return b->len - b->off;
}
static inline const uint8_t *buf_data(const struct buf *b)
{
	return b->data ? b->data + b->off : NULL;
}
/* -ENOBUFS beyond the maximum (nothing was appended), -ENOMEM. */
int buf_put(struct buf *b, const void *data, size_t n) must_check;
int buf_printf(struct buf *b, const char *fmt, ...) printf_like(2, 3) must_check;
/* Room for n more bytes at *ret; count them with buf_commit. */
int buf_reserve(struct buf *b, size_t n, uint8_t **ret) must_check;
void buf_commit(struct buf *b, size_t n);  /* at most what was reserved (check) */
void buf_consume(struct buf *b, size_t n); /* at most buf_len (check) */
void buf_clear(struct buf *b);
/* Appends what one read() gives, at most `most`. Bytes read, 0 = end of file, -EAGAIN, -ENOBUFS
 * when full. */
ssize_t buf_read_fd(struct buf *b, int fd, size_t most) must_check;
/* One write() of what is there, consumed by as much. -EAGAIN, -errno. */
ssize_t buf_write_fd(struct buf *b, int fd) must_check;
/* The bytes as a NUL-terminated string; ownership moves to the caller, the buffer is empty then.
 * NULL: out of memory. */
char *buf_take_str(struct buf *b) must_check;

/* A reader over bytes that stay where they are. Once a read fails, `bad` stays set and reads give
 * 0. */
struct cur {
	const uint8_t *p, *end;
	bool bad;
};

static inline struct cur cur_of(const void *data, size_t n)
{
	const uint8_t *p = data;

	return (struct cur){ .p = p, .end = n ? p + n : p };
}
static inline size_t cur_left(const struct cur *c)
{
	return (size_t)(c->end - c->p);
}
uint8_t cur_u8(struct cur *c);
uint16_t cur_le16(struct cur *c);
uint32_t cur_le32(struct cur *c);
uint64_t cur_le64(struct cur *c);
uint16_t cur_be16(struct cur *c);
uint32_t cur_be32(struct cur *c);
uint64_t cur_be64(struct cur *c);
/* Pointer to the next n bytes, NULL when there are fewer. */
const uint8_t *cur_bytes(struct cur *c, size_t n);
/* Copies n bytes; on failure `out` is zeroed. */
bool cur_copy(struct cur *c, void *out, size_t n);

/* The four bytes that cur_be32 reads. */
void put_be32(uint8_t *p, uint32_t v);

#endif
