/* Frames and messages between huskd and its image worker: what is taken and what is refused. */
#include "test/lib/unit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "image/wire.h"

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct pb_arena arena;

static int reset(void **state)
{
	pb_arena_fini(&arena);
	pb_arena_init(&arena, WIRE_EVENT_MEMORY);
	return 0;
}

/* ---- frames ---- */

static void test_frames(void **state)
{
	Worker__Progress p = { .base = PROTOBUF_C_MESSAGE_INIT(&worker__progress__descriptor),
			       .bytes = 300 };
	cleanup_free uint8_t *frame = NULL;
	const uint8_t *data = NULL;
	struct buf in;
	size_t len;

	buf_init(&in, 64);
	assert_int_equal(wire_frame(&p.base, 3, &frame, &len), 0);
	assert_int_equal(len, WIRE_HEADER + 3);
	assert_memory_equal(frame, "\3\0\0\0\x08\xac\x02", len);
	for (size_t k = 0; k < len; k++) {
		assert_int_equal(wire_next(&in, 3, &data), 0);
		assert_int_equal(buf_put(&in, frame + k, 1), 0);
	}
	assert_int_equal(buf_put(&in, frame, len), 0);
	for (int k = 0; k < 2; k++) {
		assert_int_equal(wire_next(&in, 3, &data), 3);
		assert_memory_equal(data, frame + WIRE_HEADER, 3);
		buf_consume(&in, len);
	}
	assert_int_equal(wire_next(&in, 3, &data), 0);
	/* one that is too long is refused by its header alone, on both ends */
	assert_int_equal(buf_put(&in, frame, WIRE_HEADER), 0);
	assert_int_equal(wire_next(&in, 2, &data), -EPROTO);
	free_ptr(&frame);
	assert_int_equal(wire_frame(&p.base, 2, &frame, &len), -EFBIG);
	buf_clear(&in);
	assert_int_equal(buf_put(&in, "\0\0\0\0", 4), 0);
	assert_int_equal(wire_next(&in, 3, &data), -EPROTO);
	buf_fini(&in);
}

/* Small and large ones arrive as they are. */
static void test_write(void **state)
{
	static uint8_t bytes[IMAGE_MAX_DOCUMENT];
	static const size_t sizes[] = { 0, 1, 1000, 1024, 5000, IMAGE_MAX_DOCUMENT };
	Worker__Document d = WORKER__DOCUMENT__INIT;
	Worker__Event e = WORKER__EVENT__INIT;

	memset(bytes, 'x', sizeof(bytes));
	e.id = 7;
	e.event_case = WORKER__EVENT__EVENT_DOCUMENT;
	e.document = &d;
	for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
		cleanup_fd int fd = memfd_create("wire", MFD_CLOEXEC);
		const Worker__Event *got;
		const uint8_t *data;
		struct buf in;
		ssize_t n;

		d.data.data = bytes;
		d.data.len = sizes[k];
		assert_int_equal(wire_write(fd, &e.base, WIRE_MAX_EVENT), 0);
		assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
		buf_init(&in, WIRE_HEADER + WIRE_MAX_EVENT);
		while ((n = buf_read_fd(&in, fd, WIRE_MAX_EVENT)) > 0)
			;
		n = wire_next(&in, WIRE_MAX_EVENT, &data);
		assert_true(n > 0 && buf_len(&in) == WIRE_HEADER + (size_t)n);
		reset(NULL);
		assert_int_equal(wire_event(&arena, data, (size_t)n, &got, NULL), 0);
		assert_int_equal(got->id, 7);
		assert_int_equal(got->document->data.len, sizes[k]);
		assert_int_equal(memcmp(got->document->data.data ? (void *)got->document->data.data
								 : (void *)bytes,
					bytes, sizes[k]),
				 0);
		buf_fini(&in);
	}
	d.data.len = 5000;
	assert_int_equal(wire_write(-1, &e.base, 4000), -EFBIG);
	assert_int_equal(wire_write(-1, &e.base, WIRE_MAX_EVENT), -EBADF);
}

