#include "test/lib/unit.h"

#include "test/lib/rawpeer.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

int rawpeer_init(struct rawpeer *p, struct loop *l)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	*p = (struct rawpeer){ .loop = l, .fd = sv[0] };
	buf_init(&p->in, 64 * MIB);
	pb_arena_init(&p->arena, 64 * MIB);
	return sv[1];
}

void rawpeer_fini(struct rawpeer *p)
{
	fd_close(&p->fd);
	buf_fini(&p->in);
	pb_arena_fini(&p->arena);
}

void settle(struct loop *l)
{
	int r, quiet = 0;

	/* Two quiet rounds: the first may have had an event that led to no callback of ours. */
	while (quiet < 2) {
		r = loop_once(l, 0);
		assert_true(r >= 0);
		quiet = r == 0 ? quiet + 1 : 0;
	}
}

static void send_all(struct rawpeer *p, const void *data, size_t n)
{
	const uint8_t *b = data;
	ssize_t k;

	while (n > 0) {
		k = send(p->fd, b, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (k < 0 && errno == EPIPE)
			return;
		assert_true(k >= 0 || errno == EAGAIN);
		if (k > 0) {
			b += k;
			n -= (size_t)k;
		} else {
			assert_true(loop_once(p->loop, 1000) > 0);
		}
	}
}

void rawpeer_send(struct rawpeer *p, uint32_t len, uint32_t id, uint8_t type, uint8_t flags,
		  const void *payload, size_t n)
{
	const uint8_t h[10] = { (uint8_t)(len >> 24),
				(uint8_t)(len >> 16),
				(uint8_t)(len >> 8),
				(uint8_t)len,
				(uint8_t)(id >> 24),
				(uint8_t)(id >> 16),
				(uint8_t)(id >> 8),
				(uint8_t)id,
				type,
				flags };

	send_all(p, h, sizeof(h));
	send_all(p, payload, n);
}

void rawpeer_request(struct rawpeer *p, uint32_t id, uint8_t flags, const char *service,
		     const char *method, int64_t timeout_ns, const ProtobufCMessage *req)
{
	Ttrpc__Request head = TTRPC__REQUEST__INIT;
	cleanup_buf struct buf b;

	head.service = (char *)service;
	head.method = (char *)method;
	head.timeout_nano = timeout_ns;
	buf_init(&b, TTRPC_FRAME_MAX);
	assert_int_equal(ttrpc_put_request(&b, id, flags, &head, req), 0);
	send_all(p, buf_data(&b), buf_len(&b));
}

bool rawpeer_recv(struct rawpeer *p, struct ttrpc_frame *f)
{
	ssize_t n;

	for (int tries = 0; !ttrpc_decode(&p->dec, &p->in, f); tries++) {
		settle(p->loop);
		n = recv(p->fd, (uint8_t[1]){ 0 }, 1, MSG_DONTWAIT | MSG_PEEK);
		if (n < 0 && errno == EAGAIN)
			return false;
		p->eof = n <= 0;
		if (p->eof)
			return false;
		assert_true(buf_read_fd(&p->in, p->fd, 256 * KIB) > 0);
	}
	return true;
}

const Ttrpc__Response *rawpeer_expect(struct rawpeer *p, uint32_t id, enum rpc_code code)
{
	const Ttrpc__Response *r;
	struct ttrpc_frame f;
	ProtobufCMessage *m;

	if (!rawpeer_recv(p, &f))
		fail_msg("no answer for stream %u", id);
	assert_int_equal(f.stream_id, id);
	assert_int_equal(f.type, TTRPC_RESPONSE);
	assert_int_equal(f.flags, 0);
	pb_arena_fini(&p->arena);
	assert_int_equal(pb_unpack(&p->arena, &ttrpc__response__descriptor, f.payload, f.len, &m),
			 0);
	r = (const Ttrpc__Response *)m;
	assert_int_equal(r->status ? r->status->code : 0, code);
	return r;
}

void rawpeer_expect_nothing(struct rawpeer *p)
{
	struct ttrpc_frame f;

	if (rawpeer_recv(p, &f))
		fail_msg("a frame of type %u for stream %u", f.type, f.stream_id);
	assert_false(p->eof);
}
