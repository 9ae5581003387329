/* Archives of images: which files a stranger's tar has. */
#include <string.h>

#include "base/util.h"
#include "image/archive_index.h"
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
	return 0;
}
