#include "test/lib/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "image/ext4/tree.h"

static unsigned dropped;

static void on_drop(void *arg, struct tree_inode *i)
{
	dropped++;
}

static struct tree *new_tree(void)
{
	struct tree *t;

	assert_int_equal(tree_new(&t), 0);
	tree_on_drop(t, on_drop, NULL);
	dropped = 0;
	return t;
}

static int add(struct tree *t, const char *path, mode_t mode)
{
	const struct tree_attr a = { .mode = (uint16_t)mode, .target = "to" };
	struct tree_inode *i;
	struct err err = { 0 };
	int r = tree_add(t, path, &a, &i, &err);

	assert_true(r >= 0 || err.msg[0]);
	return r;
}

static struct tree_inode *at(struct tree *t, const char *path)
{
	uint32_t e = tree_find(t, path);

	return e ? tree_entry(t, e)->inode : NULL;
}

#define FILE_MODE (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0750)

static void names(void **state)
{
	static const char *const bad[] = { "",	    "/",      "..",   "../x",	       "a/..",
					   "/../x", "a/../b", "./..", "a/b/../../../c" };
	struct tree *t = new_tree();
	char longest[300];

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		if (add(t, bad[k], FILE_MODE) != -EPROTO)
			fail_msg("accepted \"%s\"", bad[k]);
	assert_int_equal(add(t, "./a//b/./c", FILE_MODE), 0);
	assert_non_null(at(t, "a/b/c"));
	assert_int_equal(at(t, "a/b")->mode, S_IFDIR | 0755);
	assert_true(at(t, "a/b")->implied);
	/* a slash in front says nothing: the tree has one root */
	assert_int_equal(add(t, "//etc/passwd", FILE_MODE), 0);
	assert_non_null(at(t, "etc/passwd"));
	assert_int_equal(add(t, "d/", DIR_MODE), 0);
	assert_int_equal(at(t, "d")->mode, DIR_MODE);
	assert_false(at(t, "d")->implied);
	assert_int_equal(add(t, "./", DIR_MODE), 0);
	assert_int_equal(tree_entry(t, TREE_ROOT)->inode->mode, DIR_MODE);
	assert_int_equal(add(t, ".", FILE_MODE), -EPROTO);
	memset(longest, 'n', sizeof(longest));
	longest[255] = 0;
	assert_int_equal(add(t, longest, FILE_MODE), 0);
	longest[255] = 'n';
	longest[256] = 0;
	assert_int_equal(add(t, longest, FILE_MODE), -EPROTO);
	/* dots that are names like all others */
	assert_int_equal(add(t, "...", FILE_MODE), 0);
	assert_int_equal(add(t, "..a/b..", FILE_MODE), 0);
	tree_free(t);
}

static void depth_and_length(void **state)
{
	struct tree *t = new_tree();
	char path[TREE_MAX_PATH + 10];
	size_t n = 0;

	for (; n < 2 * TREE_MAX_DEPTH; n += 2)
		memcpy(path + n, "d/", 2);
	path[n - 1] = 0;
	assert_int_equal(add(t, path, FILE_MODE), 0);
	memcpy(path + n - 1, "/x", 3);
	assert_int_equal(add(t, path, FILE_MODE), -EPROTO);
	memset(path, 'a', sizeof(path));
	for (size_t k = 200; k < sizeof(path); k += 200)
		path[k] = '/';
	path[TREE_MAX_PATH + 1] = 0;
	assert_int_equal(add(t, path, FILE_MODE), -EPROTO);
	tree_free(t);
}

static void escapes(void **state)
{
	struct tree *t = new_tree();

	assert_int_equal(add(t, "link", S_IFLNK | 0777), 0);
	assert_int_equal(add(t, "link/passwd", FILE_MODE), -EPROTO);
	assert_int_equal(add(t, "file", FILE_MODE), 0);
	assert_int_equal(add(t, "file/x", FILE_MODE), -EPROTO);
	assert_int_equal(tree_link(t, "h", "../x", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "h", "/file", NULL), 0);
	assert_int_equal(tree_link(t, "h2", "/../file", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "h", "missing", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "h", "link/x", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "../h", "file", NULL), -EPROTO);
	assert_int_equal(add(t, "dir", DIR_MODE), 0);
	assert_int_equal(tree_link(t, "h", "dir", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "h", ".", NULL), -EPROTO);
	tree_free(t);
}

