#include "image/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/util.h"

#define CHUNK 4096u /* entries in one allocation: pointers to entries stay valid */
#define ARENA_BLOCK (256 * KIB)

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	_Alignas(16) char data[];
};

struct tree {
	struct tree_entry *chunks[TREE_MAX_ENTRIES / CHUNK + 1];
	uint32_t n; /* highest number given out; entry 0 is never used */
	uint32_t *buckets;
	uint32_t n_buckets; /* a power of two */
	uint64_t seed;	    /* names come from strangers: no prepared collisions */
	size_t xattr_bytes;
	struct arena_block *arena;
	void (*dropped)(void *arg, struct tree_inode *file);
	void *dropped_arg;
};

struct tree_entry *tree_entry(struct tree *t, uint32_t number)
{
	return &t->chunks[number / CHUNK][number % CHUNK];
}

uint32_t tree_entries(const struct tree *t)
{
	return t->n;
}

void tree_on_drop(struct tree *t, void (*dropped)(void *, struct tree_inode *), void *arg)
{
	t->dropped = dropped;
	t->dropped_arg = arg;
}

void *tree_alloc(struct tree *t, size_t n)
{
	struct arena_block *b = t->arena;

	n = (n + 7) & ~(size_t)7;
	if (!b || b->size - b->used < n) {
		size_t size = MAX_OF(n, ARENA_BLOCK);

		b = malloc(sizeof(*b) + size);
		if (!b)
			return NULL;
		b->used = 0;
		b->size = size;
		b->next = t->arena;
		t->arena = b;
	}
	b->used += n;
	return b->data + b->used - n;
}

/* ---- the index of (directory, name) ---- */

static uint32_t hash_of(const struct tree *t, uint32_t parent, const char *name, size_t len)
{
	uint64_t h = t->seed ^ ((uint64_t)parent * 0x9e3779b97f4a7c15ull);

	while (len >= 8) {
		uint64_t w;

		memcpy(&w, name, 8);
		h = (h ^ w) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
		name += 8;
		len -= 8;
	}
	for (uint64_t w = len; len; len--) {
		w = (w << 8) | (uint8_t)name[len - 1];
		if (len == 1)
			h ^= w;
	}
	h *= 0xc4ceb9fe1a85ec53ull;
	return (uint32_t)(h ^ (h >> 33));
}

static uint32_t lookup(struct tree *t, uint32_t parent, const char *name, size_t len)
{
	uint32_t e = t->buckets[hash_of(t, parent, name, len) & (t->n_buckets - 1)];

	while (e) {
		struct tree_entry *x = tree_entry(t, e);

		if (x->parent == parent && x->name_len == len && !memcmp(x->name, name, len))
			return e;
		e = x->hash_next;
	}
	return 0;
}

static void index_add(struct tree *t, uint32_t e)
{
	struct tree_entry *x = tree_entry(t, e);
	uint32_t *b = &t->buckets[hash_of(t, x->parent, x->name, x->name_len) & (t->n_buckets - 1)];

	x->hash_next = *b;
	*b = e;
}

static void index_remove(struct tree *t, uint32_t e)
{
	struct tree_entry *x = tree_entry(t, e);
	uint32_t *b = &t->buckets[hash_of(t, x->parent, x->name, x->name_len) & (t->n_buckets - 1)];

	while (*b && *b != e)
		b = &tree_entry(t, *b)->hash_next;
	if (*b)
		*b = x->hash_next;
}

static int index_grow(struct tree *t)
{
	uint32_t n = t->n_buckets ? t->n_buckets * 2 : 1024;
	uint32_t *b = calloc(n, sizeof(*b));

	if (!b)
		return -ENOMEM;
	free(t->buckets);
	t->buckets = b;
	t->n_buckets = n;
	for (uint32_t e = 2; e <= t->n; e++)
		if (!tree_entry(t, e)->removed)
			index_add(t, e);
	return 0;
}

/* ---- entries ---- */

