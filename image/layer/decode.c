#include "image/layer/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/util.h"

#define OUT_SIZE (256 * KIB)
#define HEAD_SIZE 4u
#define ZSTD_MAX_WINDOW_LOG 25 /* 32 MiB: four times what every decoder must accept */

struct decoder {
	enum media_compression kind; /* as declared, until the first bytes have come */
	bool begun;
	uint8_t head[HEAD_SIZE]; /* until there are enough to tell what they are */
	size_t n_head;
	uint64_t max, bytes, taken; /* limit and number of the tar's bytes; those of the blob */
	decode_out_fn out;
	void *arg;
	EVP_MD_CTX *sha;
	bool inside;  /* of a member or frame */
	bool any;     /* a first member or frame has begun */
	bool padding; /* zeros after the last member */
	struct inflate_state *gz;
	ZSTD_DStream *zs;
	uint8_t buf[OUT_SIZE];
};

static int emit(struct decoder *d, const void *data, size_t len, struct err *err)
{
	int r;

	if (!len)
		return 0;
	if (len > d->max - d->bytes)
		return err_set(err, -EFBIG, "layer unpacks to more than %llu bytes",
			       (unsigned long long)d->max);
	d->bytes += len;
	if (d->bytes > DECODE_FREE && d->bytes / DECODE_MAX_RATIO > d->taken)
		return err_set(err, -EFBIG,
			       "unpacks to more than %u times its size (and more than %zu GiB)",
			       DECODE_MAX_RATIO, DECODE_FREE / GIB);
	if (!EVP_DigestUpdate(d->sha, data, len))
		return err_nomem(err);
	r = d->out(d->arg, data, len);
	return r < 0 ? err_errno(err, r, "write the tar") : 0;
}

static const char *gz_text(int r)
{
	switch (r) {
	case ISAL_INVALID_WRAPPER:
		return "not a gzip stream";
	case ISAL_UNSUPPORTED_METHOD:
		return "unknown compression method";
	case ISAL_INCORRECT_CHECKSUM:
		return "wrong checksum";
	default:
		return "invalid data";
	}
}

/* After a member comes another one, or zeros that fill up a tape block. */
static int gz_between(struct decoder *d, struct err *err)
{
	while (d->any && d->gz->avail_in && !*d->gz->next_in) {
		d->padding = true;
		d->gz->next_in++;
		d->gz->avail_in--;
	}
	if (!d->gz->avail_in)
		return 0;
	/* 0x1f begins a member; isal_inflate checks the rest of its header */
	if (d->any && (d->padding || *d->gz->next_in != 0x1f))
		return err_set(err, -EBADMSG, "damaged gzip: data past its end");
	isal_inflate_reset(d->gz);
	d->gz->crc_flag = ISAL_GZIP;
	d->inside = d->any = true;
	return 0;
}

static int put_gzip(struct decoder *d, const void *data, size_t len, struct err *err)
{
	struct inflate_state *z = d->gz;

	z->next_in = (uint8_t *)data;
	z->avail_in = (uint32_t)len;
	for (;;) {
		int r;

		if (!d->inside) {
			r = gz_between(d, err);
			if (r < 0 || !z->avail_in)
				return r;
		}
		z->next_out = d->buf;
		z->avail_out = OUT_SIZE;
		r = isal_inflate(z);
		if (r < 0 || r == ISAL_NEED_DICT)
			return err_set(err, -EBADMSG, "damaged gzip: %s", gz_text(r));
		r = emit(d, d->buf, OUT_SIZE - z->avail_out, err);
		if (r < 0)
			return r;
		if (z->block_state == ISAL_BLOCK_FINISH)
			d->inside = false;
		else if (!z->avail_in && z->avail_out)
			return 0;
	}
}

static int put_zstd(struct decoder *d, const void *data, size_t len, struct err *err)
{
	ZSTD_inBuffer in = { data, len, 0 };

	for (;;) {
		ZSTD_outBuffer out = { d->buf, OUT_SIZE, 0 };
		size_t r = ZSTD_decompressStream(d->zs, &out, &in);
		int e;

		if (ZSTD_isError(r) &&
		    ZSTD_getErrorCode(r) == ZSTD_error_frameParameter_windowTooLarge)
			return err_set(err, -EFBIG,
				       "zstd with a window of more than %u MiB (--long, --ultra)",
				       1u << (ZSTD_MAX_WINDOW_LOG - 20));
		if (ZSTD_isError(r))
			return err_set(err, -EBADMSG, "damaged zstd: %s", ZSTD_getErrorName(r));
		d->any = true;
		d->inside = r != 0;
		e = emit(d, d->buf, out.pos, err);
		if (e < 0)
			return e;
		if (in.pos == in.size && out.pos < out.size)
			return 0;
	}
}