/* ---- what huskd reads ---- */

static int decode_event(const Worker__Event *e, const Worker__Event **ret, struct err *err)
{
	cleanup_free uint8_t *bytes = NULL;
	size_t len;

	reset(NULL);
	bytes = pb_pack(&e->base, &len);
	return wire_event(&arena, bytes, len, ret, err);
}

static int decode_failure(uint32_t id, int error, const void *text, size_t len, struct err *err)
{
	Worker__Failure f = WORKER__FAILURE__INIT;
	Worker__Event e = WORKER__EVENT__INIT;
	const Worker__Event *got;
	int r;

	f.error = error;
	f.text.data = (uint8_t *)text;
	f.text.len = len;
	e.id = id;
	e.event_case = WORKER__EVENT__EVENT_FAILURE;
	e.failure = &f;
	r = decode_event(&e, &got, err);
	return r < 0 ? r : wire_failure(got->failure, err);
}

static void test_failures(void **state)
{
	char text[WIRE_MAX_TEXT + 1];
	struct err err = { 0 };

	assert_int_equal(decode_failure(3, ENOENT, "no such image", 13, &err), -ENOENT);
	assert_string_equal(err.msg, "no such image");
	assert_int_equal(err.code, -ENOENT);
	/* what a stranger named: made UTF-8, and ends at a NUL */
	assert_int_equal(decode_failure(3, EPROTO, "\"caf\xe9\": bad\0name", 16, &err), -EPROTO);
	assert_string_equal(err.msg, "\"caf?\": bad");
	/* without a text, that of the number */
	assert_int_equal(decode_failure(0, ENOSPC, NULL, 0, &err), -ENOSPC);
	assert_string_equal(err.msg, "No space left on device");
	memset(text, 'x', sizeof(text));
	assert_int_equal(decode_failure(3, EIO, text, WIRE_MAX_TEXT, &err), -EIO);
	assert_int_equal(strlen(err.msg), WIRE_MAX_TEXT);
	assert_int_equal(decode_failure(3, EIO, text, WIRE_MAX_TEXT + 1, &err), -EPROTO);
	assert_int_equal(decode_failure(3, 0, "", 0, &err), -EPROTO);
	assert_int_equal(decode_failure(3, -EIO, "", 0, &err), -EPROTO);
	assert_int_equal(decode_failure(3, 4096, "", 0, &err), -EPROTO);
}

static void test_events(void **state)
{
	static uint8_t bytes[IMAGE_MAX_DOCUMENT + 1];
	Worker__Document d = WORKER__DOCUMENT__INIT;
	Worker__Pushed p = WORKER__PUSHED__INIT;
	Worker__Progress progress = WORKER__PROGRESS__INIT;
	Worker__Event e = WORKER__EVENT__INIT;
	const Worker__Event *got;
	struct err err = { 0 };

	/* none, and one that we do not know */
	e.id = 1;
	assert_int_equal(decode_event(&e, &got, &err), -EPROTO);
	assert_int_equal(wire_event(&arena, (const uint8_t *)"\x08\x01\x7a\x00", 4, &got, NULL),
			 -EPROTO);
	assert_int_equal(wire_event(&arena, (const uint8_t *)"\xff\xff\xff", 3, &got, NULL),
			 -EPROTO);
	e.event_case = WORKER__EVENT__EVENT_PROGRESS;
	e.progress = &progress;
	progress.bytes = UINT64_MAX;
	assert_int_equal(decode_event(&e, &got, &err), 0);
	assert_true(got->progress->bytes == UINT64_MAX);
	e.id = 0;
	assert_int_equal(decode_event(&e, &got, &err), -EPROTO);
	e.id = 1;
	e.event_case = WORKER__EVENT__EVENT_PUSHED;
	e.pushed = &p;
	p.how = WORKER__PUSHED__HOW__MOUNTED;
	assert_int_equal(decode_event(&e, &got, &err), 0);
	p.how = (Worker__Pushed__How)3;
	assert_int_equal(decode_event(&e, &got, &err), -EPROTO);
	e.event_case = WORKER__EVENT__EVENT_DOCUMENT;
	e.document = &d;
	d.data.data = bytes;
	d.data.len = sizeof(bytes);
	assert_int_equal(decode_event(&e, &got, &err), -EPROTO);
}