static int entry_new(struct tree *t, uint32_t *ret, struct err *err)
{
	uint32_t e = t->n + 1;

	if (e > TREE_MAX_ENTRIES)
		return err_set(err, -EFBIG, "more than %u entries", TREE_MAX_ENTRIES);
	if (!t->chunks[e / CHUNK]) {
		t->chunks[e / CHUNK] = calloc(CHUNK, sizeof(struct tree_entry));
		if (!t->chunks[e / CHUNK])
			return err_set(err, -ENOMEM, "no memory");
	}
	if (e >= t->n_buckets) {
		int r = index_grow(t);
		if (r < 0)
			return err_set(err, r, "no memory");
	}
	t->n = e;
	*ret = e;
	return 0;
}

static struct tree_inode *inode_new(struct tree *t, uint16_t mode)
{
	struct tree_inode *i = tree_alloc(t, sizeof(*i));

	if (i) {
		*i = (struct tree_inode){ .mode = mode };
	}
	return i;
}

/* Puts a new entry for `inode` at the end of directory `parent`. */
static int entry_attach(struct tree *t, uint32_t parent, const char *name, size_t len,
			struct tree_inode *inode, struct err *err)
{
	struct tree_inode *dir = tree_entry(t, parent)->inode;
	uint32_t e;
	char *copy = tree_alloc(t, len + 1);
	int r;

	if (!copy)
		return err_set(err, -ENOMEM, "no memory");
	r = entry_new(t, &e, err);
	if (r < 0)
		return r;
	memcpy(copy, name, len);
	copy[len] = 0;
	*tree_entry(t, e) = (struct tree_entry){
		.name = copy, .name_len = (uint8_t)len, .parent = parent, .inode = inode
	};
	index_add(t, e);
	if (dir->dir.last)
		tree_entry(t, dir->dir.last)->next = e;
	else
		dir->dir.first = e;
	dir->dir.last = e;
	if (S_ISDIR(inode->mode))
		dir->nlink++;
	else
		inode->nlink++;
	return 0;
}

static void inode_unref(struct tree *t, struct tree_inode *i)
{
	if (S_ISDIR(i->mode) || --i->nlink)
		return;
	if (S_ISREG(i->mode) && t->dropped)
		t->dropped(t->dropped_arg, i);
}

/*
 * Everything below `dir`. Without recursion: at a directory's last child the walk goes back to its
 * parent, whose list has been emptied so far.
 */
static void clear_dir(struct tree *t, uint32_t dir)
{
	uint32_t at = dir;

	for (;;) {
		struct tree_inode *i = tree_entry(t, at)->inode;
		uint32_t child = i->dir.first;

		if (!child) {
			i->dir.last = 0;
			i->nlink = 0;
			if (at == dir)
				return;
			at = tree_entry(t, at)->parent;
			continue;
		}
		struct tree_entry *c = tree_entry(t, child);
		i->dir.first = c->next;
		index_remove(t, child);
		c->removed = true;
		if (S_ISDIR(c->inode->mode))
			at = child;
		else
			inode_unref(t, c->inode);
	}
}

static int make_dir(struct tree *t, uint32_t parent, const char *name, size_t len, uint32_t *ret,
		    struct err *err)
{
	struct tree_inode *i = inode_new(t, S_IFDIR | 0755);
	int r;

	if (!i)
		return err_set(err, -ENOMEM, "no memory");
	r = entry_attach(t, parent, name, len, i, err);
	if (r < 0)
		return r;
	*ret = t->n;
	return 0;
}

/* A whiteout gives way to a directory, which then hides the lower one. */
static bool is_whiteout(const struct tree_inode *i)
{
	return S_ISCHR(i->mode) && !i->dev.major && !i->dev.minor;
}

/* Makes the entry a new, empty inode: other names of the old one keep it. */
static int replace_inode(struct tree *t, uint32_t e, uint16_t mode, struct err *err)
{
	struct tree_entry *x = tree_entry(t, e);
	struct tree_inode *dir = tree_entry(t, x->parent)->inode, *i = inode_new(t, mode);

	if (!i)
		return err_set(err, -ENOMEM, "no memory");
	if (S_ISDIR(mode) && is_whiteout(x->inode))
		i->opaque = true;
	if (S_ISDIR(x->inode->mode)) {
		clear_dir(t, e);
		dir->nlink--;
	}
	inode_unref(t, x->inode);
	x->inode = i;
	if (S_ISDIR(mode))
		dir->nlink++;
	else
		i->nlink = 1;
	return 0;
}

