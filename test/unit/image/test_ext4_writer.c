/* Images made by ext4_writer, checked by e2fsck and read back by debugfs. */
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "image/ext4/scratch.h"
#include "image/ext4/writer.h"
#include "image/ext4/tree.h"

static const uint8_t uuid[16] = { 1, 2, 3, 4, 5, 6, 0x80, 8, 0x80, 10 };

struct img {
	char path[64];
	int fd;
	struct tree *t;
	struct ext4_writer *w;
	uint64_t size;
};

static void on_drop(void *arg, struct tree_inode *i)
{
	ext4_writer_drop(arg, i);
}

static void img_open(struct img *m)
{
	(void)snprintf(m->path, sizeof(m->path), "/tmp/husk-ext4-XXXXXX");
	m->fd = mkstemp(m->path);
	assert_true(m->fd >= 0);
	assert_int_equal(tree_new(&m->t), 0);
	assert_int_equal(ext4_writer_new(m->fd, uuid, &m->w, NULL), 0);
	tree_on_drop(m->t, on_drop, m->w);
}

static int run(const char *fmt, const char *path, const char *arg)
{
	cleanup_free char *cmd = str_fmt("PATH=$PATH:/sbin:/usr/sbin; ");
	cleanup_free char *rest = NULL, *all = NULL;

	rest = str_eq(fmt, "fsck") ? str_fmt("e2fsck -fn %s >%s.log 2>&1", path, path)
				   : str_fmt("debugfs -R '%s' %s 2>/dev/null | grep -q -- '%s'",
					     fmt, path, arg);
	all = str_fmt("%s%s", cmd, rest);
	return system(all);
}

