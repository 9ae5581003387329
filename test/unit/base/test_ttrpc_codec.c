#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>

#include "base/pb.h"
#include "base/ttrpc/codec.h"
#include "base/util.h"
#include "proto/agent.pb-c.h"

static void put_header(struct buf *b, uint32_t len, uint32_t id, uint8_t type, uint8_t flags)
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

	assert_int_equal(buf_put(b, h, sizeof(h)), 0);
}

static void frames_byte_by_byte(void **state)
{
	cleanup_buf struct buf wire, in;
	struct ttrpc_decoder d = { 0 };
	struct ttrpc_frame f;
	int seen = 0;

	buf_init(&wire, 1000);
	buf_init(&in, TTRPC_FRAME_MAX);
	put_header(&wire, 3, 0x01020305, TTRPC_REQUEST, 7);
	assert_int_equal(buf_put(&wire, "abc", 3), 0);
	put_header(&wire, 0, 7, TTRPC_DATA, TTRPC_NO_DATA | TTRPC_REMOTE_CLOSED);
	put_header(&wire, 1, 9, 200, 0);
	assert_int_equal(buf_put(&wire, "z", 1), 0);
	for (size_t i = 0; i < wire.len; i++) {
		assert_int_equal(buf_put(&in, wire.data + i, 1), 0);
		while (ttrpc_decode(&d, &in, &f)) {
			static const uint32_t ids[] = { 0x01020305, 7, 9 };
			static const uint8_t types[] = { TTRPC_REQUEST, TTRPC_DATA, 200 };
			static const char *const text[] = { "abc", "", "z" };

			assert_int_equal(f.stream_id, ids[seen]);
			assert_int_equal(f.type, types[seen]);
			assert_int_equal(f.len, strlen(text[seen]));
			assert_memory_equal(f.payload, text[seen], f.len);
			assert_false(f.oversize);
			seen++;
		}
	}
	assert_int_equal(seen, 3);
	assert_int_equal(buf_len(&in), 0);
}

static void oversize_is_skipped(void **state)
{
	cleanup_buf struct buf in;
	struct ttrpc_decoder d = { 0 };
	struct ttrpc_frame f;
	uint32_t len = TTRPC_MESSAGE_MAX + 1, left = len;
	static uint8_t junk[100000];

	buf_init(&in, TTRPC_FRAME_MAX);
	put_header(&in, len, 5, TTRPC_REQUEST, 0);
	/* Told at once, before its payload. */
	assert_true(ttrpc_decode(&d, &in, &f));
	assert_true(f.oversize);
	assert_null(f.payload);
	assert_int_equal(f.len, len);
	assert_int_equal(f.stream_id, 5);
	while (left > 0) {
		uint32_t n = MIN_OF(left, (uint32_t)sizeof(junk));

		assert_false(ttrpc_decode(&d, &in, &f));
		assert_int_equal(buf_put(&in, junk, n), 0);
		left -= n;
	}
	put_header(&in, 0, 7, TTRPC_REQUEST, 0);
	assert_true(ttrpc_decode(&d, &in, &f));
	assert_int_equal(f.stream_id, 7);
	assert_false(f.oversize);
	/* Never a large buffer for it. */
	assert_true(in.cap < 3 * sizeof(junk));
}

static void largest_frame_fits(void **state)
{
	cleanup_buf struct buf in;
	struct ttrpc_decoder d = { 0 };
	struct ttrpc_frame f;
	uint8_t *p;

	buf_init(&in, TTRPC_FRAME_MAX);
	put_header(&in, TTRPC_MESSAGE_MAX, 1, TTRPC_DATA, 0);
	assert_int_equal(buf_reserve(&in, TTRPC_MESSAGE_MAX, &p), 0);
	memset(p, 'x', TTRPC_MESSAGE_MAX);
	buf_commit(&in, TTRPC_MESSAGE_MAX - 1);
	assert_false(ttrpc_decode(&d, &in, &f));
	buf_commit(&in, 1);
	assert_true(ttrpc_decode(&d, &in, &f));
	assert_false(f.oversize);
	assert_int_equal(f.payload[TTRPC_MESSAGE_MAX - 1], 'x');
	assert_false(ttrpc_decode(&d, &in, &f));
	assert_int_equal(buf_len(&in), 0);
}