/* ---- paths ---- */

struct walk {
	uint32_t parent;  /* directory of the last component */
	const char *name; /* last component; len 0 = the root itself */
	size_t len;
};

/* Next component of *p; len 0 at the end. "." components are skipped. */
static int next_component(const char **p, size_t *ret_len, struct err *err)
{
	const char *s = *p;
	size_t len;

	for (;;) {
		while (*s == '/')
			s++;
		len = strcspn(s, "/");
		if (len != 1 || *s != '.')
			break;
		s++;
	}
	if (len == 2 && s[0] == '.' && s[1] == '.')
		return err_set(err, -EPROTO, "name with \"..\"");
	if (len > TREE_MAX_NAME)
		return err_set(err, -EPROTO, "component of more than %u bytes", TREE_MAX_NAME);
	*p = s;
	*ret_len = len;
	return 0;
}

static int check_path(const char *path, struct err *err)
{
	if (*path == '/')
		return err_set(err, -EPROTO, "absolute name");
	if (!*path)
		return err_set(err, -EPROTO, "empty name");
	if (strnlen(path, TREE_MAX_PATH + 1) > TREE_MAX_PATH)
		return err_set(err, -EPROTO, "name of more than %u bytes", TREE_MAX_PATH);
	return 0;
}

/* Finds the directory of `path`; makes missing ones when `make`, else -ENOENT. */
static int walk_to(struct tree *t, const char *path, bool make, struct walk *w, struct err *err)
{
	uint32_t at = TREE_ROOT, depth = 0;
	const char *s = path;
	size_t len;
	int r = check_path(path, err);

	if (r < 0)
		return r;
	r = next_component(&s, &len, err);
	if (r < 0)
		return r;
	*w = (struct walk){ .parent = TREE_ROOT };
	while (len) {
		const char *name = s;
		size_t name_len = len;
		uint32_t e;

		if (++depth > TREE_MAX_DEPTH)
			return err_set(err, -EPROTO, "more than %u directories deep",
				       TREE_MAX_DEPTH);
		s += len;
		r = next_component(&s, &len, err);
		if (r < 0)
			return r;
		if (!len) {
			*w = (struct walk){ .parent = at, .name = name, .len = name_len };
			return 0;
		}
		e = lookup(t, at, name, name_len);
		if (!e && !make)
			return err_set(err, -ENOENT, "no such entry");
		if (!e)
			r = make_dir(t, at, name, name_len, &e, err);
		else if (S_ISLNK(tree_entry(t, e)->inode->mode))
			return err_set(err, -EPROTO, "passes through the symbolic link %.*s",
				       (int)name_len, name);
		else if (make && is_whiteout(tree_entry(t, e)->inode))
			r = replace_inode(t, e, S_IFDIR | 0755, err);
		else if (!S_ISDIR(tree_entry(t, e)->inode->mode))
			return err_set(err, -EPROTO, "passes through %.*s, which is no directory",
				       (int)name_len, name);
		if (r < 0)
			return r;
		at = e;
	}
	return 0;
}

uint32_t tree_find(struct tree *t, const char *path)
{
	struct walk w;

	if (walk_to(t, path, false, &w, NULL) < 0)
		return 0;
	return w.len ? lookup(t, w.parent, w.name, w.len) : TREE_ROOT;
}

/* ---- what the tar says ---- */

static int set_attr(struct tree *t, struct tree_inode *i, const struct tree_attr *a)
{
	i->mode = (uint16_t)((i->mode & S_IFMT) | (a->mode & 07777));
	i->uid = a->uid;
	i->gid = a->gid;
	i->mtime = a->mtime;
	i->mtime_ns = a->mtime_ns;
	if (S_ISCHR(i->mode) || S_ISBLK(i->mode)) {
		i->dev.major = a->major;
		i->dev.minor = a->minor;
	}
	if (S_ISLNK(i->mode)) {
		size_t n = strlen(a->target) + 1;

		i->target = tree_alloc(t, n);
		if (!i->target)
			return -ENOMEM;
		memcpy(i->target, a->target, n);
		i->size = n - 1;
	}
	return 0;
}

