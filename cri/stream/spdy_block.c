#include "cri/stream/spdy_block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"

/* In the dictionary each has its length in front, as in a block. */
static const char *const words[] = {
	"options",
	"head",
	"post",
	"put",
	"delete",
	"trace",
	"accept",
	"accept-charset",
	"accept-encoding",
	"accept-language",
	"accept-ranges",
	"age",
	"allow",
	"authorization",
	"cache-control",
	"connection",
	"content-base",
	"content-encoding",
	"content-language",
	"content-length",
	"content-location",
	"content-md5",
	"content-range",
	"content-type",
	"date",
	"etag",
	"expect",
	"expires",
	"from",
	"host",
	"if-match",
	"if-modified-since",
	"if-none-match",
	"if-range",
	"if-unmodified-since",
	"last-modified",
	"location",
	"max-forwards",
	"pragma",
	"proxy-authenticate",
	"proxy-authorization",
	"range",
	"referer",
	"retry-after",
	"server",
	"te",
	"trailer",
	"transfer-encoding",
	"upgrade",
	"user-agent",
	"vary",
	"via",
	"warning",
	"www-authenticate",
	"method",
	"get",
	"status",
	"200 OK",
	"version",
	"HTTP/1.1",
	"url",
	"public",
	"set-cookie",
	"keep-alive",
	"origin",
};
/* And these stand at its end as they are. */
static const char rest[] =
	"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
	"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
	"401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
	"503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
	"Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
	"application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
	"gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

void spdy_dictionary(uint8_t out[SPDY_DICTIONARY_LEN])
{
	size_t at = 0;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		size_t len = strlen(words[i]);

		check(at + 4 + len <= SPDY_DICTIONARY_LEN);
		memset(out + at, 0, 3);
		out[at + 3] = (uint8_t)len;
		memcpy(out + at + 4, words[i], len);
		at += 4 + len;
	}
	check(at + sizeof(rest) - 1 == SPDY_DICTIONARY_LEN);
	memcpy(out + at, rest, sizeof(rest) - 1);
}

/* ---- reading ---- */

int spdy_reader_init(struct spdy_reader *r)
{
	*r = (struct spdy_reader){ .plain = malloc(SPDY_PLAIN_MAX) };
	if (!r->plain || inflateInit(&r->z) != Z_OK) {
		free(r->plain);
		return -ENOMEM;
	}
	r->open = true;
	return 0;
}

void spdy_reader_fini(struct spdy_reader *r)
{
	if (r->open)
		(void)inflateEnd(&r->z);
	free(r->plain);
	*r = (struct spdy_reader){ 0 };
}

/* Bytes in r->plain. */
static int unpack(struct spdy_reader *r, const uint8_t *data, size_t n)
{
	uint8_t dictionary[SPDY_DICTIONARY_LEN];
	int z;

	r->z.next_in = (Bytef *)data;
	r->z.avail_in = (uInt)n;
	r->z.next_out = r->plain;
	r->z.avail_out = SPDY_PLAIN_MAX;
	while (r->z.avail_in > 0) {
		z = inflate(&r->z, Z_SYNC_FLUSH);
		if (z == Z_NEED_DICT) {
			spdy_dictionary(dictionary);
			z = inflateSetDictionary(&r->z, dictionary, sizeof(dictionary));
		}
		if (z == Z_MEM_ERROR)
			return -ENOMEM;
		/* A stream that ends could never have another block. */
		if (z != Z_OK && z != Z_BUF_ERROR)
			return -EPROTO;
		if (r->z.avail_out == 0)
			return -EMSGSIZE;
		if (z == Z_BUF_ERROR)
			break;
	}
	return (int)(SPDY_PLAIN_MAX - r->z.avail_out);
}

static bool read_string(struct cur *c, const uint8_t **ret, uint32_t *ret_len)
{
	*ret_len = cur_be32(c);
	*ret = cur_bytes(c, *ret_len);
	return !c->bad;
}

int spdy_reader_block(struct spdy_reader *r, const uint8_t *data, size_t n, struct spdy_pairs *ret)
{
	int len = n <= SPDY_BLOCK_MAX ? unpack(r, data, n) : -EMSGSIZE;
	struct cur c = cur_of(r->plain, len > 0 ? (size_t)len : 0);
	uint32_t count;

	if (len < 0)
		return len;
	count = cur_be32(&c);
	if (c.bad)
		return -EPROTO;
	if (count > SPDY_PAIRS_MAX)
		return -EMSGSIZE;
	ret->n = 0;
	for (; ret->n < count; ret->n++) {
		struct spdy_pair *p = &ret->pair[ret->n];

		if (!read_string(&c, &p->name, &p->name_len) ||
		    !read_string(&c, &p->value, &p->value_len))
			return -EPROTO;
		if (p->name_len == 0)
			return -EPROTO;
	}
	return cur_left(&c) == 0 ? 0 : -EPROTO;
}

bool spdy_pairs_get(const struct spdy_pairs *p, const char *name, char *value, size_t size)
{
	for (uint32_t i = 0; i < p->n; i++) {
		const struct spdy_pair *at = &p->pair[i];

		if (at->name_len != strlen(name) || memcmp(at->name, name, at->name_len) != 0)
			continue;
		if (at->value_len >= size || memchr(at->value, 0, at->value_len))
			return false;
		memcpy(value, at->value, at->value_len);
		value[at->value_len] = '\0';
		return true;
	}
	return false;
}

/* ---- writing ---- */

int spdy_writer_init(struct spdy_writer *w)
{
	uint8_t dictionary[SPDY_DICTIONARY_LEN];

	*w = (struct spdy_writer){ 0 };
	/* The smallest window: our blocks say nothing. */
	if (deflateInit2(&w->z, Z_BEST_SPEED, Z_DEFLATED, 9, 1, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	w->open = true;
	spdy_dictionary(dictionary);
	return deflateSetDictionary(&w->z, dictionary, sizeof(dictionary)) == Z_OK ? 0 : -ENOMEM;
}

void spdy_writer_fini(struct spdy_writer *w)
{
	if (w->open)
		(void)deflateEnd(&w->z);
	*w = (struct spdy_writer){ 0 };
}

int spdy_writer_empty(struct spdy_writer *w, uint8_t *out, size_t size)
{
	static const uint8_t no_pairs[4];

	w->z.next_in = (Bytef *)no_pairs;
	w->z.avail_in = sizeof(no_pairs);
	w->z.next_out = out;
	w->z.avail_out = (uInt)size;
	if (deflate(&w->z, Z_SYNC_FLUSH) != Z_OK || w->z.avail_in || w->z.avail_out == 0)
		return -ENOBUFS;
	return (int)(size - w->z.avail_out);
}
