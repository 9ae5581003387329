/* A layer's tar into tree and ext4: whatever the tar says, the file is complete or there is an
 * error. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "image/ext4_writer.h"
#include "image/layer_tar.h"
#include "image/tree.h"
#include "test/fuzz/fuzz.h"

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
	if (layer_tar_read(take, &in, t, w, NULL) == 0 &&
	    ext4_writer_finish(w, t, &bytes, NULL) == 0)
		fuzz_assert(bytes && bytes % EXT4_BLOCK == 0);
	ext4_writer_free(w);
	tree_free(t);
	return 0;
}