/* ".wh.NAME" and ".wh..wh..opq" become what overlayfs knows: a device 0:0, an opaque directory. */
static int add_whiteout(struct tree *t, const struct walk *w, struct err *err)
{
	const char *name = w->name + 4;
	size_t len = w->len - 4;
	struct tree_inode *i;
	uint32_t e;

	if (w->len == 12 && !memcmp(w->name, ".wh..wh..opq", 12)) {
		if (w->parent == TREE_ROOT)
			return err_set(err, -ENOTSUP, "opaque root directory");
		tree_entry(t, w->parent)->inode->opaque = true;
		return 0;
	}
	if (len >= 4 && !memcmp(name, ".wh.", 4))
		return 0; /* other marks of AUFS say nothing about the tree */
	if (!len || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return err_set(err, -EPROTO, "whiteout without a name");
	e = lookup(t, w->parent, name, len);
	if (e) {
		/* The layer has an entry of that name itself: the whiteout is for lower layers. */
		if (S_ISDIR(tree_entry(t, e)->inode->mode))
			tree_entry(t, e)->inode->opaque = true;
		return 0;
	}
	i = inode_new(t, S_IFCHR);
	if (!i)
		return err_set(err, -ENOMEM, "no memory");
	return entry_attach(t, w->parent, name, len, i, err);
}

int tree_add(struct tree *t, const char *path, const struct tree_attr *a, struct tree_inode **ret,
	     struct err *err)
{
	struct tree_inode *i;
	struct walk w;
	uint32_t e;
	int r = walk_to(t, path, true, &w, err);

	if (r < 0)
		return r;
	*ret = NULL;
	if (w.len > 4 && !memcmp(w.name, ".wh.", 4))
		return add_whiteout(t, &w, err);
	if (!w.len && !S_ISDIR(a->mode))
		return err_set(err, -EPROTO, "the root is no directory");
	if (S_ISLNK(a->mode) && (!a->target || !*a->target || strlen(a->target) > TREE_MAX_PATH))
		return err_set(err, -EPROTO, "symbolic link with a bad target");
	e = w.len ? lookup(t, w.parent, w.name, w.len) : TREE_ROOT;
	if (!e) {
		i = inode_new(t, a->mode & S_IFMT);
		if (!i)
			return err_set(err, -ENOMEM, "no memory");
		r = entry_attach(t, w.parent, w.name, w.len, i, err);
	} else if (!S_ISDIR(a->mode) || !S_ISDIR(tree_entry(t, e)->inode->mode)) {
		r = replace_inode(t, e, a->mode & S_IFMT, err);
		i = tree_entry(t, e)->inode;
	} else {
		i = tree_entry(t, e)->inode;
		i->xattrs = NULL;
	}
	if (r < 0)
		return r;
	r = set_attr(t, i, a);
	if (r < 0)
		return err_set(err, r, "no memory");
	*ret = i;
	return 0;
}

int tree_link(struct tree *t, const char *path, const char *target, struct err *err)
{
	struct tree_inode *i;
	struct walk w;
	uint32_t e;
	int r = walk_to(t, target, false, &w, err);

	if (r < 0)
		return err_wrap(err, r == -ENOENT ? -EPROTO : r, "hard link to \"%.200s\"", target);
	e = w.len ? lookup(t, w.parent, w.name, w.len) : TREE_ROOT;
	if (!e)
		return err_set(err, -EPROTO, "hard link to \"%.200s\": not in this layer", target);
	i = tree_entry(t, e)->inode;
	if (S_ISDIR(i->mode) || is_whiteout(i))
		return err_set(err, -EPROTO, "hard link to \"%.200s\": not a file", target);
	if (i->nlink >= TREE_MAX_LINKS)
		return err_set(err, -EFBIG, "more than %u hard links to a file", TREE_MAX_LINKS);
	r = walk_to(t, path, true, &w, err);
	if (r < 0)
		return r;
	if (!w.len || (w.len > 4 && !memcmp(w.name, ".wh.", 4)))
		return err_set(err, -EPROTO, "hard link with a bad name");
	/* The walk may have made directories, never removed the target's inode. */
	e = lookup(t, w.parent, w.name, w.len);
	if (!e)
		return entry_attach(t, w.parent, w.name, w.len, i, err);
	if (tree_entry(t, e)->inode == i)
		return 0;
	i->nlink++; /* first: clearing a directory here may take its other names away */
	r = replace_inode(t, e, S_IFREG, err);
	if (r < 0) {
		i->nlink--;
		return r;
	}
	tree_entry(t, e)->inode = i;
	return 0;
}

static int xattr_index(const char **name)
{
	static const struct {
		const char *prefix;
		int index;
	} known[] = { { "user.", 1 }, { "trusted.", 4 }, { "security.", 6 } };

	if (str_starts(*name, "trusted.overlay."))
		return 0;
	for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
		if (str_starts(*name, known[k].prefix)) {
			*name += strlen(known[k].prefix);
			return **name ? known[k].index : 0;
		}
	}
	return 0;
}

