/* Tars of one to three layers into tree and ext4: whatever they say, the file is complete or there
 * is an error. Where the input has "NEXT", at a multiple of 512, the next layer begins. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "image/ext4/writer.h"
#include "image/layer/layer_tar.h"
#include "image/ext4/tree.h"
#include "test/fuzz/fuzz.h"

#define MAX_LAYERS 3

struct input {
	const uint8_t *data;
	size_t size;
};

static ssize_t take(void *arg, const void **ret)
{
	struct input *in = arg;
	size_t n = in->size < 10240 ? in->size : 10240;

	*ret = in->data;
	in->data += n;
	in->size -= n;
	return (ssize_t)n;
}

/* Bytes of the first layer of `in`. */
static size_t layer_size(const struct input *in)
{
	for (size_t at = 0; at + 4 <= in->size; at += 512)
		if (!memcmp(in->data + at, "NEXT", 4))
			return at;
	return in->size;
}

static int read_layers(struct input *all, struct tree *t, struct ext4_writer *w)
{
	for (int k = 0;; k++) {
		struct input in = { all->data, layer_size(all) };
		size_t skip = in.size == all->size ? in.size : in.size + 4;
		int r = layer_tar_read(take, &in, t, w, NULL);

		all->data += skip;
		all->size -= skip;
		if (r < 0 || !all->size || k + 1 == MAX_LAYERS)
			return r;
		r = tree_next_layer(t, NULL);
		fuzz_assert(r == 0);
	}
}

static void on_drop(void *arg, struct tree_inode *file)
{
	ext4_writer_drop(arg, file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t uuid[16];
	static int fd = -1;
	struct input in = { data, size };
	struct ext4_writer *w = NULL;
	struct tree *t = NULL;
	uint64_t bytes = 0;

	if (fd < 0) {
		struct err err = { 0 };

		fuzz_assert(layer_tar_prepare(&err) == 0);
		fd = memfd_create("layer", MFD_CLOEXEC);
	}
	fuzz_assert(fd >= 0 && ftruncate(fd, 0) == 0);
	fuzz_assert(tree_new(&t) == 0 && ext4_writer_new(fd, uuid, &w, NULL) == 0);
	tree_on_drop(t, on_drop, w);
	if (read_layers(&in, t, w) == 0) {
		if (size % 2)
			tree_is_bottom(t);
		if (ext4_writer_finish(w, t, &bytes, NULL) == 0)
			fuzz_assert(bytes && bytes % EXT4_BLOCK == 0);
	}
	ext4_writer_free(w);
	tree_free(t);
	return 0;
}