static void test_small_events_are_small(void **state)
{
	/* Done with a field that nobody knows, of 70,000 bytes */
	static uint8_t bytes[70008] = {
		0x08, 0x01, 0x22, 0xf2, 0xa2, 0x04, 0x7a, 0xee, 0xa2, 0x04
	};
	const Worker__Event *got;
	struct err err = { 0 };

	reset(NULL);
	assert_int_equal(wire_event(&arena, bytes, sizeof(bytes), &got, &err), -EPROTO);
	assert_string_equal(err.msg, "event 4 against the rules");
	assert_int_equal(
		wire_event(&arena, (const uint8_t *)"\x08\1\x22\4\x7a\2\0\0", 8, &got, &err), 0);
	bytes[3] = 0x04;
	assert_int_equal(wire_event(&arena, bytes, 6, &got, &err), -EPROTO); /* cut */
}

static void test_images(void **state)
{
	Worker__Images__Image image = WORKER__IMAGES__IMAGE__INIT, *list[ARCHIVE_MAX_IMAGES + 1];
	char *names[ARCHIVE_MAX_NAMES + 1], longest[WIRE_MAX_NAME + 2] = { 0 };
	Worker__Images images = WORKER__IMAGES__INIT;
	Worker__Event e = WORKER__EVENT__INIT;
	const Worker__Event *got;

	memset(longest, 'n', WIRE_MAX_NAME + 1);
	for (size_t k = 0; k < ARRAY_SIZE(list); k++)
		list[k] = &image;
	for (size_t k = 0; k < ARRAY_SIZE(names); k++)
		names[k] = (char *)"a/b:c";
	e.id = 1;
	e.event_case = WORKER__EVENT__EVENT_IMAGES;
	e.images = &images;
	images.images = list;
	image.digest = (char *)DIGEST;
	image.names = names;
	images.n_images = ARCHIVE_MAX_IMAGES;
	image.n_names = 1;
	assert_int_equal(decode_event(&e, &got, NULL), 0);
	assert_string_equal(got->images->images[255]->names[0], "a/b:c");
	images.n_images++;
	assert_int_equal(decode_event(&e, &got, NULL), -EPROTO);
	images.n_images = 1;
	image.n_names = ARCHIVE_MAX_NAMES;
	assert_int_equal(decode_event(&e, &got, NULL), 0);
	image.n_names++;
	assert_int_equal(decode_event(&e, &got, NULL), -EPROTO);
	image.n_names = 1;
	names[0] = longest;
	assert_int_equal(decode_event(&e, &got, NULL), -EPROTO);
	longest[WIRE_MAX_NAME] = 0;
	assert_int_equal(decode_event(&e, &got, NULL), 0);
	names[0] = (char *)"caf\xe9";
	assert_int_equal(decode_event(&e, &got, NULL), -EPROTO);
	image.n_names = 0;
	image.digest = (char *)"sha256:../../etc/passwd";
	assert_int_equal(decode_event(&e, &got, NULL), -EPROTO);
}

