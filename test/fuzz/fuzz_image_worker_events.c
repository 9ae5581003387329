/*
 * What a worker could say to huskd: the first byte says which of its modes it is, and in how large
 * pieces the bytes come. Whatever is accepted keeps the rules of image_worker.proto.
 */
#include "test/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/pb.h"
#include "base/utf8.h"
#include "image/digest.h"
#include "image/wire.h"

static void check_failure(const Worker__Failure *f)
{
	struct err err = { 0 };
	int r = wire_failure(f, &err);

	fuzz_assert(r < 0 && r >= -4095 && r == err.code);
	fuzz_assert(*err.msg && utf8_valid(err.msg));
}

static void check_event(const Worker__Event *e)
{
	switch (e->event_case) {
	case WORKER__EVENT__EVENT_DOCUMENT:
		fuzz_assert(e->id && e->document->data.len <= IMAGE_MAX_DOCUMENT);
		break;
	case WORKER__EVENT__EVENT_IMAGES:
		fuzz_assert(e->id && e->images->n_images <= ARCHIVE_MAX_IMAGES);
		for (size_t k = 0; k < e->images->n_images; k++) {
			const Worker__Images__Image *i = e->images->images[k];

			fuzz_assert(digest_valid(i->digest) && i->n_names <= ARCHIVE_MAX_NAMES);
			for (size_t n = 0; n < i->n_names; n++)
				fuzz_assert(utf8_valid(i->names[n]) &&
					    strlen(i->names[n]) <= WIRE_MAX_NAME);
		}
		break;
	case WORKER__EVENT__EVENT_PROGRESS:
	case WORKER__EVENT__EVENT_DONE:
		fuzz_assert(e->id);
		break;
	case WORKER__EVENT__EVENT_PUSHED:
		fuzz_assert(e->id && e->pushed->how <= WORKER__PUSHED__HOW__MOUNTED);
		break;
	default:
		fuzz_assert(e->event_case == WORKER__EVENT__EVENT_FAILURE);
		check_failure(e->failure);
	}
}

static int take_event(struct pb_arena *a, const uint8_t *data, size_t len)
{
	const Worker__Event *e;
	int r = wire_event(a, data, len, &e, NULL);

	if (r == 0)
		check_event(e);
	return r;
}

static int take_unpack_report(struct pb_arena *a, const uint8_t *data, size_t len)
{
	const Worker__UnpackReport *rep;
	int r = wire_unpack_report(a, data, len, &rep, NULL);

	if (r < 0)
		return r;
	if (rep->failure)
		check_failure(rep->failure);
	fuzz_assert(rep->failure || rep->n_diff_ids <= IMAGE_MAX_LAYERS);
	for (size_t k = 0; !rep->failure && k < rep->n_diff_ids; k++)
		fuzz_assert(digest_valid(rep->diff_ids[k]));
	return 0;
}

static int take_check_report(struct pb_arena *a, const uint8_t *data, size_t len)
{
	const Worker__CheckReport *rep;
	int r = wire_check_report(a, data, len, &rep, NULL);

	if (r < 0)
		return r;
	if (rep->failure)
		check_failure(rep->failure);
	else
		fuzz_assert(digest_valid(rep->digest));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct {
		int (*take)(struct pb_arena *a, const uint8_t *data, size_t len);
		size_t max, memory;
	} modes[] = { { take_event, WIRE_MAX_EVENT, WIRE_EVENT_MEMORY },
		      { take_unpack_report, WIRE_MAX_SMALL, WIRE_REPORT_MEMORY },
		      { take_check_report, WIRE_MAX_SMALL, WIRE_REPORT_MEMORY } };
	size_t mode, piece;
	struct buf in;
	int r = 0;

	if (!size)
		return 0;
	mode = data[0] % 3;
	piece = 1u + data[0] / 3;
	buf_init(&in, WIRE_HEADER + modes[mode].max + 256);
	for (size_t at = 1; r == 0 && at < size;) {
		size_t n = MIN_OF(piece, size - at);
		const uint8_t *message;
		ssize_t len;

		fuzz_assert(buf_put(&in, data + at, n) == 0);
		at += n;
		while (r == 0 && (len = wire_next(&in, modes[mode].max, &message)) != 0) {
			struct pb_arena a;

			if (len < 0) {
				fuzz_assert(len == -EPROTO);
				r = (int)len;
				break;
			}
			pb_arena_init(&a, modes[mode].memory);
			r = modes[mode].take(&a, message, (size_t)len);
			fuzz_assert(r == 0 || r == -EPROTO);
			fuzz_assert(a.used <= modes[mode].memory);
			pb_arena_fini(&a);
			buf_consume(&in, WIRE_HEADER + (size_t)len);
		}
	}
	buf_fini(&in);
	return 0;
}