static int add_link(struct tree *t, const char *path, const char *target)
{
	const struct tree_attr a = { .mode = S_IFLNK | 0777, .target = target };
	struct tree_inode *i;

	return tree_add(t, path, &a, &i, NULL);
}

/* Names that pass through symbolic links of the same tree. */
static void through_links(void **state)
{
	struct tree *t = new_tree();
	char name[32], target[32];

	assert_int_equal(add(t, "usr/lib/deep", DIR_MODE), 0);
	assert_int_equal(add_link(t, "lib", "usr/lib"), 0);
	assert_int_equal(add_link(t, "abs", "/usr/./lib/"), 0);
	assert_int_equal(add_link(t, "usr/up", "../usr/lib/.."), 0);
	assert_int_equal(add_link(t, "two", "lib/deep"), 0);
	assert_int_equal(add_link(t, "root", "/"), 0);
	assert_int_equal(add(t, "lib/a", FILE_MODE), 0);
	assert_int_equal(add(t, "abs/b", FILE_MODE), 0);
	assert_int_equal(add(t, "usr/up/c", FILE_MODE), 0);
	assert_int_equal(add(t, "two/d", FILE_MODE), 0);
	assert_int_equal(add(t, "root/e", FILE_MODE), 0);
	assert_non_null(at(t, "usr/lib/a"));
	assert_non_null(at(t, "usr/lib/b"));
	assert_non_null(at(t, "usr/c"));
	assert_non_null(at(t, "usr/lib/deep/d"));
	assert_non_null(at(t, "e"));
	/* the link itself can be replaced */
	assert_int_equal(add(t, "two", FILE_MODE), 0);
	assert_true(S_ISREG(at(t, "two")->mode));
	/* out of the tree, to nothing, to a file, in circles */
	assert_int_equal(add_link(t, "out", "../etc"), 0);
	assert_int_equal(add_link(t, "out2", "/usr/../../etc"), 0);
	assert_int_equal(add_link(t, "none", "/etc"), 0);
	assert_int_equal(add_link(t, "file", "usr/lib/a"), 0);
	assert_int_equal(add_link(t, "self", "self"), 0);
	assert_int_equal(add(t, "out/x", FILE_MODE), -EPROTO);
	assert_int_equal(add(t, "out2/x", FILE_MODE), -EPROTO);
	assert_int_equal(add(t, "none/x", FILE_MODE), -EPROTO);
	assert_int_equal(add(t, "file/x", FILE_MODE), -EPROTO);
	assert_int_equal(add(t, "self/x", FILE_MODE), -EPROTO);
	/* a chain with two ways at each link: as long as the limit, not 2^n */
	for (unsigned k = 1; k < 60; k++) {
		(void)snprintf(name, sizeof(name), "c%u", k);
		(void)snprintf(target, sizeof(target), "c%u/../c%u", k - 1, k - 1);
		assert_int_equal(add_link(t, name, k == 1 ? "usr" : target), 0);
	}
	assert_int_equal(add(t, "c3/x", FILE_MODE), 0);
	assert_int_equal(add(t, "c59/x", FILE_MODE), -EPROTO);
	tree_free(t);
}

static void links(void **state)
{
	struct tree *t = new_tree();

	assert_int_equal(add(t, "a", FILE_MODE), 0);
	assert_int_equal(tree_link(t, "d/b", "./a", NULL), 0);
	assert_int_equal(tree_link(t, "d/b", "a", NULL), 0); /* again: nothing new */
	assert_ptr_equal(at(t, "a"), at(t, "d/b"));
	assert_int_equal(at(t, "a")->nlink, 2);
	/* One name is replaced, the other keeps the inode. */
	assert_int_equal(add(t, "a", FILE_MODE), 0);
	assert_int_equal(dropped, 0);
	assert_ptr_not_equal(at(t, "a"), at(t, "d/b"));
	assert_int_equal(at(t, "d/b")->nlink, 1);
	assert_int_equal(add(t, "d/b", DIR_MODE), 0);
	assert_int_equal(dropped, 1);
	/* A link in the place of the directory that its target was in. */
	assert_int_equal(add(t, "e/f", FILE_MODE), 0);
	assert_int_equal(tree_link(t, "e", "e/f", NULL), 0);
	assert_int_equal(at(t, "e")->nlink, 1);
	assert_true(S_ISREG(at(t, "e")->mode));
	assert_int_equal(dropped, 1);
	tree_free(t);
}

