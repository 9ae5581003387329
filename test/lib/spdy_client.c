#include "test/lib/spdy_client.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "cri/stream/spdy_block.h"

static uint8_t dictionary[SPDY_DICTIONARY_LEN];

void spdy_client_init(struct spdy_client *c)
{
	*c = (struct spdy_client){ 0 };
	buf_init(&c->out, 64 * MIB);
	spdy_dictionary(dictionary);
	check(deflateInit(&c->z, Z_BEST_COMPRESSION) == Z_OK);
	check(deflateSetDictionary(&c->z, dictionary, sizeof(dictionary)) == Z_OK);
	check(inflateInit(&c->back) == Z_OK);
}

void spdy_client_fini(struct spdy_client *c)
{
	(void)deflateEnd(&c->z);
	(void)inflateEnd(&c->back);
	buf_fini(&c->out);
}

static void frame(struct spdy_client *c, uint32_t first, uint8_t flags, const void *p, size_t n)
{
	uint8_t header[8];

	put_be32(header, first);
	put_be32(header + 4, (uint32_t)n);
	header[4] = flags;
	check(buf_put(&c->out, header, sizeof(header)) == 0);
	check(n == 0 || buf_put(&c->out, p, n) == 0);
}

void spdy_client_control(struct spdy_client *c, unsigned type, uint8_t flags, const void *payload,
			 size_t n)
{
	frame(c, 0x80030000u | type, flags, payload, n);
}

void spdy_client_data(struct spdy_client *c, uint32_t id, uint8_t flags, const void *data, size_t n)
{
	frame(c, id, flags, data, n);
}

void spdy_client_two(struct spdy_client *c, unsigned type, uint32_t a, uint32_t b)
{
	uint8_t p[8];

	put_be32(p, a);
	put_be32(p + 4, b);
	spdy_client_control(c, type, 0, p, sizeof(p));
}

size_t spdy_client_block(struct spdy_client *c, const void *plain, size_t n, uint8_t *out,
			 size_t size)
{
	c->z.next_in = (Bytef *)plain;
	c->z.avail_in = (uInt)n;
	c->z.next_out = out;
	c->z.avail_out = (uInt)size;
	check(deflate(&c->z, Z_SYNC_FLUSH) == Z_OK && c->z.avail_out > 0);
	return size - c->z.avail_out;
}

void spdy_client_open(struct spdy_client *c, uint32_t id, const char *type)
{
	static const char name[] = "streamtype";
	uint8_t plain[256], payload[512] = { 0 };
	size_t n = 0;

	put_be32(plain, 1);
	put_be32(plain + 4, sizeof(name) - 1);
	memcpy(plain + 8, name, sizeof(name) - 1);
	n = 8 + sizeof(name) - 1;
	put_be32(plain + n, (uint32_t)strlen(type));
	memcpy(plain + n + 4, type, strlen(type));
	n += 4 + strlen(type);
	put_be32(payload, id);
	n = spdy_client_block(c, plain, n, payload + 10, sizeof(payload) - 10);
	spdy_client_control(c, SPDY_SYN_STREAM, 0, payload, 10 + n);
}

bool spdy_frame_next(const struct buf *in, struct spdy_frame *ret)
{
	struct cur c = cur_of(buf_data(in), buf_len(in));
	uint32_t first = cur_be32(&c), len = cur_be32(&c);

	*ret = (struct spdy_frame){ .flags = (uint8_t)(len >> 24), .len = len & 0xffffff };
	ret->payload = cur_bytes(&c, ret->len);
	if (c.bad)
		return false;
	ret->id = first;
	if (first >> 31) {
		c = cur_of(ret->payload, ret->len);
		ret->type = first & 0xffff;
		ret->id = cur_be32(&c);
		ret->second = cur_be32(&c);
	}
	return true;
}

size_t spdy_frame_len(const struct spdy_frame *f)
{
	return 8 + f->len;
}

bool spdy_client_reply_ok(struct spdy_client *c, const struct spdy_frame *f)
{
	uint8_t plain[64];
	int z;

	if (f->type != SPDY_SYN_REPLY || f->len < 4)
		return false;
	c->back.next_in = (Bytef *)f->payload + 4;
	c->back.avail_in = (uInt)f->len - 4;
	c->back.next_out = plain;
	c->back.avail_out = sizeof(plain);
	z = inflate(&c->back, Z_SYNC_FLUSH);
	if (z == Z_NEED_DICT) {
		check(inflateSetDictionary(&c->back, dictionary, sizeof(dictionary)) == Z_OK);
		z = inflate(&c->back, Z_SYNC_FLUSH);
	}
	return z == Z_OK && c->back.avail_out == sizeof(plain) - 4 &&
	       memcmp(plain, "\0\0\0\0", 4) == 0;
}
