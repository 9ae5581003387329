/* A blob into a tar: the first byte says which kind, and in how large pieces it comes. What comes
 * out must not depend on the pieces. */
#include <string.h>

#include "base/util.h"
#include "image/layer/decode.h"
#include "test/fuzz/fuzz.h"

#define MAX_OUT (4 * MIB)

struct out {
	uint64_t bytes, sum;
};

static int take(void *arg, const void *data, size_t len)
{
	const uint8_t *p = data;
	struct out *o = arg;

	for (size_t k = 0; k < len; k++)
		o->sum = o->sum * 31 + p[k];
	o->bytes += len;
	return 0;
}

static int run(enum media_compression kind, const uint8_t *data, size_t size, size_t piece,
	       struct out *o, uint8_t sha[32])
{
	struct decoder *d;
	uint64_t bytes = 0;
	int r = decoder_new(kind, MAX_OUT, take, o, &d);

	fuzz_assert(r == 0);
	while (size && r >= 0) {
		size_t n = MIN_OF(piece, size);

		r = decoder_put(d, data, n, NULL);
		data += n;
		size -= n;
	}
	if (r >= 0)
		r = decoder_end(d, sha, &bytes, NULL);
	fuzz_assert(r < 0 || bytes == o->bytes);
	decoder_free(d);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t a[32] = { 0 }, b[32] = { 0 };
	struct out oa = { 0 }, ob = { 0 };
	enum media_compression kind;
	int ra, rb;

	if (!size)
		return 0;
	kind = (enum media_compression)(data[0] % 3);
	ra = run(kind, data + 1, size - 1, size, &oa, a);
	rb = run(kind, data + 1, size - 1, 1 + data[0] / 3, &ob, b);
	fuzz_assert((ra < 0) == (rb < 0));
	if (ra >= 0)
		fuzz_assert(oa.bytes == ob.bytes && oa.sum == ob.sum && !memcmp(a, b, 32));
	return 0;
}