/* Two bytes on the wire are 64 in memory: the arena ends that. */
static void test_many_parts(void **state)
{
	static uint8_t bytes[2 * MIB];
	const Worker__Event *got;
	struct err err = { 0 };
	size_t n = 0;

	bytes[n++] = 0x08; /* id 1 */
	bytes[n++] = 0x01;
	bytes[n++] = 0x32; /* Images of the rest: 2 MiB - 6 */
	bytes[n++] = 0xfa;
	bytes[n++] = 0xff;
	bytes[n++] = 0x7f;
	for (; n < sizeof(bytes); n += 2)
		bytes[n] = 0x12; /* an image of no bytes */
	reset(NULL);
	assert_int_equal(wire_event(&arena, bytes, sizeof(bytes), &got, &err), -EPROTO);
	assert_string_equal(err.msg, "message of too many parts");
	assert_true(arena.used <= WIRE_EVENT_MEMORY);
}

static int decode_unpack(const Worker__UnpackReport *r)
{
	cleanup_free uint8_t *bytes = NULL;
	const Worker__UnpackReport *got;
	size_t len;

	reset(NULL);
	bytes = pb_pack(&r->base, &len);
	return wire_unpack_report(&arena, bytes, len, &got, NULL);
}

static int decode_check(const Worker__CheckReport *r)
{
	cleanup_free uint8_t *bytes = NULL;
	const Worker__CheckReport *got;
	size_t len;

	reset(NULL);
	bytes = pb_pack(&r->base, &len);
	return wire_check_report(&arena, bytes, len, &got, NULL);
}

static void test_reports(void **state)
{
	Worker__UnpackReport u = WORKER__UNPACK_REPORT__INIT;
	Worker__CheckReport c = WORKER__CHECK_REPORT__INIT;
	Worker__Failure f = WORKER__FAILURE__INIT;
	char *ids[IMAGE_MAX_LAYERS + 1];

	for (size_t k = 0; k < ARRAY_SIZE(ids); k++)
		ids[k] = (char *)DIGEST;
	u.diff_ids = ids;
	u.n_diff_ids = IMAGE_MAX_LAYERS;
	assert_int_equal(decode_unpack(&u), 0);
	u.n_diff_ids++;
	assert_int_equal(decode_unpack(&u), -EPROTO);
	u.n_diff_ids = 1;
	ids[0] = (char *)"sha256:0";
	assert_int_equal(decode_unpack(&u), -EPROTO);
	u.n_diff_ids = 0;
	u.failure = &f;
	assert_int_equal(decode_unpack(&u), -EPROTO); /* of what? */
	f.error = EBADMSG;
	assert_int_equal(decode_unpack(&u), 0);

	assert_int_equal(decode_check(&c), -EPROTO);
	c.digest = (char *)DIGEST;
	assert_int_equal(decode_check(&c), 0);
	c.digest = (char *)"";
	c.failure = &f;
	assert_int_equal(decode_check(&c), 0);
	f.error = 0;
	assert_int_equal(decode_check(&c), -EPROTO);
}

static void test_failure_of(void **state)
{
	Worker__Failure f = WORKER__FAILURE__INIT;
	struct err err = { 0 };

	err_set(&err, -ENOENT, "no such image");
	wire_failure_of(&f, -ENOENT, &err);
	assert_int_equal(f.error, ENOENT);
	assert_int_equal(f.text.len, 13);
	assert_memory_equal(f.text.data, "no such image", 13);
	wire_failure_of(&f, 5, &err);
	assert_int_equal(f.error, EIO);
	wire_failure_of(&f, -5000, &err);
	assert_int_equal(f.error, EIO);
}

/* ---- what the worker reads ---- */

static int decode_command(const Worker__Command *c)
{
	cleanup_free uint8_t *bytes = NULL;
	const Worker__Command *got;
	size_t len;
	int r;

	reset(NULL);
	bytes = pb_pack(&c->base, &len);
	r = wire_command(&arena, bytes, len, &got, NULL);
	return r < 0 ? r : (int)wire_command_fds(got);
}

