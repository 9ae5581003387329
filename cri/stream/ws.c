#include "cri/stream/ws.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <wslay/wslay.h>

#include "base/util.h"

#define CHANNEL_END 255u /* of v5 */
#define NO_CHANNEL (-1)
#define BASE64_CHUNK 1024u /* characters decoded at once */

struct ws {
	wslay_event_context_ptr ctx;
	struct ws_dialect dialect;
	struct buf *out; /* borrowed */
	const struct ws_ops *ops;
	void *arg;
	struct cur in; /* what ws_feed was given */
	int failed;    /* -errno, found inside a callback */
	bool closed;

	/* The message in hand. */
	bool is_control, is_last;
	int channel;
	uint8_t quad[4]; /* of base64, incomplete */
	size_t quad_n;
	bool padded;
};

/* ---- messages ---- */

static int channel_data(struct ws *w, const uint8_t *data, size_t n)
{
	if (w->channel != (int)CHANNEL_END || !w->dialect.ends_channels)
		return w->ops->data(w->arg, (unsigned)w->channel, data, n);
	return n > 0 ? w->ops->end(w->arg, data[0]) : 0;
}

/* Whole quads, at most BASE64_CHUNK characters. */
static int decode(struct ws *w, const uint8_t *text, size_t n)
{
	uint8_t data[BASE64_CHUNK / 4 * 3];
	size_t padding = 0;
	int len;

	if (n == 0)
		return 0;
	while (padding < 2 && text[n - 1 - padding] == '=')
		padding++;
	if (w->padded || memchr(text, '=', n - padding))
		return -EPROTO;
	w->padded = padding > 0;
	len = EVP_DecodeBlock(data, text, (int)n);
	return len < 0 ? -EPROTO : channel_data(w, data, (size_t)len - padding);
}

static int base64_data(struct ws *w, const uint8_t *text, size_t n)
{
	int r = 0;

	/* OpenSSL's decoder skips blanks, which would move the quads. */
	for (size_t i = 0; i < n; i++)
		if (text[i] <= ' ' || text[i] > 0x7e || text[i] == '-')
			return -EPROTO;
	while (n > 0 && r == 0) {
		size_t part;

		if (w->quad_n > 0 || n < 4) {
			part = MIN_OF(n, 4 - w->quad_n);
			memcpy(w->quad + w->quad_n, text, part);
			w->quad_n += part;
			if (w->quad_n == 4) {
				w->quad_n = 0;
				r = decode(w, w->quad, 4);
			}
		} else {
			part = MIN_OF(n - n % 4, BASE64_CHUNK);
			r = decode(w, text, part);
		}
		text += part;
		n -= part;
	}
	return r;
}

static int message_data(struct ws *w, const uint8_t *data, size_t n)
{
	if (n > 0 && w->channel == NO_CHANNEL) {
		if (w->dialect.base64 && (data[0] < '0' || data[0] > '9'))
			return -EPROTO;
		w->channel = w->dialect.base64 ? data[0] - '0' : data[0];
		data++;
		n--;
	}
	if (n == 0)
		return 0;
	return w->dialect.base64 ? base64_data(w, data, n) : channel_data(w, data, n);
}

/* ---- callbacks of wslay ---- */

static void ws_on_frame(wslay_event_context_ptr ctx,
			const struct wslay_event_on_frame_recv_start_arg *a, void *arg)
{
	struct ws *w = arg;

	w->is_control = wslay_is_ctrl_frame(a->opcode);
	w->is_last = a->fin;
	if (w->is_control || a->opcode == WSLAY_CONTINUATION_FRAME)
		return;
	w->channel = NO_CHANNEL;
	w->quad_n = 0;
	w->padded = false;
	/* Either, in both dialects: Python's client sends strings as text. */
	if (a->opcode != WSLAY_TEXT_FRAME && a->opcode != WSLAY_BINARY_FRAME)
		w->failed = -EPROTO;
}

static void ws_on_chunk(wslay_event_context_ptr ctx,
			const struct wslay_event_on_frame_recv_chunk_arg *a, void *arg)
{
	struct ws *w = arg;

	if (!w->is_control && !w->failed)
		w->failed = message_data(w, a->data, a->data_length);
}

static void ws_on_frame_end(wslay_event_context_ptr ctx, void *arg)
{
	struct ws *w = arg;

	if (!w->is_control && w->is_last && w->quad_n > 0 && !w->failed)
		w->failed = -EPROTO;
}

