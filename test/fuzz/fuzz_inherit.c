/* The disk of a layer, as a process that was taken over may write it: its directories go into
 * a tree, over and under others, and what is left of that must make a file system. */
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "image/ext4/inherit.h"
#include "image/ext4/reader.h"
#include "image/ext4/tree.h"
#include "image/ext4/writer.h"
#include "test/fuzz/fuzz.h"

static int read_disk(struct tree *t, struct fuzz_file *b)
{
	struct reader rd;
	int r = reader_init(&rd, fuzz_pread, b, b->n, NULL);

	if (r == 0)
		r = inherit_disk(t, &rd, NULL);
	reader_fini(&rd);
	return r;
}

static void write_disk(struct tree *t)
{
	const uint8_t uuid[16] = { 1 };
	int fd = memfd_create("disk", MFD_CLOEXEC);
	struct ext4_writer *w;
	uint64_t size;

	fuzz_assert(fd >= 0 && ext4_writer_new(fd, uuid, &w, NULL) == 0);
	fuzz_assert(ext4_writer_finish(w, t, &size, NULL) == 0 && size > 0);
	ext4_writer_free(w);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "tmp", "srv", "srv/app", "empty", "gone" };
	const struct tree_attr a = { .mode = S_IFDIR | 0700, .uid = 1 };
	struct fuzz_file b = { data, size };
	struct tree_inode *i;
	struct tree *t;
	int r;

	fuzz_assert(tree_new(&t) == 0);
	for (size_t k = 0; k < ARRAY_SIZE(names); k++)
		fuzz_assert(tree_add(t, names[k], &a, &i, NULL) == 0);
	r = tree_next_layer(t, NULL);
	if (r == 0)
		r = read_disk(t, &b);
	if (r == 0)
		r = tree_next_layer(t, NULL);
	if (r == 0)
		r = tree_add(t, "srv/app/x/y", &(struct tree_attr){ .mode = S_IFREG }, &i, NULL);
	if (r == 0)
		r = read_disk(t, &b);
	if (r == 0 && tree_only_inherited(t))
		write_disk(t);
	tree_free(t);
	return 0;
}
