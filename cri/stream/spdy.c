#include "cri/stream/spdy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 0x8003u /* with the bit of control frames */
#define FLAG_FIN 1u
#define FLAG_UNIDIRECTIONAL 2u
#define HEADER_LEN 8u

enum type {
	SYN_STREAM = 1,
	SYN_REPLY = 2,
	RST_STREAM = 3,
	SETTINGS = 4,
	PING = 6,
	GOAWAY = 7,
	HEADERS = 8,
	WINDOW_UPDATE = 9,
};

struct stream {
	uint32_t id; /* 0 = free */
	bool in_ended, out_ended;
};

struct spdy {
	struct buf *out; /* borrowed */
	const struct spdy_ops *ops;
	void *arg;
	struct spdy_reader reader;
	struct spdy_writer writer;
	uint32_t last_id; /* of the client */
	unsigned refused, headers;

	/* The frame in hand. */
	uint8_t header[HEADER_LEN];
	size_t header_n;
	uint32_t left;	    /* of its payload */
	struct buf control; /* payload of a control frame */
	uint32_t data_id;   /* a data frame's stream */
	struct spdy_pairs pairs;

	unsigned max_streams;
	struct stream streams[];
};

int spdy_new(unsigned max_streams, struct buf *out, const struct spdy_ops *ops, void *arg,
	     struct spdy **ret)
{
	struct spdy *s = calloc(1, sizeof(*s) + max_streams * sizeof(s->streams[0]));
	int r;