/* ---- which of them it is ---- */

/* RFC 1952; RFC 8878, 3.1.1 and 3.1.2 (a skippable frame may come first). No tar begins so: its
 * first bytes are those of a name. */
static enum media_compression kind_of(const uint8_t head[HEAD_SIZE])
{
	static const uint8_t gzip[] = { 0x1f, 0x8b, 8 }, zstd[] = { 0x28, 0xb5, 0x2f, 0xfd };
	static const uint8_t skippable[] = { 0x2a, 0x4d, 0x18 };

	if (!memcmp(head, gzip, sizeof(gzip)))
		return MEDIA_GZIP;
	if (!memcmp(head, zstd, sizeof(zstd)) ||
	    ((head[0] & 0xf0) == 0x50 && !memcmp(head + 1, skippable, sizeof(skippable))))
		return MEDIA_ZSTD;
	return MEDIA_PLAIN;
}

static int put(struct decoder *d, const void *data, size_t len, struct err *err)
{
	if (!len)
		return 0;
	switch (d->kind) {
	case MEDIA_GZIP:
		return put_gzip(d, data, len, err);
	case MEDIA_ZSTD:
		return put_zstd(d, data, len, err);
	default:
		return emit(d, data, len, err);
	}
}

static int begin(struct decoder *d, struct err *err)
{
	d->begun = true;
	if (d->kind == MEDIA_GZIP) {
		d->gz = calloc(1, sizeof(*d->gz));
		if (!d->gz)
			return err_nomem(err);
		isal_inflate_init(d->gz);
	}
	if (d->kind == MEDIA_ZSTD) {
		d->zs = ZSTD_createDStream();
		if (!d->zs || ZSTD_isError(ZSTD_initDStream(d->zs)) ||
		    ZSTD_isError(ZSTD_DCtx_setParameter(d->zs, ZSTD_d_windowLogMax,
							ZSTD_MAX_WINDOW_LOG)))
			return err_nomem(err);
	}
	return put(d, d->head, d->n_head, err);
}

int decoder_put(struct decoder *d, const void *data, size_t len, struct err *err)
{
	size_t n = MIN_OF(len, HEAD_SIZE - d->n_head);
	int r = 0;

	d->taken += len;
	if (!d->begun) {
		memcpy(d->head + d->n_head, data, n);
		d->n_head += n;
		if (d->n_head < HEAD_SIZE)
			return 0;
		d->kind = kind_of(d->head);
		r = begin(d, err);
		data = (const uint8_t *)data + n;
		len -= n;
	}
	return r < 0 ? r : put(d, data, len, err);
}

int decoder_end(struct decoder *d, uint8_t sha256[32], uint64_t *ret_bytes, struct err *err)
{
	int r = d->begun ? 0 : begin(d, err);

	if (r < 0)
		return r;
	if (d->kind != MEDIA_PLAIN && (d->inside || !d->any))
		return err_set(err, -EBADMSG, "%s stream is truncated",
			       media_compression_name(d->kind));
	if (!EVP_DigestFinal_ex(d->sha, sha256, NULL))
		return err_nomem(err);
	*ret_bytes = d->bytes;
	return 0;
}

int decoder_new(enum media_compression declared, uint64_t max, decode_out_fn out, void *arg,
		struct decoder **ret)
{
	struct decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->kind = declared;
	d->max = max;
	d->out = out;
	d->arg = arg;
	d->sha = EVP_MD_CTX_new();
	if (!d->sha || !EVP_DigestInit_ex(d->sha, EVP_sha256(), NULL)) {
		decoder_free(d);
		return -ENOMEM;
	}
	*ret = d;
	return 0;
}

void decoder_free(struct decoder *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->sha);
	ZSTD_freeDStream(d->zs);
	free(d->gz);
	free(d);
}