static void replace(void **state)
{
	struct tree *t = new_tree();

	assert_int_equal(add(t, "x/y/z/file", FILE_MODE), 0);
	assert_int_equal(add(t, "x/y/two", FILE_MODE), 0);
	assert_int_equal(tree_entry(t, TREE_ROOT)->inode->nlink, 1);
	/* directory over directory: attributes change, children stay */
	assert_int_equal(add(t, "x", DIR_MODE), 0);
	assert_int_equal(at(t, "x")->mode, DIR_MODE);
	assert_non_null(at(t, "x/y/z/file"));
	/* file over directory: all below is gone */
	assert_int_equal(add(t, "x", FILE_MODE), 0);
	assert_int_equal(dropped, 2);
	assert_null(at(t, "x/y"));
	assert_int_equal(tree_entry(t, TREE_ROOT)->inode->nlink, 0);
	/* and a directory over the file, with new content under old names */
	assert_int_equal(add(t, "x", DIR_MODE), 0);
	assert_int_equal(dropped, 3);
	assert_int_equal(add(t, "x/y/z/file", FILE_MODE), 0);
	assert_non_null(at(t, "x/y/z/file"));
	assert_int_equal(tree_entry(t, TREE_ROOT)->inode->nlink, 1);
	tree_free(t);
}

static void whiteouts(void **state)
{
	struct tree *t = new_tree();

	assert_int_equal(add(t, "d/.wh.gone", FILE_MODE), 0);
	assert_true(S_ISCHR(at(t, "d/gone")->mode));
	assert_int_equal(at(t, "d/gone")->dev.major, 0);
	assert_null(at(t, "d/.wh.gone"));
	assert_int_equal(add(t, "d/.wh..wh..opq", FILE_MODE), 0);
	assert_true(at(t, "d")->opaque);
	assert_int_equal(add(t, ".wh..wh..opq", FILE_MODE), 0);
	assert_true(tree_entry(t, TREE_ROOT)->inode->opaque);
	assert_int_equal(add(t, ".wh..wh.plnk", FILE_MODE), 0);
	assert_int_equal(add(t, ".wh...", FILE_MODE), -EPROTO);
	/* the layer's own entry and a whiteout of that name, in both orders */
	assert_int_equal(add(t, "k/f", FILE_MODE), 0);
	assert_int_equal(add(t, "k/.wh.f", FILE_MODE), 0);
	assert_true(S_ISREG(at(t, "k/f")->mode));
	assert_int_equal(add(t, "k/sub/f", FILE_MODE), 0);
	assert_int_equal(add(t, "k/.wh.sub", FILE_MODE), 0);
	assert_true(at(t, "k/sub")->opaque);
	assert_int_equal(add(t, ".wh.later", FILE_MODE), 0);
	assert_int_equal(add(t, "later/f", FILE_MODE), 0);
	assert_true(at(t, "later")->opaque);
	/* a whiteout is no file to be linked to */
	assert_int_equal(tree_link(t, "h", "d/gone", NULL), -EPROTO);
	tree_free(t);
}