static ssize_t ws_on_recv(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags,
			  void *arg)
{
	struct ws *w = arg;
	size_t n = MIN_OF(len, cur_left(&w->in));

	if (n == 0 || w->failed) {
		wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	(void)cur_copy(&w->in, buf, n);
	return (ssize_t)n;
}

static ssize_t ws_on_send(wslay_event_context_ptr ctx, const uint8_t *data, size_t len, int flags,
			  void *arg)
{
	struct ws *w = arg;
	int r = buf_put(w->out, data, len);

	if (r < 0) {
		w->failed = r;
		wslay_event_set_error(ctx, WSLAY_ERR_CALLBACK_FAILURE);
		return -1;
	}
	return (ssize_t)len;
}

int ws_new(struct ws_dialect dialect, struct buf *out, const struct ws_ops *ops, void *arg,
	   struct ws **ret)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = ws_on_recv,
		.send_callback = ws_on_send,
		.on_frame_recv_start_callback = ws_on_frame,
		.on_frame_recv_chunk_callback = ws_on_chunk,
		.on_frame_recv_end_callback = ws_on_frame_end,
	};
	struct ws *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct ws){
		.dialect = dialect, .out = out, .ops = ops, .arg = arg, .channel = NO_CHANNEL
	};
	if (wslay_event_context_server_init(&w->ctx, &callbacks, w) != 0) {
		free(w);
		return -ENOMEM;
	}
	wslay_event_config_set_no_buffering(w->ctx, 1);
	*ret = w;
	return 0;
}

void ws_free(struct ws *w)
{
	if (!w)
		return;
	wslay_event_context_free(w->ctx);
	free(w);
}

/* All that wslay has queued goes to `out` at once. */
static int flush(struct ws *w)
{
	if (wslay_event_want_write(w->ctx) && wslay_event_send(w->ctx) != 0)
		return w->failed < 0 ? w->failed : -ENOMEM;
	return 0;
}

int ws_close(struct ws *w, enum ws_close code)
{
	int r = wslay_event_queue_close(w->ctx, code, NULL, 0);

	return r == 0 || r == WSLAY_ERR_NO_MORE_MSG ? flush(w) : -ENOMEM;
}

int ws_feed(struct ws *w, const uint8_t *data, size_t n)
{
	int r;

	if (w->closed)
		return 0;
	w->in = cur_of(data, n);
	r = wslay_event_recv(w->ctx) == 0 ? 0 : -EPROTO;
	if (w->failed < 0)
		r = w->failed;
	if (r == 0)
		r = flush(w);
	if (r == 0 && wslay_event_get_close_received(w->ctx)) {
		w->closed = true;
		w->ops->closed(w->arg);
	} else if (r == 0 && !wslay_event_want_read(w->ctx)) {
		r = -EPROTO; /* wslay has said so to the client */
	} else if (r < 0) {
		(void)!ws_close(w, WS_CLOSE_PROTOCOL_ERROR);
	}
	return r;
}

int ws_send(struct ws *w, unsigned channel, const uint8_t *data, size_t n)
{
	size_t room = w->dialect.base64 ? 1 + (n + 2) / 3 * 4 + 1 : 1 + n;
	cleanup_free uint8_t *text = malloc(room);
	struct wslay_event_msg msg = { .opcode = WSLAY_BINARY_FRAME, .msg = text };
	int r;

	if (!text)
		return -ENOMEM;
	text[0] = (uint8_t)channel;
	msg.msg_length = 1 + n;
	if (w->dialect.base64) {
		msg.opcode = WSLAY_TEXT_FRAME;
		text[0] = (uint8_t)('0' + channel);
		msg.msg_length = 1 + (size_t)EVP_EncodeBlock(text + 1, data, (int)n);
	} else if (n > 0) {
		memcpy(text + 1, data, n);
	}
	r = wslay_event_queue_msg(w->ctx, &msg);
	if (r == WSLAY_ERR_NO_MORE_MSG)
		return -EPIPE;
	return r == 0 ? flush(w) : -ENOMEM;
}

int ws_accept(const char *key, char ret[WS_ACCEPT_LEN + 1])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	char text[WS_KEY_LEN + sizeof(guid)];
	uint8_t raw[WS_KEY_LEN], sha[SHA_DIGEST_LENGTH];

	/* 16 bytes in base64 */
	if (!key || strlen(key) != WS_KEY_LEN || !str_ends(key, "==") ||
	    EVP_DecodeBlock(raw, (const uint8_t *)key, WS_KEY_LEN) < 0)
		return -EINVAL;
	memcpy(text, key, WS_KEY_LEN);
	memcpy(text + WS_KEY_LEN, guid, sizeof(guid));
	if (EVP_Digest(text, strlen(text), sha, NULL, EVP_sha1(), NULL) != 1)
		return -EINVAL;
	(void)EVP_EncodeBlock((uint8_t *)ret, sha, sizeof(sha));
	return 0;
}
