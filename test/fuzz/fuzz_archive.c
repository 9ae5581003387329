/*
 * Archives of images: which files a stranger's tar has, and which images and blobs they are. An
 * input whose first byte is 1, 2 or 3 (no tar begins so) is one document, in a tar that is well
 * formed: index.json, manifest.json (where "config" and "layer" are files that are there), a
 * configuration.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/worker/archive_source.h"
#include "test/fuzz/fuzz.h"

#define BLOCK 512u
#define ROOM(size) (BLOCK + ((size) + BLOCK - 1) / BLOCK * BLOCK)

static void open_images(struct fuzz_file *b)
{
	const struct archive_image *images;
	struct archive_blob blob;
	struct archive *a;
	size_t n;

	if (archive_open(fuzz_pread, b, b->n, &a, NULL) < 0)
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

struct made {
	uint8_t *p;
	size_t n;
};

static void put_file(struct made *b, const char *name, const void *data, size_t size)
{
	char *h = (char *)b->p + b->n;
	unsigned sum = 0;

	memset(h, 0, ROOM(size));
	(void)snprintf(h, 100, "%s", name);
	memcpy(h + 100, "0000644\0000000000\0000000000\000", 24);
	(void)snprintf(h + 124, 12, "%011zo", size);
	memcpy(h + 136, "00000000000", 12);
	memset(h + 148, ' ', 8);
	h[156] = '0';
	memcpy(h + 257, "ustar\00000", 8);
	for (size_t k = 0; k < BLOCK; k++)
		sum += (uint8_t)h[k];
	(void)snprintf(h + 148, 8, "%06o", sum);
	memcpy(h + BLOCK, data, size);
	b->n += ROOM(size);
}

static void open_document(unsigned kind, const uint8_t *data, size_t size)
{
	static const char manifest[] =
		"[{\"Config\":\"config\",\"RepoTags\":[\"a:1\"],\"Layers\":[\"layer\",\"layer\"]}]";
	static const char config[] = "{\"rootfs\":{\"diff_ids\":[\"sha256:0\"]}}";
	struct made m = { 0 };
	struct fuzz_file b;

	m.p = malloc(ROOM(size) + ROOM(sizeof(manifest)) + ROOM(sizeof(config)) + 5 * BLOCK);
	fuzz_assert(m.p);
	put_file(&m, "layer", "not compressed", 14);
	put_file(&m, "config", kind == 3 ? (const char *)data : config,
		 kind == 3 ? size : sizeof(config) - 1);
	if (kind == 1)
		put_file(&m, "index.json", data, size);
	else
		put_file(&m, "manifest.json", kind == 2 ? (const char *)data : manifest,
			 kind == 2 ? size : sizeof(manifest) - 1);
	memset(m.p + m.n, 0, 2 * BLOCK);
	b = (struct fuzz_file){ m.p, m.n + 2 * BLOCK };
	open_images(&b);
	free(m.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_file b = { data, size };
	struct archive_index ix;

	if (size && data[0] >= 1 && data[0] <= 3) {
		open_document(data[0], data + 1, size - 1);
		return 0;
	}
	if (archive_index_read(fuzz_pread, &b, size, &ix, NULL) < 0)
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