/* Several layers into one tree, with others below. */
static void layers(void **state)
{
	struct tree *t = new_tree();

	assert_int_equal(add(t, "d", DIR_MODE), 0);
	assert_int_equal(add(t, "d/old", FILE_MODE), 0);
	assert_int_equal(add(t, "d/sub/old", FILE_MODE), 0);
	assert_int_equal(add(t, "gone", FILE_MODE), 0);
	assert_int_equal(add(t, "gonedir/a/b", FILE_MODE), 0);
	assert_int_equal(add(t, "file", FILE_MODE), 0);
	assert_int_equal(add(t, "keep/x", FILE_MODE), 0);
	assert_int_equal(add(t, "again/x", FILE_MODE), 0);
	assert_int_equal(add(t, "linked", FILE_MODE), 0);
	assert_int_equal(tree_link(t, "linked2", "linked", NULL), 0);
	assert_int_equal(tree_next_layer(t, NULL), 0);
	/* attributes of a directory that is only passed through stay */
	assert_int_equal(add(t, "d/new", FILE_MODE), 0);
	assert_int_equal(at(t, "d")->mode, DIR_MODE);
	assert_int_equal(add(t, "d/sub/new", FILE_MODE), 0);
	assert_int_equal(add(t, "d/.wh..wh..opq", FILE_MODE), 0);
	assert_int_equal(add(t, "d/.wh..wh..opq", FILE_MODE), 0);
	assert_null(at(t, "d/old"));
	assert_null(at(t, "d/sub/old"));
	assert_non_null(at(t, "d/new"));
	assert_non_null(at(t, "d/sub/new"));
	assert_true(at(t, "d")->opaque);
	assert_int_equal(at(t, "d")->nlink, 1);
	assert_int_equal(dropped, 2);
	assert_int_equal(add(t, ".wh.gone", FILE_MODE), 0);
	assert_int_equal(add(t, ".wh.gonedir", FILE_MODE), 0);
	assert_true(S_ISCHR(at(t, "gone")->mode));
	assert_true(S_ISCHR(at(t, "gonedir")->mode));
	assert_null(at(t, "gonedir/a"));
	assert_int_equal(dropped, 4);
	/* a directory over an older file hides what may be below both */
	assert_int_equal(add(t, "file", DIR_MODE), 0);
	assert_true(at(t, "file")->opaque);
	assert_int_equal(add(t, "keep", DIR_MODE), 0);
	assert_false(at(t, "keep")->opaque);
	assert_non_null(at(t, "keep/x"));
	/* removed and made again by one layer, the new part first */
	assert_int_equal(add(t, "again/y", FILE_MODE), 0);
	assert_int_equal(add(t, ".wh.again", FILE_MODE), 0);
	assert_true(at(t, "again")->opaque);
	assert_null(at(t, "again/x"));
	assert_non_null(at(t, "again/y"));
	/* one name of two is replaced */
	assert_int_equal(add(t, "linked", FILE_MODE), 0);
	assert_int_equal(at(t, "linked2")->nlink, 1);
	assert_ptr_not_equal(at(t, "linked"), at(t, "linked2"));
	assert_int_equal(tree_next_layer(t, NULL), 0);
	/* comes back over its whiteout */
	assert_int_equal(add(t, "gonedir/z", FILE_MODE), 0);
	assert_true(at(t, "gonedir")->opaque);
	assert_int_equal(add(t, "gone", FILE_MODE), 0);
	assert_int_equal(add(t, "keep/.wh.x", FILE_MODE), 0);
	tree_is_bottom(t);
	assert_null(at(t, "keep/x"));
	assert_false(at(t, "gonedir")->opaque);
	assert_int_equal(tree_entry(t, TREE_ROOT)->inode->nlink, 5);
	tree_free(t);
}

/* A tar that repeats one opaque mark takes no quadratic time. */
static void opaque_again(void **state)
{
	struct tree *t = new_tree();
	char name[40];

	for (unsigned k = 0; k < 20000; k++) {
		(void)snprintf(name, sizeof(name), "d/%u/x", k);
		assert_int_equal(add(t, name, FILE_MODE), 0);
	}
	assert_int_equal(tree_next_layer(t, NULL), 0);
	for (unsigned k = 0; k < 20000; k++) {
		(void)snprintf(name, sizeof(name), "d/%u", k);
		assert_int_equal(add(t, name, DIR_MODE), 0);
		assert_int_equal(add(t, "d/.wh..wh..opq", FILE_MODE), 0);
	}
	assert_int_equal(dropped, 20000);
	tree_free(t);
}