static int xattr_cmp(const struct tree_xattr *a, const struct tree_xattr *b)
{
	if (a->index != b->index)
		return a->index - b->index;
	if (a->name_len != b->name_len)
		return a->name_len - b->name_len;
	return memcmp(a->data, b->data, a->name_len);
}

static int xattr_put(struct tree *t, struct tree_inode *i, int index, const char *name,
		     const void *value, size_t len, struct err *err)
{
	size_t name_len = strlen(name), total = 0;
	struct tree_xattr *x, **at;
	int c = -1;

	for (x = i->xattrs; x; x = x->next)
		total += sizeof(*x) + 16 + x->name_len + x->value_len;
	if (len > TREE_MAX_XATTRS || total + len + name_len + sizeof(*x) + 16 > TREE_MAX_XATTRS)
		return err_set(err, -EFBIG, "more than %u bytes of extended attributes",
			       TREE_MAX_XATTRS);
	t->xattr_bytes += len + name_len + sizeof(*x);
	if (t->xattr_bytes > TREE_MAX_XATTR_TOTAL)
		return err_set(err, -EFBIG, "more than %zu MiB of extended attributes in all",
			       TREE_MAX_XATTR_TOTAL / MIB);
	x = tree_alloc(t, sizeof(*x) + name_len + len);
	if (!x)
		return err_set(err, -ENOMEM, "no memory");
	x->index = (uint8_t)index;
	x->name_len = (uint8_t)name_len;
	x->value_len = (uint16_t)len;
	memcpy(x->data, name, name_len);
	if (len)
		memcpy(x->data + name_len, value, len);
	for (at = &i->xattrs; *at && (c = xattr_cmp(*at, x)) < 0; at = &(*at)->next)
		;
	x->next = *at && c == 0 ? (*at)->next : *at;
	*at = x;
	return 0;
}

int tree_xattr(struct tree *t, struct tree_inode *i, const char *name, const void *value,
	       size_t len, struct err *err)
{
	int index = xattr_index(&name);

	if (!index)
		return 0;
	if (strnlen(name, 256) > 255)
		return err_set(err, -EPROTO,
			       "extended attribute with a name of more than 255 bytes");
	return xattr_put(t, i, index, name, value, len, err);
}

int tree_xattr_opaque(struct tree *t, struct tree_inode *dir, struct err *err)
{
	return xattr_put(t, dir, 4, "overlay.opaque", "y", 1, err);
}

int tree_new(struct tree **ret)
{
	struct tree *t = calloc(1, sizeof(*t));
	uint32_t e;

	if (!t || index_grow(t) < 0 || entry_new(t, &e, NULL) < 0) {
		tree_free(t);
		return -ENOMEM;
	}
	/* Without entropy only the protection against prepared names is lost. */
	if (getrandom(&t->seed, sizeof(t->seed), 0) < 0)
		t->seed = 0x2545f4914f6cdd1dull;
	*tree_entry(t, e) = (struct tree_entry){ .name = "",
						 .parent = TREE_ROOT,
						 .inode = inode_new(t, S_IFDIR | 0755) };
	if (!tree_entry(t, e)->inode) {
		tree_free(t);
		return -ENOMEM;
	}
	*ret = t;
	return 0;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	while (t->arena) {
		struct arena_block *b = t->arena;

		t->arena = b->next;
		free(b);
	}
	for (size_t k = 0; k < ARRAY_SIZE(t->chunks); k++)
		free(t->chunks[k]);
	free(t->buckets);
	free(t);
}
