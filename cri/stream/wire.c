#include "cri/stream/wire.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "cri/stream/spdy.h"
#include "cri/stream/ws.h"

static const struct wire_dialect dialects[] = {
	{ "v4.channel.k8s.io", 4, .spdy = true },
	{ "v3.channel.k8s.io", 3, .spdy = true },
	{ "v2.channel.k8s.io", 2, .spdy = true },
	{ "channel.k8s.io", 1, .spdy = true },
	{ "v5.channel.k8s.io", 5 },
	{ "v4.channel.k8s.io", 4 },
	{ "channel.k8s.io", 1 },
	{ "v5.base64.channel.k8s.io", 5, .base64 = true },
	{ "v4.base64.channel.k8s.io", 4, .base64 = true },
	{ "base64.channel.k8s.io", 1, .base64 = true },
};
const char wire_spdy_names[] =
	"v4.channel.k8s.io, v3.channel.k8s.io, v2.channel.k8s.io, channel.k8s.io";

struct wire {
	const struct wire_dialect *dialect;
	unsigned wanted;
	const struct wire_ops *ops;
	void *arg;
	struct spdy *spdy;
	struct ws *ws;
	uint32_t streams[CHANNELS]; /* SPDY: 0 = not open */
	unsigned seen, ended;	    /* bits: opened once; the client's direction has ended */
	bool closed;
};

const struct wire_dialect *wire_choose(const struct http_head *h, const char *field, bool spdy)
{
	char word[64];
	size_t pos = 0;

	while (pos < WIRE_WORDS_MAX && http_next_word(h, field, &pos, word, sizeof(word)))
		for (size_t i = 0; i < ARRAY_SIZE(dialects); i++)
			if (dialects[i].spdy == spdy && str_eq(dialects[i].name, word))
				return &dialects[i];
	return NULL;
}

static int channel_ended(struct wire *w, enum channel ch)
{
	if (w->ended & 1u << ch)
		return 0;
	w->ended |= 1u << ch;
	return w->ops->end(w->arg, ch);
}

/* Of both protocols. */
static void wire_on_leave(void *arg)
{
	struct wire *w = arg;

	if (!w->closed)
		w->ops->closed(w->arg);
	w->closed = true;
}

/* ---- SPDY ---- */

static enum channel channel_of(const struct wire *w, uint32_t id)
{
	unsigned ch = 0;

	while (ch < CHANNELS && w->streams[ch] != id)
		ch++;
	return (enum channel)ch;
}

static int wire_on_stream(void *arg, uint32_t id, const struct spdy_pairs *pairs)
{
	struct wire *w = arg;
	char type[16];
	enum channel ch = CHANNELS;

	if (spdy_pairs_get(pairs, "streamtype", type, sizeof(type)))
		ch = remote_channel(type);
	if (ch == CHANNELS)
		return SPDY_RST_PROTOCOL_ERROR;
	if (!(w->wanted & 1u << ch) || w->seen & 1u << ch)
		return SPDY_RST_REFUSED_STREAM;
	w->seen |= 1u << ch;
	w->streams[ch] = id;
	return 0;
}

static int wire_on_stream_data(void *arg, uint32_t id, const uint8_t *data, size_t n)
{
	struct wire *w = arg;
	enum channel ch = channel_of(w, id);

	return ch < CHANNELS ? w->ops->data(w->arg, ch, data, n) : 0;
}

static int wire_on_stream_end(void *arg, uint32_t id)
{
	struct wire *w = arg;
	enum channel ch = channel_of(w, id);

	return ch < CHANNELS ? channel_ended(w, ch) : 0;
}

static void wire_on_stream_reset(void *arg, uint32_t id)
{
	struct wire *w = arg;
	enum channel ch = channel_of(w, id);

	if (ch == CHANNELS)
		return;
	w->streams[ch] = 0;
	(void)!channel_ended(w, ch);
}

/* ---- WebSocket ---- */

static int wire_on_message(void *arg, unsigned channel, const uint8_t *data, size_t n)
{
	struct wire *w = arg;

	if (channel >= CHANNELS || w->ended & 1u << channel)
		return 0;
	return w->ops->data(w->arg, (enum channel)channel, data, n);
}

static int wire_on_channel_end(void *arg, unsigned channel)
{
	return channel < CHANNELS ? channel_ended(arg, (enum channel)channel) : 0;
}

/* ---- both ---- */

int wire_new(const struct wire_dialect *d, unsigned wanted, struct buf *out,
	     const struct wire_ops *ops, void *arg, struct wire **ret)
{
	static const struct spdy_ops spdy_ops = {
		.open = wire_on_stream,
		.data = wire_on_stream_data,
		.end = wire_on_stream_end,
		.reset = wire_on_stream_reset,
		.goaway = wire_on_leave,
	};
	static const struct ws_ops ws_ops = {
		.data = wire_on_message,
		.end = wire_on_channel_end,
		.closed = wire_on_leave,
	};
	struct wire *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct wire){ .dialect = d, .wanted = wanted, .ops = ops, .arg = arg };
	if (d->spdy)
		r = spdy_new(CHANNELS, out, &spdy_ops, w, &w->spdy);
	else
		r = ws_new((struct ws_dialect){ .base64 = d->base64,
						.ends_channels = d->version >= 5 },
			   out, &ws_ops, w, &w->ws);
	/* Kubernetes' own server begins so; browsers take it as the sign that they are through. */
	if (r == 0 && w->ws)
		r = ws_send(w->ws, wanted & 1u << CHANNEL_OUT ? CHANNEL_OUT : CHANNEL_STATUS, NULL,
			    0);
	if (r < 0) {
		wire_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

void wire_free(struct wire *w)
{
	if (!w)
		return;
	spdy_free(w->spdy);
	ws_free(w->ws);
	free(w);
}

int wire_feed(struct wire *w, const uint8_t *data, size_t n)
{
	return w->spdy ? spdy_feed(w->spdy, data, n) : ws_feed(w->ws, data, n);
}

bool wire_ready(const struct wire *w)
{
	return w->ws || (w->seen & w->wanted) == w->wanted;
}

int wire_send(struct wire *w, enum channel ch, const uint8_t *data, size_t n)
{
	int r;

	if (w->spdy)
		return spdy_send(w->spdy, w->streams[ch], data, n);
	r = ws_send(w->ws, ch, data, n);
	return r == -EPIPE ? 0 : r;
}

int wire_end(struct wire *w, enum channel ch)
{
	return w->spdy ? spdy_end(w->spdy, w->streams[ch]) : 0;
}

int wire_close(struct wire *w)
{
	return w->spdy ? spdy_goaway(w->spdy, SPDY_GOAWAY_OK) : ws_close(w->ws, WS_CLOSE_NORMAL);
}
