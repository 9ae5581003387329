/* What a decoder could write to the builder: the first byte says in how large pieces it comes. What
 * is read must not depend on the pieces, and is never more than what came. */
#include "test/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "image/layer/unpack_pipe.h"

struct input {
	const uint8_t *p;
	size_t left, piece;
};

struct outcome {
	uint64_t bytes, sum;
	unsigned layers;
	int code;
	bool ended;
};

static ssize_t take(void *arg, void *buf, size_t n)
{
	struct input *in = arg;

	n = MIN_OF(n, MIN_OF(in->left, in->piece));
	memcpy(buf, in->p, n);
	in->p += n;
	in->left -= n;
	return (ssize_t)n;
}

static struct outcome run(const uint8_t *data, size_t size, size_t piece)
{
	static struct unpack_pipe pipe;
	struct input in = { data, size, piece };
	struct outcome o = { 0 };
	const void *p;
	ssize_t n;

	unpack_pipe_init(&pipe, take, &in);
	do {
		while ((n = unpack_pipe_read(&pipe, &p)) > 0) {
			fuzz_assert((size_t)n <= UNPACK_PIPE_CHUNK);
			for (ssize_t k = 0; k < n; k++)
				o.sum = o.sum * 31 + ((const uint8_t *)p)[k];
			o.bytes += (uint64_t)n;
		}
		o.code = (int)n;
		if (n == 0)
			o.layers++;
	} while (n == 0 && unpack_pipe_next(&pipe));
	o.ended = pipe.ended;
	fuzz_assert(n == 0 || n == -EPIPE);
	fuzz_assert((n == 0) == o.ended);
	fuzz_assert(o.bytes + 4ull * o.layers <= size);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome a, b;

	if (!size)
		return 0;
	a = run(data + 1, size - 1, size);
	b = run(data + 1, size - 1, 1u + data[0]);
	fuzz_assert(a.bytes == b.bytes && a.sum == b.sum && a.layers == b.layers &&
		    a.code == b.code && a.ended == b.ended);
	return 0;
}
