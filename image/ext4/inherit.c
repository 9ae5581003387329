#include "image/ext4/inherit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ext2fs/ext2_fs.h>

#include "base/util.h"
#include "image/ext4/reader.h"
#include "image/ext4/tree.h"

#define XATTR_TRUSTED 4u

struct pending {
	uint32_t ino, entry; /* of a directory, on the disk and in the tree */
};

struct walk {
	struct tree *t;
	struct reader *rd;
	struct pending *stack;
	size_t n, cap;
	uint32_t seen;
	/* the directory at hand: its path, "" = the root, and room for a name */
	char path[TREE_MAX_PATH + 1 + TREE_MAX_NAME + 2];
	size_t len;
	/* attributes */
	struct tree_inode *to; /* NULL: they are not wanted */
	bool opaque;
};

static int push(struct walk *k, uint32_t ino, uint32_t entry, struct err *err)
{
	if (++k->seen > TREE_MAX_ENTRIES)
		return err_set(err, -EFBIG, "more than %u directories", TREE_MAX_ENTRIES);
	if (k->n == k->cap) {
		size_t cap = k->cap ? 2 * k->cap : 256;
		struct pending *more = reallocarray(k->stack, cap, sizeof(*more));

		if (!more)
			return err_nomem(err);
		k->stack = more;
		k->cap = cap;
	}
	k->stack[k->n++] = (struct pending){ ino, entry };
	return 0;
}

static int inherit_on_xattr(void *arg, uint8_t index, const char *name, size_t name_len,
			    const void *value, size_t len, struct err *err)
{
	static const char opaque[] = "overlay.opaque";
	struct walk *k = arg;

	if (index == XATTR_TRUSTED && name_len == sizeof(opaque) - 1 &&
	    !memcmp(name, opaque, name_len)) {
		k->opaque = true;
		return 0;
	}
	return k->to ? tree_xattr_raw(k->t, k->to, index, name, name_len, value, len, err) : 0;
}

static int add_named(struct walk *k, const struct reader_inode *i, struct err *err)
{
	const struct tree_attr a = { .mode = i->mode,
				     .uid = i->uid,
				     .gid = i->gid,
				     .mtime = i->mtime,
				     .mtime_ns = i->mtime_ns };

	return tree_add(k->t, *k->path ? k->path : "/", &a, &k->to, err);
}

/* The directory at k->path. */
static int add_dir(struct walk *k, uint32_t ino, struct err *err)
{
	struct tree_inode *none;
	struct reader_inode i;
	int r = reader_inode(k->rd, ino, &i, err);

	k->to = NULL;
	k->opaque = false;
	if (r == 0 && !S_ISDIR(i.mode))
		r = err_set(err, -EBADMSG, "the disk of a layer is damaged: no directory");
	if (r == 0)
		r = !i.implied ? add_named(k, &i, err)
		    : *k->path ? tree_imply(k->t, k->path, err)
			       : 0;
	if (r == 0)
		r = reader_xattrs(k->rd, &i, inherit_on_xattr, k, err);
	/* In the root it hides nothing: overlayfs does not look there. */
	if (r == 0 && k->opaque && *k->path && strlen(k->path) + 13 <= TREE_MAX_PATH) {
		size_t len = strlen(k->path);

		memcpy(k->path + len, "/.wh..wh..opq", 14);
		r = tree_add(k->t, k->path, &(struct tree_attr){ .mode = S_IFREG }, &none, err);
		k->path[len] = '\0';
	}
	return r;
}

/* Only what takes the place of a directory counts; a whiteout does the same as a file. */
static int hide(struct walk *k, struct err *err)
{
	const struct tree_attr a = { .mode = S_IFREG };
	uint32_t e = tree_find(k->t, k->path);
	struct tree_inode *none;

	if (!e || !S_ISDIR(tree_entry(k->t, e)->inode->mode))
		return 0;
	return tree_add(k->t, k->path, &a, &none, err);
}

static int inherit_on_entry(void *arg, uint32_t ino, const char *name, size_t len, uint8_t type,
			    struct err *err)
{
	struct walk *k = arg;
	int r;

	/* What no path reaches has no attributes that anyone sees by a path. */
	if (k->len + 1 + len > TREE_MAX_PATH || len > TREE_MAX_NAME)
		return 0;
	k->path[k->len] = '/';
	memcpy(k->path + k->len + 1, name, len);
	k->path[k->len + 1 + len] = '\0';
	if (type != EXT2_FT_DIR) {
		r = hide(k, err);
	} else {
		r = add_dir(k, ino, err);
		if (r == 0)
			r = push(k, ino, tree_find(k->t, k->path), err);
	}
	k->path[k->len] = '\0';
	return r;
}

/* The path of an entry of the tree, into k->path. */
static int path_of(struct walk *k, uint32_t entry, struct err *err)
{
	size_t at = TREE_MAX_PATH;

	for (; entry != TREE_ROOT; entry = tree_entry(k->t, entry)->parent) {
		const struct tree_entry *x;

		if (!entry)
			return err_set(err, -EBADMSG,
				       "the disk of a layer is damaged: a directory twice");
		x = tree_entry(k->t, entry);
		if (x->name_len + 1u > at)
			return err_set(err, -EBADMSG, "the disk of a layer is damaged: a path");
		at -= x->name_len;
		memcpy(k->path + at, x->name, x->name_len);
		k->path[--at] = '/';
	}
	k->len = TREE_MAX_PATH - at;
	memmove(k->path, k->path + at, k->len);
	k->path[k->len] = '\0';
	return 0;
}

static int walk_disk(struct walk *k, struct err *err)
{
	int r = add_dir(k, READER_ROOT, err);

	if (r == 0)
		r = push(k, READER_ROOT, TREE_ROOT, err);
	while (r == 0 && k->n) {
		struct pending p = k->stack[--k->n];
		struct reader_inode i;

		r = path_of(k, p.entry, err);
		if (r == 0)
			r = reader_inode(k->rd, p.ino, &i, err);
		if (r == 0)
			r = reader_dir(k->rd, &i, inherit_on_entry, k, err);
	}
	return r;
}

int inherit_disk(struct tree *t, struct reader *rd, struct err *err)
{
	struct walk *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_nomem(err);
	k->t = t;
	k->rd = rd;
	r = walk_disk(k, err);
	free(k->stack);
	free(k);
	return r;
}