static void request_round_trip(void **state)
{
	Agent__SignalProcessRequest req = AGENT__SIGNAL_PROCESS_REQUEST__INIT;
	Ttrpc__Request head = TTRPC__REQUEST__INIT;
	Ttrpc__KeyValue kv = TTRPC__KEY_VALUE__INIT, *kvp = &kv;
	cleanup_pb_arena struct pb_arena a;
	Agent__SignalProcessRequest *got;
	struct ttrpc_decoder d = { 0 };
	cleanup_buf struct buf b;
	struct ttrpc_frame f;
	ProtobufCMessage *m;
	Ttrpc__Request *h;
	char id[301];

	memset(id, 'i', 300);
	id[300] = '\0';
	req.id = id; /* the payload's length takes two bytes */
	req.signal = 9;
	kv.key = (char *)"k";
	kv.value = (char *)"v";
	head.service = (char *)"s.S";
	head.method = (char *)"M";
	head.timeout_nano = 123;
	head.metadata = &kvp;
	head.n_metadata = 1;
	buf_init(&b, TTRPC_FRAME_MAX);
	pb_arena_init(&a, 1 * MIB);
	assert_int_equal(ttrpc_put_request(&b, 11, TTRPC_REMOTE_CLOSED, &head, &req.base), 0);
	assert_true(ttrpc_decode(&d, &b, &f));
	assert_int_equal(f.stream_id, 11);
	assert_int_equal(f.type, TTRPC_REQUEST);
	assert_int_equal(f.flags, TTRPC_REMOTE_CLOSED);
	assert_int_equal(pb_unpack(&a, &ttrpc__request__descriptor, f.payload, f.len, &m), 0);
	h = (Ttrpc__Request *)m;
	assert_string_equal(h->service, "s.S");
	assert_string_equal(h->method, "M");
	assert_int_equal(h->timeout_nano, 123);
	assert_int_equal(h->n_metadata, 1);
	assert_string_equal(h->metadata[0]->value, "v");
	assert_int_equal(pb_unpack(&a, &agent__signal_process_request__descriptor, h->payload.data,
				   h->payload.len, &m),
			 0);
	got = (Agent__SignalProcessRequest *)m;
	assert_string_equal(got->id, id);
	assert_int_equal(got->signal, 9);
	assert_false(ttrpc_decode(&d, &b, &f));
}

/* The bytes that Go's ttrpc expects. */
static void bytes_on_the_wire(void **state)
{
	static const uint8_t want[] = {
		0, 0, 0, 6, 0, 0, 0, 3, 2, 0, 0x12, 4, 0x0a, 2,	  'i',	'd', /* payload = 2 */
		0, 0, 0, 0, 0, 0, 0, 3, 2, 0,				     /* empty answer */
		0, 0, 0, 4, 0, 0, 0, 5, 3, 1, 0x0a, 2, 'i',  'd',	     /* data */
		0, 0, 0, 0, 0, 0, 0, 5, 3, 5,				     /* its end */
		0, 0, 0, 8, 0, 0, 0, 7, 2, 0, 0x0a, 6, 8,    5,	  0x12, 2,   'n', 'o', /* status */
	};
	Agent__StartContainerRequest m = AGENT__START_CONTAINER_REQUEST__INIT;
	cleanup_buf struct buf b;

	m.id = (char *)"id";
	buf_init(&b, 1000);
	assert_int_equal(ttrpc_put_response(&b, 3, &m.base), 0);
	assert_int_equal(ttrpc_put_response(&b, 3, NULL), 0);
	assert_int_equal(ttrpc_put_data(&b, 5, TTRPC_REMOTE_CLOSED, &m.base), 0);
	assert_int_equal(ttrpc_put_data(&b, 5, TTRPC_REMOTE_CLOSED | TTRPC_NO_DATA, NULL), 0);
	assert_int_equal(ttrpc_put_status(&b, 7, RPC_NOT_FOUND, "no", NULL, NULL), 0);
	assert_int_equal(buf_len(&b), sizeof(want));
	assert_memory_equal(buf_data(&b), want, sizeof(want));
}

static void status_with_detail(void **state)
{
	Agent__StartFailure fail = AGENT__START_FAILURE__INIT;
	cleanup_pb_arena struct pb_arena a;
	struct ttrpc_decoder d = { 0 };
	cleanup_buf struct buf b;
	struct ttrpc_frame f;
	ProtobufCMessage *m;
	Ttrpc__Response *r;

	fail.stage = (char *)"exec";
	fail.error = 2;
	buf_init(&b, 1000);
	pb_arena_init(&a, 64 * KIB);
	assert_int_equal(ttrpc_put_status(&b, 7, RPC_NOT_FOUND, "no", "x.Y", &fail.base), 0);
	assert_true(ttrpc_decode(&d, &b, &f));
	assert_int_equal(pb_unpack(&a, &ttrpc__response__descriptor, f.payload, f.len, &m), 0);
	r = (Ttrpc__Response *)m;
	assert_int_equal(r->status->code, 5);
	assert_int_equal(r->status->n_details, 1);
	assert_string_equal(r->status->details[0]->type_url, "x.Y");
	assert_int_equal(pb_unpack(&a, &agent__start_failure__descriptor,
				   r->status->details[0]->value.data,
				   r->status->details[0]->value.len, &m),
			 0);
	assert_string_equal(((Agent__StartFailure *)m)->stage, "exec");
}