static void test_commands(void **state)
{
	Worker__Command c = WORKER__COMMAND__INIT;
	Worker__Open open = WORKER__OPEN__INIT;
	Worker__Manifest m = WORKER__MANIFEST__INIT;
	Worker__Layer l = WORKER__LAYER__INIT;
	Worker__Push p = WORKER__PUSH__INIT;

	assert_int_equal(decode_command(&c), -EPROTO);
	c.command_case = WORKER__COMMAND__COMMAND_OPEN;
	c.open = &open;
	assert_int_equal(decode_command(&c), 1);
	c.id = 1;
	assert_int_equal(decode_command(&c), -EPROTO);
	c.command_case = WORKER__COMMAND__COMMAND_MANIFEST;
	c.manifest = &m;
	assert_int_equal(decode_command(&c), -EPROTO); /* of what? */
	m.reference = (char *)"latest";
	assert_int_equal(decode_command(&c), 0);
	c.id = 0;
	assert_int_equal(decode_command(&c), -EPROTO);
	c.id = 1;
	c.command_case = WORKER__COMMAND__COMMAND_LAYER;
	c.layer = &l;
	l.digest = (char *)DIGEST;
	l.size = 10;
	assert_int_equal(decode_command(&c), 0);
	l.pipe = true;
	assert_int_equal(decode_command(&c), 1);
	l.have = 10;
	assert_int_equal(decode_command(&c), -EPROTO); /* of no file */
	l.file = true;
	assert_int_equal(decode_command(&c), 2);
	l.have = 11;
	assert_int_equal(decode_command(&c), -EPROTO);
	c.command_case = WORKER__COMMAND__COMMAND_PUSH;
	c.push = &p;
	p.file = true;
	assert_int_equal(decode_command(&c), -EPROTO);
	p.digest = (char *)DIGEST;
	assert_int_equal(decode_command(&c), 1);
}

static int decode_options(const Worker__Options *o, const Worker__Options **got)
{
	cleanup_free uint8_t *bytes = NULL;
	size_t len;

	reset(NULL);
	bytes = pb_pack(&o->base, &len);
	return wire_options(&arena, bytes, len, got, NULL);
}

static void test_options(void **state)
{
	Worker__Options__Host host = WORKER__OPTIONS__HOST__INIT, *hosts[17];
	Worker__Options o = WORKER__OPTIONS__INIT;
	ProtobufCBinaryData headers[33];
	const Worker__Options *got;
	char *text;

	for (size_t k = 0; k < ARRAY_SIZE(hosts); k++)
		hosts[k] = &host;
	for (size_t k = 0; k < ARRAY_SIZE(headers); k++)
		headers[k] = (ProtobufCBinaryData){ 4, (uint8_t *)"A: b" };
	o.host = (char *)"registry.example";
	o.hosts = hosts;
	assert_int_equal(decode_options(&o, &got), -EPROTO);
	o.n_hosts = 16;
	assert_int_equal(decode_options(&o, &got), -EPROTO);
	host.url = (char *)"https://registry.example/v2";
	host.headers = headers;
	host.n_headers = 32;
	o.password = (ProtobufCBinaryData){ 3, (uint8_t *)"\xe9\xff!" };
	assert_int_equal(decode_options(&o, &got), 0);
	assert_int_equal(wire_text(&arena, got->password, &text), 0);
	assert_string_equal(text, "\xe9\xff!");
	assert_int_equal(wire_text(&arena, got->user, &text), 0);
	assert_null(text);
	o.n_hosts = 17;
	assert_int_equal(decode_options(&o, &got), -EPROTO);
	o.n_hosts = 1;
	host.n_headers = 33;
	assert_int_equal(decode_options(&o, &got), -EPROTO);
	host.n_headers = 0;
	o.password = (ProtobufCBinaryData){ 3, (uint8_t *)"a\0b" };
	assert_int_equal(decode_options(&o, &got), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_small_events_are_small),
		cmocka_unit_test(test_images),
		cmocka_unit_test(test_many_parts),
		cmocka_unit_test(test_reports),
		cmocka_unit_test(test_failure_of),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_options),
	};
	int r;

	pb_arena_init(&arena, WIRE_EVENT_MEMORY);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	pb_arena_fini(&arena);
	return r;
}
