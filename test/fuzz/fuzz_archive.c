/* Archives of images: which files a stranger's tar has, and which images and blobs they are. */
#include <string.h>

#include "base/util.h"
#include "image/worker/archive_source.h"
#include "test/fuzz/fuzz.h"

struct bytes {
	const uint8_t *p;
	size_t n;
};

static ssize_t read_bytes(void *arg, void *buf, size_t n, uint64_t offset)
{
	const struct bytes *b = arg;

	if (offset >= b->n)
		return 0;
	n = MIN_OF(n, b->n - offset);
	memcpy(buf, b->p + offset, n);
	return (ssize_t)n;
}

static void open_images(struct bytes *b)
{
	const struct archive_image *images;
	struct archive_blob blob;
	struct archive *a;
	size_t n;

	if (archive_open(read_bytes, b, b->n, &a, NULL) < 0)
		return;
	images = archive_images(a, &n);
	fuzz_assert(n > 0 && n <= ARCHIVE_MAX_IMAGES);
	for (size_t i = 0; i < n; i++) {
		fuzz_assert(digest_valid(images[i].digest) && images[i].names);
		if (archive_blob(a, images[i].digest, &blob, NULL) == 0 && !blob.bytes)
			fuzz_assert(blob.offset <= b->n && blob.size <= b->n - blob.offset);
	}
	archive_close(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = { data, size };
	struct archive_index ix;

	if (archive_index_read(read_bytes, &b, size, &ix, NULL) < 0)
		return 0;
	for (size_t i = 0; i < ix.n; i++) {
		const struct archive_entry *e = &ix.entries[i];

		fuzz_assert(e->offset <= size && e->size <= size - e->offset);
		fuzz_assert(strlen(e->name) <= ARCHIVE_MAX_NAME && *e->name != '/');
		e = archive_find(&ix, e->name);
		fuzz_assert(!e || !e->target);
	}
	archive_index_fini(&ix);
	open_images(&b);
	return 0;
}