	if (!s)
		return -ENOMEM;
	s->out = out;
	s->ops = ops;
	s->arg = arg;
	s->max_streams = max_streams;
	buf_init(&s->control, SPDY_CONTROL_MAX);
	r = spdy_reader_init(&s->reader);
	if (r == 0)
		r = spdy_writer_init(&s->writer);
	if (r < 0) {
		spdy_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void spdy_free(struct spdy *s)
{
	if (!s)
		return;
	spdy_reader_fini(&s->reader);
	spdy_writer_fini(&s->writer);
	buf_fini(&s->control);
	free(s);
}

/* id 0: a free place. */
static struct stream *find(struct spdy *s, uint32_t id)
{
	for (unsigned i = 0; i < s->max_streams; i++)
		if (s->streams[i].id == id)
			return &s->streams[i];
	return NULL;
}

/* ---- sending ---- */

static int put_frame(struct spdy *s, uint32_t first, uint8_t flags, const void *payload, size_t n)
{
	uint8_t *p;
	int r = n <= SPDY_DATA_MAX ? buf_reserve(s->out, HEADER_LEN + n, &p) : -EMSGSIZE;

	if (r < 0)
		return r;
	put_be32(p, first);
	put_be32(p + 4, (uint32_t)n);
	p[4] = flags;
	if (n > 0)
		memcpy(p + HEADER_LEN, payload, n);
	buf_commit(s->out, HEADER_LEN + n);
	return 0;
}

static int put_control(struct spdy *s, enum type type, uint8_t flags, const void *payload, size_t n)
{
	return put_frame(s, VERSION << 16 | type, flags, payload, n);
}

static int put_two(struct spdy *s, enum type type, uint32_t a, uint32_t b)
{
	uint8_t payload[8];

	put_be32(payload, a);
	put_be32(payload + 4, b);
	return put_control(s, type, 0, payload, sizeof(payload));
}

static int put_reply(struct spdy *s, uint32_t id)
{
	uint8_t payload[4 + 64];
	int n = spdy_writer_empty(&s->writer, payload + 4, sizeof(payload) - 4);

	if (n < 0)
		return n;
	put_be32(payload, id);
	return put_control(s, SYN_REPLY, 0, payload, 4 + (size_t)n);
}

int spdy_send(struct spdy *s, uint32_t id, const uint8_t *data, size_t n)
{
	struct stream *st = id ? find(s, id) : NULL;

	return st && !st->out_ended ? put_frame(s, id, 0, data, n) : 0;
}

static void leave_if_ended(struct stream *st)
{
	if (st->in_ended && st->out_ended)
		*st = (struct stream){ 0 };
}

int spdy_end(struct spdy *s, uint32_t id)
{
	struct stream *st = id ? find(s, id) : NULL;
	int r;

	if (!st || st->out_ended)
		return 0;
	r = put_frame(s, id, FLAG_FIN, NULL, 0);
	if (r == 0) {
		st->out_ended = true;
		leave_if_ended(st);
	}
	return r;
}

int spdy_goaway(struct spdy *s, enum spdy_goaway status)
{
	return put_two(s, GOAWAY, s->last_id, status);
}

/* ---- receiving ---- */

static int stream_ended(struct spdy *s, struct stream *st)
{
	uint32_t id = st->id;

	st->in_ended = true;
	leave_if_ended(st);
	return s->ops->end(s->arg, id);
}

static int refuse(struct spdy *s, uint32_t id, int status)
{
	if (++s->refused > SPDY_REFUSED_MAX)
		return -EPROTO;
	return put_two(s, RST_STREAM, id, (uint32_t)status);
}

static int on_syn_stream(struct spdy *s, struct cur *c, uint8_t flags)
{
	uint32_t id = cur_be32(c) & 0x7fffffff;
	struct stream *st;
	int r;

	(void)cur_be32(c); /* the stream it belongs to */
	(void)cur_be16(c); /* priority */
	if (c->bad || id % 2 == 0 || id <= s->last_id)
		return -EPROTO;
	s->last_id = id;
	r = spdy_reader_block(&s->reader, c->p, cur_left(c), &s->pairs);
	if (r < 0)
		return r;
	st = find(s, 0);
	if (!st)
		return refuse(s, id, SPDY_RST_REFUSED_STREAM);
	if (flags & FLAG_UNIDIRECTIONAL)
		return refuse(s, id, SPDY_RST_PROTOCOL_ERROR);
	/* Whatever the owner sends on it comes after the answer: a client drops what is before. */
	*st = (struct stream){ .id = id };
	r = s->ops->open(s->arg, id, &s->pairs);
	if (r != 0)
		*st = (struct stream){ 0 };
	if (r > 0)
		return refuse(s, id, r);
	if (r == 0)
		r = put_reply(s, id);
	if (r == 0 && (flags & FLAG_FIN))
		r = stream_ended(s, st);
	return r;
}

static int on_headers(struct spdy *s, struct cur *c, uint8_t flags)
{
	uint32_t id = cur_be32(c) & 0x7fffffff;
	struct stream *st = id ? find(s, id) : NULL;
	int r;

	if (c->bad || ++s->headers > SPDY_HEADERS_FRAMES_MAX)
		return -EPROTO;
	r = spdy_reader_block(&s->reader, c->p, cur_left(c), &s->pairs);
	if (r == 0 && (flags & FLAG_FIN) && st && !st->in_ended)
		r = stream_ended(s, st);
	return r;
}

static int on_rst_stream(struct spdy *s, struct cur *c)
{
	uint32_t id = cur_be32(c) & 0x7fffffff;
	struct stream *st = id ? find(s, id) : NULL;

	(void)cur_be32(c); /* the reason */
	if (c->bad)
		return -EPROTO;
	if (st) {
		*st = (struct stream){ 0 };
		s->ops->reset(s->arg, id);
	}
	return 0;
}

static int on_ping(struct spdy *s, struct cur *c)
{
	uint8_t payload[4];
	uint32_t id = cur_be32(c);

	if (c->bad)
		return -EPROTO;
	if (id % 2 == 0)
		return 0; /* an answer to none of ours */
	put_be32(payload, id);
	return put_control(s, PING, 0, payload, sizeof(payload));
}

static int on_control(struct spdy *s)
{
	struct cur c = cur_of(buf_data(&s->control), buf_len(&s->control));
	unsigned type = (unsigned)s->header[2] << 8 | s->header[3];
	uint8_t flags = s->header[4];

	switch (type) {
	case SYN_STREAM:
		return on_syn_stream(s, &c, flags);
	case HEADERS:
		return on_headers(s, &c, flags);
	case RST_STREAM:
		return on_rst_stream(s, &c);
	case PING:
		return on_ping(s, &c);
	case GOAWAY:
		s->ops->goaway(s->arg);
		return 0;
	case SETTINGS:
	case WINDOW_UPDATE:
		return 0;
	default: /* SYN_REPLY, too: we opened no stream */
		return -EPROTO;
	}
}

/* The first eight bytes are there. */
static int on_header(struct spdy *s)
{
	struct cur c = cur_of(s->header, HEADER_LEN);
	uint32_t first = cur_be32(&c);

	s->left = cur_be32(&c) & 0xffffff;
	if (first >> 31 == 0) {
		s->data_id = first;
		return first ? 0 : -EPROTO;
	}
	s->data_id = 0;
	if (first >> 16 != VERSION)
		return -EPROTO;
	return s->left <= SPDY_CONTROL_MAX ? 0 : -EMSGSIZE;
}

/* The frame is complete. */
static int on_frame_end(struct spdy *s)
{
	struct stream *st;
	int r = 0;

	s->header_n = 0;
	if (!s->data_id) {
		r = on_control(s);
		buf_clear(&s->control);
	} else if (s->header[4] & FLAG_FIN) {
		st = find(s, s->data_id);
		if (st && !st->in_ended)
			r = stream_ended(s, st);
	}
	return r;
}

static int on_payload(struct spdy *s, const uint8_t *data, size_t n)
{
	const struct stream *st;

	if (!s->data_id)
		return buf_put(&s->control, data, n);
	/* Of a stream that was refused or has ended: the client may not know it yet. */
	st = find(s, s->data_id);
	return st && !st->in_ended ? s->ops->data(s->arg, s->data_id, data, n) : 0;
}

static int feed(struct spdy *s, const uint8_t *data, size_t n)
{
	size_t part;
	int r = 0;

	while (n > 0 && r == 0) {
		if (s->header_n < HEADER_LEN) {
			part = MIN_OF(n, HEADER_LEN - s->header_n);
			memcpy(s->header + s->header_n, data, part);
			s->header_n += part;
			if (s->header_n == HEADER_LEN)
				r = on_header(s);
		} else {
			part = MIN_OF(n, s->left);
			r = on_payload(s, data, part);
			s->left -= (uint32_t)part;
		}
		data += part;
		n -= part;
		if (r == 0 && s->header_n == HEADER_LEN && s->left == 0)
			r = on_frame_end(s);
	}
	return r;
}

int spdy_feed(struct spdy *s, const uint8_t *data, size_t n)
{
	int r = feed(s, data, n);

	if (r < 0)
		(void)!spdy_goaway(s, SPDY_GOAWAY_PROTOCOL_ERROR);
	return r;
}
