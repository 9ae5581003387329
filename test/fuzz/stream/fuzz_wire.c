/*
 * A client of a remote command that says anything: the first byte chooses the dialect and the
 * channels, the second the size of the pieces, the rest is what the client sends.
 */
#include <errno.h>

#include "cri/stream/wire.h"
#include "test/fuzz/fuzz.h"

static const struct wire_dialect dialects[] = {
	{ "spdy", 4, .spdy = true },
	{ "v5", 5 },
	{ "v4", 4 },
	{ "base64", 5, .base64 = true },
};

static struct {
	unsigned ended;
	unsigned closed;
	struct remote_sizes sizes;
} g;

static int fuzz_wire_data(void *arg, enum channel ch, const uint8_t *data, size_t n)
{
	unsigned w, h;
	int r = 0;

	fuzz_assert(ch < CHANNELS && !(g.ended & 1u << ch));
	while (ch == CHANNEL_RESIZE && n > 0) {
		r = remote_size(&g.sizes, data, n, &w, &h);
		if (r < 0)
			return -EPROTO;
		fuzz_assert(r > 0 && (size_t)r <= n && w <= 65535 && !w == !h);
		data += r;
		n -= (size_t)r;
	}
	return 0;
}

static int fuzz_wire_end(void *arg, enum channel ch)
{
	fuzz_assert(ch < CHANNELS && !(g.ended & 1u << ch));
	g.ended |= 1u << ch;
	return 0;
}

static void fuzz_wire_closed(void *arg)
{
	fuzz_assert(!g.closed++);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct wire_ops ops = { fuzz_wire_data, fuzz_wire_end, fuzz_wire_closed };
	struct wire *w;
	struct buf out;
	size_t piece;
	int r = 0;

	if (size < 2)
		return 0;
	memset(&g, 0, sizeof(g));
	buf_init(&out, 1 * MIB);
	if (wire_new(&dialects[data[0] & 3], data[0] >> 3, &out, &ops, NULL, &w) < 0)
		return 0;
	piece = data[1] ? data[1] : size;
	for (data += 2, size -= 2; size > 0 && r == 0;) {
		size_t n = MIN_OF(piece, size), before = buf_len(&out);

		r = wire_feed(w, data, n);
		fuzz_assert(r <= 0);
		/* 64: what is said of the end. */
		fuzz_assert(buf_len(&out) - before <= WIRE_ECHO * (n + 16) + 64);
		for (int ch = 0; ch < CHANNELS && r == 0; ch++)
			r = wire_send(w, (enum channel)ch, data, MIN_OF(n, 16u));
		buf_clear(&out);
		data += n;
		size -= n;
	}
	for (int ch = 0; ch < CHANNELS; ch++)
		(void)!wire_end(w, (enum channel)ch);
	(void)!wire_close(w);
	wire_free(w);
	buf_fini(&out);
	return 0;
}