static void acls(void **state)
{
	/* version 2; user:: rwx, user:1000: r-x, group:: r-x, mask:: rwx, other:: --x */
	static const char good[] =
		"\2\0\0\0"
		"\1\0\7\0\377\377\377\377"
		"\2\0\5\0\350\3\0\0"
		"\4\0\5\0\377\377\377\377"
		"\20\0\7\0\377\377\377\377"
		"\40\0\1\0\377\377\377\377";
	static const char ext4[] =
		"\1\0\0\0"
		"\1\0\7\0"
		"\2\0\5\0\350\3\0\0"
		"\4\0\5\0"
		"\20\0\7\0"
		"\40\0\1";
	const char *name = "system.posix_acl_access";
	struct tree *t = new_tree();
	struct tree_inode *i;
	char bad[sizeof(good)];

	assert_int_equal(add(t, "f", FILE_MODE), 0);
	i = at(t, "f");
	assert_int_equal(tree_xattr(t, i, name, good, sizeof(good) - 1, NULL), 0);
	assert_int_equal(i->xattrs->index, 2);
	assert_int_equal(i->xattrs->name_len, 0);
	assert_int_equal(i->xattrs->value_len, sizeof(ext4));
	assert_memory_equal(i->xattrs->data, ext4, sizeof(ext4));
	assert_int_equal(tree_xattr(t, i, "system.posix_acl_default", good, 4, NULL), 0);
	assert_null(i->xattrs->next); /* empty: as good as none */
	assert_int_equal(tree_xattr(t, i, name, good, 3, NULL), -EPROTO);
	assert_int_equal(tree_xattr(t, i, name, good, 13, NULL), -EPROTO);
	assert_int_equal(tree_xattr(t, i, name, good, sizeof(good) - 9, NULL), -EPROTO);
	for (size_t k = 0; k < 3; k++) {
		memcpy(bad, good, sizeof(bad));
		bad[(const size_t[]){ 0, 4, 14 }[k]] = 9;
		assert_int_equal(tree_xattr(t, i, name, bad, sizeof(bad) - 1, NULL), -EPROTO);
	}
	tree_free(t);
}

/* Most of the tree lies in a file, and is all the same there. */
static void spooled(void **state)
{
	const struct tree_attr a = { .mode = FILE_MODE, .uid = 7 };
	FILE *f = tmpfile();
	struct tree *t = new_tree();
	struct tree_inode *i;
	struct stat st;
	char name[40];

	assert_non_null(f);
	tree_spool(t, fileno(f), 1ull << 30);
	for (unsigned k = 0; k < 200000; k++) {
		(void)snprintf(name, sizeof(name), "d%u/%u", k % 100, k);
		assert_int_equal(tree_add(t, name, &a, &i, NULL), 0);
		i->size = k;
	}
	assert_int_equal(fstat(fileno(f), &st), 0);
	assert_true(st.st_size > (1 << 30) + (8 << 20));
	for (unsigned k = 0; k < 200000; k++) {
		(void)snprintf(name, sizeof(name), "d%u/%u", k % 100, k);
		assert_int_equal(at(t, name)->size, k);
	}
	tree_free(t);
	fclose(f);
}

static void xattrs(void **state)
{
	struct tree *t = new_tree();
	struct tree_inode *i;
	char big[5000] = { 0 };

	assert_int_equal(add(t, "f", FILE_MODE), 0);
	i = at(t, "f");
	assert_int_equal(tree_xattr(t, i, "user.b", "1", 1, NULL), 0);
	assert_int_equal(tree_xattr(t, i, "security.capability", "x", 1, NULL), 0);
	assert_int_equal(tree_xattr(t, i, "user.a", "2", 1, NULL), 0);
	assert_int_equal(tree_xattr(t, i, "user.b", "33", 2, NULL),
			 0); /* in the place of the first */
	assert_int_equal(tree_xattr(t, i, "com.example.x", "1", 1, NULL), 0); /* left out */
	assert_int_equal(tree_xattr(t, i, "trusted.overlay.redirect", "/", 1, NULL), 0);
	assert_int_equal(tree_xattr(t, i, "user.", "1", 1, NULL), 0);
	assert_int_equal(tree_dropped_xattrs(t), 3);
	assert_memory_equal(i->xattrs->data, "a2", 2);
	assert_memory_equal(i->xattrs->next->data, "b33", 3);
	assert_int_equal(i->xattrs->next->next->index, 6);
	assert_null(i->xattrs->next->next->next);
	assert_int_equal(tree_xattr(t, i, "user.big", big, sizeof(big), NULL), -EFBIG);
	assert_int_equal(tree_xattr(t, i, "user.c", big, 3500, NULL), 0);
	assert_int_equal(tree_xattr(t, i, "user.d", big, 3500, NULL), -EFBIG);
	tree_free(t);
}

