/*
 * What huskd could say to its worker: commands in frames or, when the first byte is odd, the
 * options of a fetch process. Whatever is accepted keeps the rules of image_worker.proto.
 */
#include "test/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/pb.h"
#include "image/digest.h"
#include "image/hosts.h"
#include "image/wire.h"

static void check_command(const Worker__Command *c)
{
	fuzz_assert(wire_command_fds(c) <= WIRE_MAX_FDS);
	fuzz_assert((c->command_case == WORKER__COMMAND__COMMAND_OPEN) == !c->id);
	switch (c->command_case) {
	case WORKER__COMMAND__COMMAND_MANIFEST:
		fuzz_assert(*c->manifest->reference &&
			    strlen(c->manifest->reference) <= WIRE_MAX_NAME);
		break;
	case WORKER__COMMAND__COMMAND_BLOB:
		fuzz_assert(digest_valid(c->blob->digest));
		break;
	case WORKER__COMMAND__COMMAND_LAYER:
		fuzz_assert(digest_valid(c->layer->digest) && c->layer->have <= c->layer->size);
		fuzz_assert(c->layer->file || !c->layer->have);
		break;
	case WORKER__COMMAND__COMMAND_PUSH:
		fuzz_assert(digest_valid(c->push->digest) &&
			    strlen(c->push->media_type) <= WIRE_MAX_NAME);
		break;
	default:
		break;
	}
}

static void check_text(struct pb_arena *a, ProtobufCBinaryData b)
{
	char *s = NULL;

	if (wire_text(a, b, &s) < 0)
		return;
	fuzz_assert(b.len ? strlen(s) == b.len && !memcmp(s, b.data, b.len) : !s);
}

static void take_options(const uint8_t *data, size_t size)
{
	const Worker__Options *o;
	struct pb_arena a;
	int r;

	pb_arena_init(&a, WIRE_OPTIONS_MEMORY);
	r = wire_options(&a, data, size, &o, NULL);
	fuzz_assert(r == 0 || r == -EPROTO);
	if (r == 0) {
		fuzz_assert(o->n_hosts >= 1 && o->n_hosts <= HOSTS_MAX);
		check_text(&a, o->user);
		check_text(&a, o->no_proxy);
		for (size_t k = 0; k < o->n_hosts; k++) {
			fuzz_assert(o->hosts[k]->n_headers <= HOSTS_MAX_HEADERS);
			fuzz_assert(strstr(o->hosts[k]->url, "://"));
			check_text(&a, o->hosts[k]->ca);
			for (size_t n = 0; n < o->hosts[k]->n_headers; n++)
				check_text(&a, o->hosts[k]->headers[n]);
		}
	}
	pb_arena_fini(&a);
}

static void take_commands(struct buf *in)
{
	const uint8_t *message;
	ssize_t len;

	while ((len = wire_next(in, WIRE_MAX_COMMAND, &message)) > 0) {
		const Worker__Command *c;
		struct pb_arena a;
		int r;

		pb_arena_init(&a, WIRE_COMMAND_MEMORY);
		r = wire_command(&a, message, (size_t)len, &c, NULL);
		fuzz_assert(r == 0 || r == -EPROTO);
		if (r == 0)
			check_command(c);
		pb_arena_fini(&a);
		buf_consume(in, WIRE_HEADER + (size_t)len);
	}
	fuzz_assert(len == 0 || len == -EPROTO);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf in;

	if (!size)
		return 0;
	if (data[0] & 1) {
		take_options(data + 1, size - 1);
		return 0;
	}
	buf_init(&in, size);
	fuzz_assert(buf_put(&in, data + 1, size - 1) == 0);
	take_commands(&in);
	buf_fini(&in);
	return 0;
}
