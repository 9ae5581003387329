#include "test/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "image/tree.h"

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
	static const char *const bad[] = { "",	     "/",    "/etc/passwd",   "..", "../x", "a/..",
					   "a/../b", "./..", "a/b/../../../c" };
	struct tree *t = new_tree();
	char longest[300];

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++)
		if (add(t, bad[k], FILE_MODE) != -EPROTO)
			fail_msg("accepted \"%s\"", bad[k]);
	assert_int_equal(add(t, "./a//b/./c", FILE_MODE), 0);
	assert_non_null(at(t, "a/b/c"));
	assert_int_equal(at(t, "a/b")->mode, S_IFDIR | 0755);
	assert_int_equal(add(t, "d/", DIR_MODE), 0);
	assert_int_equal(at(t, "d")->mode, DIR_MODE);
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
	assert_int_equal(tree_link(t, "h", "/file", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "h", "missing", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "h", "link/x", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "../h", "file", NULL), -EPROTO);
	assert_int_equal(add(t, "dir", DIR_MODE), 0);
	assert_int_equal(tree_link(t, "h", "dir", NULL), -EPROTO);
	assert_int_equal(tree_link(t, "h", ".", NULL), -EPROTO);
	assert_null(at(t, "h"));
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
	assert_int_equal(add(t, ".wh..wh..opq", FILE_MODE), -ENOTSUP);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),   cmocka_unit_test(depth_and_length),
		cmocka_unit_test(escapes), cmocka_unit_test(links),
		cmocka_unit_test(replace), cmocka_unit_test(whiteouts),
		cmocka_unit_test(xattrs),  cmocka_unit_test(many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
