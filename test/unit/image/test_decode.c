#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <zlib.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/util.h"
#include "image/layer/decode.h"

#define PLAIN (300 * KIB)

static uint8_t plain[PLAIN];

static int collect(void *arg, const void *data, size_t len)
{
	return buf_put(arg, data, len);
}

static size_t gzip(uint8_t *out, size_t cap, const uint8_t *data, size_t len)
{
	z_stream z = { .next_in = (uint8_t *)data,
		       .avail_in = (uInt)len,
		       .next_out = out,
		       .avail_out = (uInt)cap };

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return cap - z.avail_out;
}

/* Decodes in pieces of `step` bytes; the result is in `out`. */
static int decode(enum media_compression kind, const uint8_t *data, size_t len, size_t step,
		  uint64_t max, struct buf *out, uint8_t sha[32])
{
	struct decoder *d;
	uint64_t bytes;
	int r;

	assert_int_equal(decoder_new(kind, max, collect, out, &d), 0);
	r = 0;
	for (size_t k = 0; k < len && r >= 0; k += step)
		r = decoder_put(d, data + k, MIN_OF(step, len - k), NULL);
	if (r >= 0)
		r = decoder_end(d, sha, &bytes, NULL);
	if (r >= 0)
		assert_int_equal(bytes, buf_len(out));
	decoder_free(d);
	return r;
}

static void check(enum media_compression kind, const uint8_t *data, size_t len, size_t copies)
{
	static const size_t steps[] = { 1, 7, 4096, 1 << 20 };
	uint8_t sha[32], want[32];

	for (size_t k = 0; k < ARRAY_SIZE(steps); k++) {
		cleanup_buf struct buf out;

		buf_init(&out, 4 * MIB);
		assert_int_equal(decode(kind, data, len, steps[k], 4 * MIB, &out, sha), 0);
		assert_int_equal(buf_len(&out), copies * PLAIN);
		assert_memory_equal(buf_data(&out), plain, PLAIN);
		EVP_Digest(buf_data(&out), buf_len(&out), want, NULL, EVP_sha256(), NULL);
		assert_memory_equal(sha, want, 32);
	}
}

static void good(void **state)
{
	size_t cap = 2 * MIB, n, m;
	uint8_t *z = malloc(cap);

	assert_non_null(z);
	n = gzip(z, cap, plain, PLAIN);
	check(MEDIA_GZIP, z, n, 1);
	m = n + gzip(z + n, cap - n, plain, PLAIN); /* two members */
	memset(z + m, 0, 100);			    /* and padding */
	check(MEDIA_GZIP, z, m + 100, 2);
	n = ZSTD_compress(z, cap, plain, PLAIN, 3);
	check(MEDIA_ZSTD, z, n, 1);
	n += ZSTD_compress(z + n, cap - n, plain, PLAIN, 3);
	check(MEDIA_ZSTD, z, n, 2);
	free(z);
}

/* Whatever a blob is said to be, the first bytes decide. */
static void declared(void **state)
{
	size_t cap = 2 * MIB, n, skip;
	uint8_t *z = malloc(cap);

	assert_non_null(z);
	for (int kind = MEDIA_PLAIN; kind <= MEDIA_ZSTD; kind++) {
		check(kind, plain, PLAIN, 1);
		n = gzip(z, cap, plain, PLAIN);
		check(kind, z, n, 1);
		n = ZSTD_compress(z, cap, plain, PLAIN, 3);
		check(kind, z, n, 1);
		/* a skippable frame first, as seekable zstd may have */
		memcpy(z, "\x5e\x2a\x4d\x18\x03\0\0\0abc", 11);
		skip = 11;
		n = skip + ZSTD_compress(z + skip, cap - skip, plain, PLAIN, 3);
		check(kind, z, n, 1);
	}
	free(z);
}

static void bad(void **state)
{
	size_t cap = 2 * MIB, n;
	uint8_t *z = malloc(cap), sha[32];
	cleanup_buf struct buf out;

	assert_non_null(z);
	buf_init(&out, 4 * MIB);
	for (int kind = MEDIA_GZIP; kind <= MEDIA_ZSTD; kind++) {
		n = kind == MEDIA_GZIP ? gzip(z, cap, plain, PLAIN)
				       : ZSTD_compress(z, cap, plain, PLAIN, 3);
		assert_int_equal(decode(kind, z, n - 1, 4096, MIB, &out, sha), -EBADMSG);
		assert_int_equal(decode(kind, z, n / 2, 4096, MIB, &out, sha), -EBADMSG);
		assert_int_equal(decode(kind, z, 0, 4096, MIB, &out, sha), -EBADMSG);
		assert_int_equal(decode(kind, z, n, 4096, 1000, &out, sha), -EFBIG);
		z[n] = 'x'; /* behind the end */
		assert_int_equal(decode(kind, z, n + 1, 4096, MIB, &out, sha), -EBADMSG);
	}
	n = gzip(z, cap, plain, PLAIN);
	z[n - 6] ^= 1; /* the checksum */
	assert_int_equal(decode(MEDIA_GZIP, z, n, 4096, MIB, &out, sha), -EBADMSG);
	/* what the receiver says ends it */
	out.max = 100;
	buf_clear(&out);
	assert_int_equal(decode(MEDIA_PLAIN, plain, PLAIN, 4096, MIB, &out, sha), -ENOBUFS);
	free(z);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(good), cmocka_unit_test(declared),
					    cmocka_unit_test(bad) };
	uint32_t x = 1;

	for (size_t k = 0; k < PLAIN; k++) {
		x = x * 1103515245 + 12345;
		plain[k] = k % 3 ? (uint8_t)(x >> 28) : (uint8_t)(x >> 24);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