/* Ends the image; it must be clean, and a multiple of the block size. */
static void img_finish(struct img *m)
{
	struct err err = { 0 };
	char cmd[128];
	struct stat st;

	if (ext4_writer_finish(m->w, m->t, &m->size, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_int_equal(fstat(m->fd, &st), 0);
	assert_int_equal(st.st_size, m->size);
	assert_int_equal(st.st_size % EXT4_BLOCK, 0);
	if (run("fsck", m->path, "") != 0) {
		snprintf(cmd, sizeof(cmd), "cat %s.log", m->path);
		(void)!system(cmd);
		fail_msg("e2fsck is not content");
	}
}

static void img_close(struct img *m)
{
	char log[80];

	ext4_writer_free(m->w);
	tree_free(m->t);
	close(m->fd);
	unlink(m->path);
	snprintf(log, sizeof(log), "%s.log", m->path);
	unlink(log);
}

static struct tree_inode *add(struct img *m, const char *path, mode_t mode)
{
	const struct tree_attr a = {
		.mode = (uint16_t)mode, .uid = 70000, .mtime = 1600000000, .target = path
	};
	struct tree_inode *i = NULL;

	assert_int_equal(tree_add(m->t, path, &a, &i, NULL), 0);
	return i;
}

static void put_file(struct img *m, const char *path, const void *data, size_t len)
{
	struct tree_inode *i = add(m, path, S_IFREG | 0644);

	ext4_writer_begin(m->w);
	assert_int_equal(ext4_writer_data(m->w, 0, data, len, NULL), 0);
	assert_int_equal(ext4_writer_end(m->w, m->t, i, len, NULL), 0);
}

static void empty(void **state)
{
	struct img m;

	img_open(&m);
	img_finish(&m);
	assert_true(m.size < 64 * KIB);
	img_close(&m);
}

static void kinds(void **state)
{
	struct img m;
	struct tree_inode *i;
	char link[300];

	img_open(&m);
	put_file(&m, "dir/hello", "hello", 5);
	put_file(&m, "dir/empty", "", 0);
	assert_int_equal(tree_link(m.t, "again", "dir/hello", NULL), 0);
	add(&m, "short", S_IFLNK | 0777);
	memset(link, 'l', sizeof(link));
	link[200] = 0;
	add(&m, link, S_IFLNK | 0777);
	i = add(&m, "null", S_IFCHR | 0666);
	i->dev.major = 1;
	i->dev.minor = 3;
	i = add(&m, "big", S_IFBLK | 0600);
	i->dev.major = 300;
	i->dev.minor = 70000;
	add(&m, "fifo", S_IFIFO | 0600);
	add(&m, "dir/.wh.gone", S_IFREG);
	add(&m, "dir/.wh..wh..opq", S_IFREG);
	i = add(&m, "xattr", S_IFREG | 0644);
	assert_int_equal(tree_xattr(m.t, i, "user.small", "value", 5, NULL), 0);
	i = add(&m, "xattr2", S_IFREG | 0644);
	memset(link, 'v', sizeof(link));
	assert_int_equal(tree_xattr(m.t, i, "user.large", link, 300, NULL), 0);
	assert_int_equal(tree_xattr(m.t, i, "security.capability", link, 20, NULL), 0);
	i = add(&m, "old", S_IFREG | 0644);
	i->mtime = -86400;
	i = add(&m, "far", S_IFREG | 0644);
	i->mtime = 4102444800;
	i->mtime_ns = 5;
	img_finish(&m);
	assert_int_equal(run("cat /dir/hello", m.path, "^hello$"), 0);
	assert_int_equal(run("cat /again", m.path, "^hello$"), 0);
	assert_int_equal(run("stat /again", m.path, "Links: 2"), 0);
	assert_int_equal(run("stat /again", m.path, "User: 70000"), 0);
	assert_int_equal(run("stat /short", m.path, "Fast link dest: \"short\""), 0);
	assert_int_equal(run("stat /big", m.path, "300:70000"), 0);
	assert_int_equal(run("stat /dir/gone", m.path, "00:00"), 0);
	assert_int_equal(run("ea_get /dir trusted.overlay.opaque", m.path, "y"), 0);
	assert_int_equal(run("ea_get /xattr user.small", m.path, "value"), 0);
	assert_int_equal(run("ea_list /xattr2", m.path, "security.capability (20)"), 0);
	assert_int_equal(run("stat /far", m.path, "2100"), 0);
	img_close(&m);
}

static void sparse(void **state)
{
	static uint8_t block[EXT4_BLOCK];
	struct tree_inode *i;
	struct stat st;
	struct img m;

	img_open(&m);
	/* A hole at the front, data in the middle of blocks, a hole at the end. */
	i = add(&m, "holes", S_IFREG | 0644);
	ext4_writer_begin(m.w);
	assert_int_equal(ext4_writer_data(m.w, 1000000, "abc", 3, NULL), 0);
	assert_int_equal(ext4_writer_data(m.w, 1000003, "def", 3, NULL), 0);
	assert_int_equal(ext4_writer_data(m.w, (3ull << 30) - 3, "end", 3, NULL), 0);
	assert_int_equal(ext4_writer_data(m.w, 5, "back", 4, NULL), -EPROTO);
	assert_int_equal(ext4_writer_end(m.w, m.t, i, 3ull << 30, NULL), 0);
	/* Zeros are holes, too. */
	i = add(&m, "zeros", S_IFREG | 0644);
	ext4_writer_begin(m.w);
	for (uint64_t k = 0; k < 1000; k++)
		assert_int_equal(ext4_writer_data(m.w, k * EXT4_BLOCK, block, EXT4_BLOCK, NULL), 0);
	assert_int_equal(ext4_writer_end(m.w, m.t, i, 1000 * EXT4_BLOCK, NULL), 0);
	/* Every other block: an extent each, which needs a tree of them. */
	block[0] = 1;
	i = add(&m, "comb", S_IFREG | 0644);
	ext4_writer_begin(m.w);
	for (uint64_t k = 0; k < 3000; k++)
		assert_int_equal(ext4_writer_data(m.w, k * 2 * EXT4_BLOCK, block, EXT4_BLOCK, NULL),
				 0);
	assert_int_equal(ext4_writer_end(m.w, m.t, i, 6000 * EXT4_BLOCK, NULL), 0);
	img_finish(&m);
	assert_int_equal(fstat(m.fd, &st), 0);
	assert_true(m.size < 16 * MIB);
	assert_int_equal(run("stat /zeros", m.path, "Blockcount: 0"), 0);
	assert_int_equal(run("stat /holes", m.path, "Size: 3221225472"), 0);
	assert_int_equal(run("stat /holes", m.path, "Blockcount: 16"), 0);
	/* 3,000 data blocks, 9 leaves, 1 index of them */
	assert_int_equal(run("stat /comb", m.path, "Blockcount: 24080"), 0);
	img_close(&m);
}

/* Small files lie in their inodes, with and without attributes beside them. */
static void in_inodes(void **state)
{
	static const unsigned sizes[] = { 1, 59, 60, 61, 64, 100, 127, 128, 129 };
	char data[130], name[40];
	struct tree_inode *i;
	struct img m;

	memset(data, 'x', sizeof(data));
	img_open(&m);
	for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
		for (unsigned x = 0; x < 3; x++) {
			snprintf(name, sizeof(name), "f%u.%u", sizes[k], x);
			put_file(&m, name, data, sizes[k]);
			i = tree_entry(m.t, tree_find(m.t, name))->inode;
			if (x)
				assert_int_equal(
					tree_xattr(m.t, i, "user.x", data, x == 1 ? 8 : 100, NULL),
					0);
		}
	}
	img_finish(&m);
	for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
		for (unsigned x = 0; x < 3; x++) {
			char text[160];

			snprintf(name, sizeof(name), "cat /f%u.%u", sizes[k], x);
			snprintf(text, sizeof(text), "^%.*s$", (int)sizes[k], data);
			assert_int_equal(run(name, m.path, text), 0);
			snprintf(name, sizeof(name), "stat /f%u.%u", sizes[k], x);
			assert_int_equal(run(name, m.path, "Flags: 0x10000000"),
					 sizes[k] > 128 ? 256 : 0);
			snprintf(name, sizeof(name), "ea_list /f%u.%u", sizes[k], x);
			if (x)
				assert_int_equal(run(name, m.path, "user.x"), 0);
		}
	}
	img_close(&m);
}