/* A guest's text is in what we answer: a Go client would refuse the message whole. */
static void answers_are_utf8(void **state)
{
	Agent__StartContainerResponse resp = AGENT__START_CONTAINER_RESPONSE__INIT;
	Agent__StartFailure fail = AGENT__START_FAILURE__INIT;
	char stage[] = "\xff\xc3\xa4\xe2\x82", message[] = "no \xc3";
	cleanup_pb_arena struct pb_arena a;
	struct ttrpc_decoder d = { 0 };
	cleanup_buf struct buf b;
	struct ttrpc_frame f;
	ProtobufCMessage *m;
	Ttrpc__Response *r;

	fail.stage = stage;
	fail.error = 2;
	resp.failure = &fail;
	buf_init(&b, 4000);
	pb_arena_init(&a, 64 * KIB);
	assert_int_equal(ttrpc_put_response(&b, 7, &resp.base), 0);
	assert_int_equal(ttrpc_put_data(&b, 7, 0, &resp.base), 0);
	assert_int_equal(ttrpc_put_status(&b, 7, RPC_UNKNOWN, message, "x.Y", &fail.base), 0);

	assert_true(ttrpc_decode(&d, &b, &f));
	assert_int_equal(pb_unpack(&a, &ttrpc__response__descriptor, f.payload, f.len, &m), 0);
	r = (Ttrpc__Response *)m;
	assert_int_equal(pb_unpack(&a, &agent__start_container_response__descriptor,
				   r->payload.data, r->payload.len, &m),
			 0);
	assert_string_equal(((Agent__StartContainerResponse *)m)->failure->stage, "?\xc3\xa4??");
	assert_int_equal(((Agent__StartContainerResponse *)m)->failure->error, 2);

	assert_true(ttrpc_decode(&d, &b, &f));
	assert_int_equal(
		pb_unpack(&a, &agent__start_container_response__descriptor, f.payload, f.len, &m),
		0);
	assert_string_equal(((Agent__StartContainerResponse *)m)->failure->stage, "?\xc3\xa4??");

	assert_true(ttrpc_decode(&d, &b, &f));
	assert_int_equal(pb_unpack(&a, &ttrpc__response__descriptor, f.payload, f.len, &m), 0);
	r = (Ttrpc__Response *)m;
	assert_string_equal(r->status->message, "no ?");
	assert_int_equal(pb_unpack(&a, &agent__start_failure__descriptor,
				   r->status->details[0]->value.data,
				   r->status->details[0]->value.len, &m),
			 0);
	assert_string_equal(((Agent__StartFailure *)m)->stage, "?\xc3\xa4??");
	/* The handler's own message is as it was. */
	assert_string_equal(stage, "\xff\xc3\xa4\xe2\x82");
}

static void sizes_are_checked(void **state)
{
	Agent__CreateSandboxRequest m = AGENT__CREATE_SANDBOX_REQUEST__INIT;
	cleanup_free char *text = malloc(TTRPC_MESSAGE_MAX + 1);
	cleanup_buf struct buf b;
	size_t over;

	memset(text, 'x', TTRPC_MESSAGE_MAX);
	text[TTRPC_MESSAGE_MAX] = '\0';
	m.hosts = text;
	buf_init(&b, 2 * TTRPC_FRAME_MAX);
	assert_int_equal(ttrpc_put_data(&b, 1, 0, &m.base), -EMSGSIZE);
	assert_int_equal(ttrpc_put_response(&b, 1, &m.base), -EMSGSIZE);
	assert_int_equal(ttrpc_put_status(&b, 1, RPC_UNKNOWN, text, NULL, NULL), -EMSGSIZE);
	assert_int_equal(ttrpc_put_status(&b, 1, RPC_UNKNOWN, "", "t", &m.base), -EMSGSIZE);
	assert_int_equal(buf_len(&b), 0);
	/* Exactly the limit goes, as data; as an answer it has a few bytes more around it. */
	over = protobuf_c_message_get_packed_size(&m.base) - TTRPC_MESSAGE_MAX;
	text[TTRPC_MESSAGE_MAX - over] = '\0';
	assert_int_equal(ttrpc_put_response(&b, 1, &m.base), -EMSGSIZE);
	assert_int_equal(ttrpc_put_data(&b, 1, 0, &m.base), 0);
	assert_int_equal(buf_len(&b), TTRPC_FRAME_MAX);
	assert_int_equal(ttrpc_put_data(&b, 1, 0, &m.base), 0);
	assert_int_equal(ttrpc_put_data(&b, 1, 0, NULL), -ENOBUFS);
	assert_int_equal(buf_len(&b), 2 * TTRPC_FRAME_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_byte_by_byte), cmocka_unit_test(oversize_is_skipped),
		cmocka_unit_test(largest_frame_fits),  cmocka_unit_test(request_round_trip),
		cmocka_unit_test(bytes_on_the_wire),   cmocka_unit_test(status_with_detail),
		cmocka_unit_test(answers_are_utf8),    cmocka_unit_test(sizes_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