static void many(void **state)
{
	struct tree *t = new_tree();
	const struct tree_attr a = { .mode = FILE_MODE };
	struct tree_inode *i;
	char name[40];
	int r = 0;
	uint32_t k;

	for (k = 0; r >= 0; k++) {
		(void)snprintf(name, sizeof(name), "d/%u", k);
		r = tree_add(t, name, &a, &i, NULL);
	}
	assert_int_equal(r, -EFBIG);
	assert_int_equal(tree_entries(t), TREE_MAX_ENTRIES);
	assert_non_null(at(t, "d/777777"));
	assert_null(at(t, "d/x"));
	tree_free(t);
}

/* What a layer does not name: of the layers below, unless something came in between. */
static void inherited(void **state)
{
	struct tree *t = new_tree();
	struct tree_facts facts;

	assert_int_equal(add(t, "d", DIR_MODE), 0);
	assert_int_equal(add(t, "d/in", DIR_MODE), 0);
	assert_int_equal(add(t, "plain", S_IFDIR | 0755), 0);
	assert_int_equal(add(t, "file", FILE_MODE), 0);
	assert_int_equal(add(t, "link", S_IFLNK), 0);
	assert_int_equal(add(t, "again", DIR_MODE), 0);
	assert_int_equal(tree_next_layer(t, NULL), 0);
	assert_int_equal(tree_link(t, "file/l", "file", NULL), -EPROTO); /* its place is taken */
	assert_int_equal(dropped, 1);
	assert_int_equal(add(t, "d/in/x", FILE_MODE), 0);
	assert_int_equal(add(t, "plain/x", FILE_MODE), 0);
	assert_int_equal(add(t, "link/x", FILE_MODE), 0);
	assert_int_equal(add(t, "new/x", FILE_MODE), 0);
	/* a whiteout behind what it is about */
	assert_int_equal(add(t, "again/x", FILE_MODE), 0);
	assert_int_equal(add(t, ".wh.again", FILE_MODE), 0);
	assert_int_equal(at(t, "d/in")->mode, DIR_MODE);
	assert_int_equal(at(t, "again")->mode, S_IFDIR | 0755);
	assert_true(at(t, "again")->opaque && at(t, "link")->opaque && at(t, "file")->opaque);
	assert_true(at(t, "new")->implied);
	assert_false(at(t, "again")->implied || at(t, "link")->implied || at(t, "file")->implied);
	tree_facts(t, &facts);
	assert_int_equal(facts.implied, 1);
	assert_false(facts.root_named);
	assert_int_equal(tree_only_inherited(t), 2);
	assert_int_equal(at(t, "d/in")->mode, DIR_MODE);
	assert_null(at(t, "d/in/x"));
	assert_null(at(t, "plain"));
	assert_null(at(t, "link"));
	assert_null(at(t, "new"));
	tree_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(inherited),
		cmocka_unit_test(depth_and_length),
		cmocka_unit_test(escapes),
		cmocka_unit_test(links),
		cmocka_unit_test(replace),
		cmocka_unit_test(whiteouts),
		cmocka_unit_test(xattrs),
		cmocka_unit_test(many),
		cmocka_unit_test(through_links),
		cmocka_unit_test(layers),
		cmocka_unit_test(opaque_again),
		cmocka_unit_test(acls),
		cmocka_unit_test(spooled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