static void directories(void **state)
{
	/* linear, one level of index, two levels */
	static const unsigned counts[] = { 100, 5000, 150000 };
	char name[300];

	for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
		struct img m;

		img_open(&m);
		for (unsigned k = 0; k < counts[c]; k++) {
			snprintf(name, sizeof(name), "d/%0*u", counts[c] > 10000 ? 60 : 6, k);
			add(&m, name, k % 7 ? S_IFREG | 0644 : S_IFIFO | 0600);
		}
		img_finish(&m);
		snprintf(name, sizeof(name), "stat /d/%0*u", counts[c] > 10000 ? 60 : 6,
			 counts[c] / 2);
		assert_int_equal(run(name, m.path, "Links: 1"), 0);
		img_close(&m);
	}
}

static void many_directories(void **state)
{
	char name[40];
	struct img m;

	img_open(&m);
	for (unsigned k = 0; k < 66000; k++) {
		snprintf(name, sizeof(name), "d/%u", k);
		add(&m, name, S_IFDIR | 0755);
	}
	img_finish(&m);
	assert_int_equal(run("stat /d", m.path, "Links: 1 "), 0);
	img_close(&m);
}

/* Replaced files leave free blocks; what was written last is what is there. */
static void replaced(void **state)
{
	size_t n = 1 * MIB;
	char *big = malloc(n), name[24];
	struct img m;

	assert_non_null(big);
	memset(big, 'x', n);
	img_open(&m);
	for (unsigned k = 0; k < 50; k++) {
		snprintf(name, sizeof(name), "f%u", k % 5);
		put_file(&m, name, big, n - k * 1000);
	}
	put_file(&m, "f0", "last", 4);
	put_file(&m, "d/a", big, n);
	add(&m, "d", S_IFIFO | 0600);
	img_finish(&m);
	assert_int_equal(run("cat /f0", m.path, "^last$"), 0);
	img_close(&m);
	free(big);
}

/* More than 128 MiB: several groups, and extents of the longest kind. */
static void groups(void **state)
{
	size_t n = 1 * MIB;
	uint8_t *big = malloc(n);
	struct tree_inode *i;
	struct img m;

	assert_non_null(big);
	memset(big, 0x5a, n);
	img_open(&m);
	i = add(&m, "big", S_IFREG | 0644);
	ext4_writer_begin(m.w);
	for (uint64_t k = 0; k < 300; k++)
		assert_int_equal(ext4_writer_data(m.w, k * n, big, n, NULL), 0);
	assert_int_equal(ext4_writer_end(m.w, m.t, i, 300 * n, NULL), 0);
	img_finish(&m);
	img_close(&m);
	free(big);
}

static void make_once(struct img *m)
{
	char name[24];

	img_open(m);
	for (unsigned k = 0; k < 2000; k++) {
		snprintf(name, sizeof(name), "d/f%u", k);
		put_file(m, name, name, strlen(name));
	}
	img_finish(m);
}

static void reproducible(void **state)
{
	cleanup_free char *a = NULL, *b = NULL;
	struct img one, two;
	size_t na, nb;

	make_once(&one);
	make_once(&two);
	assert_int_equal(read_file(one.path, 64 * MIB, &a, &na, NULL), 0);
	assert_int_equal(read_file(two.path, 64 * MIB, &b, &nb, NULL), 0);
	assert_int_equal(na, nb);
	assert_memory_equal(a, b, na);
	img_close(&one);
	img_close(&two);
}

static void scratch(void **state)
{
	char path[] = "/tmp/husk-scratch-XXXXXX";
	int fd = mkstemp(path);
	struct stat st;
	char log[80];

	assert_true(fd >= 0);
	assert_int_equal(ext4_make_scratch(fd, 1000, NULL), -EINVAL);
	assert_int_equal(ext4_make_scratch(fd, 64 * GIB, NULL), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks * 512 < (off_t)(512 * KIB));
	assert_int_equal(st.st_size, 64 * GIB);
	assert_int_equal(run("fsck", path, ""), 0);
	assert_int_equal(run("ls -l /", path, " \\.\\.$"), 0);
	close(fd);
	unlink(path);
	snprintf(log, sizeof(log), "%s.log", path);
	unlink(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty),	cmocka_unit_test(kinds),
		cmocka_unit_test(sparse),	cmocka_unit_test(in_inodes),
		cmocka_unit_test(directories),	cmocka_unit_test(many_directories),
		cmocka_unit_test(replaced),	cmocka_unit_test(groups),
		cmocka_unit_test(reproducible), cmocka_unit_test(scratch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
