#include "image/ext4/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/util.h"
#include "image/ext4/tree_internal.h"

#define REMOVED UINT32_MAX
/* Steps between two trims. Each step may make a few pages of the spool resident (16, where the
 * kernel maps pages around a fault). */
#define TICKS 128u

struct tree_entry *tree_entry(struct tree *t, uint32_t number)
{
	check(number >= TREE_ROOT && number <= t->n);
	return &t->chunks[number / ENTRIES_PER_CHUNK][number % ENTRIES_PER_CHUNK];
}

uint32_t tree_entries(const struct tree *t)
{
	return t->n;
}

uint32_t tree_dropped_xattrs(const struct tree *t)
{
	return t->dropped_xattrs;
}

void tree_on_drop(struct tree *t, void (*dropped)(void *, struct tree_inode *), void *arg)
{
	t->dropped = dropped;
	t->dropped_arg = arg;
}

/* ---- memory ---- */

static int arena_error(struct tree *t, int r, struct err *err)
{
	if (r == -ENOMEM)
		return err_nomem(err);
	if (r == -EFBIG && t->arena.n == ARENA_MAX_CHUNKS)
		return err_set(err, r, "more than %zu MiB of names and attributes",
			       ARENA_MAX_CHUNKS * ARENA_CHUNK / MIB);
	return err_errno(err, r, "make room for the list of files");
}

int tree_alloc(struct tree *t, size_t n, void **ret, struct err *err)
{
	int r;
	void *p = arena_alloc(&t->arena, n, &r);

	if (!p)
		return arena_error(t, r, err);
	*ret = p;
	return 0;
}

void tree_spool(struct tree *t, int fd, uint64_t offset)
{
	arena_spool(&t->arena, fd, offset);
}

void tree_tick(struct tree *t)
{
	if (++t->ticks % TICKS == 0)
		arena_trim(&t->arena);
}

/* ---- the index of (directory, name): open addressing ---- */

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

/* The slot of (parent, name), or the free one at which the search ended. */
static struct tree_slot *find_slot(struct tree *t, uint32_t hash, uint32_t parent, const char *name,
				   size_t len)
{
	for (uint32_t k = hash;; k++) {
		struct tree_slot *s = &t->slots[k & (t->n_slots - 1)];
		struct tree_entry *x;

		if (!s->entry)
			return s;
		if (s->entry == REMOVED || s->hash != hash)
			continue;
		x = tree_entry(t, s->entry);
		if (x->parent == parent && x->name_len == len && !memcmp(x->name, name, len))
			return s;
	}
}

uint32_t tree_lookup(struct tree *t, uint32_t parent, const char *name, size_t len)
{
	tree_tick(t);
	return find_slot(t, hash_of(t, parent, name, len), parent, name, len)->entry;
}

static void index_remove(struct tree *t, uint32_t e)
{
	struct tree_entry *x = tree_entry(t, e);
	uint32_t hash = hash_of(t, x->parent, x->name, x->name_len);
	struct tree_slot *s = find_slot(t, hash, x->parent, x->name, x->name_len);

	check(s->entry == e);
	s->entry = REMOVED;
}

static void put_slot(struct tree_slot *slots, uint32_t n, struct tree_slot s)
{
	uint32_t k = s.hash & (n - 1);

	while (slots[k].entry)
		k = (k + 1) & (n - 1);
	slots[k] = s;
}

/* Makes room for one more; at least a quarter of the slots stays free. */
static int index_reserve(struct tree *t)
{
	uint32_t n = t->n_slots ? t->n_slots * 2 : 1024;
	struct tree_slot *slots;

	if (t->used_slots < t->n_slots / 4 * 3)
		return 0;
	slots = calloc(n, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	t->used_slots = 0;
	for (uint32_t k = 0; k < t->n_slots; k++) {
		if (t->slots[k].entry && t->slots[k].entry != REMOVED) {
			put_slot(slots, n, t->slots[k]);
			t->used_slots++;
		}
	}
	free(t->slots);
	t->slots = slots;
	t->n_slots = n;
	return 0;
}

void tree_close_index(struct tree *t)
{
	free(t->slots);
	t->slots = NULL;
	t->n_slots = t->used_slots = 0;
}

/* ---- entries ---- */

static int entry_new(struct tree *t, uint32_t *ret, struct err *err)
{
	uint32_t e = t->n + 1;
	void *p;
	int r;

	if (e > TREE_MAX_ENTRIES)
		return err_set(err, -EFBIG, "more than %u entries", TREE_MAX_ENTRIES);
	if (!t->chunks[e / ENTRIES_PER_CHUNK]) {
		r = arena_chunk(&t->arena, &p);
		if (r < 0)
			return arena_error(t, r, err);
		t->chunks[e / ENTRIES_PER_CHUNK] = p;
	}
	r = index_reserve(t);
	if (r < 0)
		return err_nomem(err);
	t->n = e;
	*ret = e;
	return 0;
}

int tree_inode_new(struct tree *t, uint16_t mode, struct tree_inode **ret, struct err *err)
{
	void *p;
	int r = tree_alloc(t, sizeof(struct tree_inode), &p, err);

	if (r < 0)
		return r;
	*ret = p;
	**ret = (struct tree_inode){ .mode = mode };
	return 0;
}

int tree_attach(struct tree *t, uint32_t parent, const char *name, size_t len,
		struct tree_inode *inode, struct err *err)
{
	struct tree_inode *dir = tree_entry(t, parent)->inode;
	uint32_t e;
	void *copy;
	int r = tree_alloc(t, len + 1, &copy, err);

	check(S_ISDIR(dir->mode) && len > 0 && len <= TREE_MAX_NAME);
	if (r == 0)
		r = entry_new(t, &e, err);
	if (r < 0)
		return r;
	memcpy(copy, name, len); /* fresh memory is zeros: the NUL is there */
	*tree_entry(t, e) = (struct tree_entry){ .name = copy,
						 .name_len = (uint8_t)len,
						 .layer = t->layer,
						 .parent = parent,
						 .inode = inode };
	put_slot(t->slots, t->n_slots, (struct tree_slot){ hash_of(t, parent, name, len), e });
	t->used_slots++;
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
	if (S_ISDIR(i->mode))
		return;
	check(i->nlink > 0);
	if (--i->nlink)
		return;
	if (S_ISREG(i->mode) && t->dropped)
		t->dropped(t->dropped_arg, i);
}

/*
 * Removes everything below `dir`. Without recursion: when a directory is empty, the walk goes back
 * to its parent, and continues with what is left in that one's list.
 */
static void clear_dir(struct tree *t, uint32_t dir)
{
	uint32_t at = dir;

	for (;;) {
		struct tree_inode *i = tree_entry(t, at)->inode;
		uint32_t child = i->dir.first;
		struct tree_entry *c;

		tree_tick(t);
		if (!child) {
			i->dir.last = 0;
			i->nlink = 0;
			if (at == dir)
				return;
			at = tree_entry(t, at)->parent;
			continue;
		}
		c = tree_entry(t, child);
		i->dir.first = c->next;
		index_remove(t, child);
		c->removed = true;
		if (S_ISDIR(c->inode->mode))
			at = child;
		else
			inode_unref(t, c->inode);
	}
}

void tree_remove(struct tree *t, uint32_t e)
{
	struct tree_entry *x = tree_entry(t, e);

	index_remove(t, e);
	x->removed = true;
	if (S_ISDIR(x->inode->mode)) {
		clear_dir(t, e);
		tree_entry(t, x->parent)->inode->nlink--;
	}
	inode_unref(t, x->inode);
}

static int make_dir(struct tree *t, uint32_t parent, const char *name, size_t len, uint32_t *ret,
		    struct err *err)
{
	struct tree_inode *i;
	int r = tree_inode_new(t, S_IFDIR | 0755, &i, err);

	if (r == 0) {
		i->implied = true;
		r = tree_attach(t, parent, name, len, i, err);
	}
	if (r < 0)
		return r;
	*ret = t->n;
	return 0;
}

void tree_reset_dir(struct tree_inode *i)
{
	i->mode = S_IFDIR | 0755;
	i->uid = i->gid = 0;
	i->mtime = 0;
	i->mtime_ns = 0;
	i->xattrs = NULL;
	i->implied = false;
}

bool tree_is_whiteout(const struct tree_inode *i)
{
	return S_ISCHR(i->mode) && !i->dev.major && !i->dev.minor;
}

/*
 * A directory that replaces a whiteout, or something of an older layer, must hide what lower layers
 * have at its place.
 */
int tree_replace(struct tree *t, uint32_t e, uint16_t mode, struct err *err)
{
	struct tree_entry *x = tree_entry(t, e);
	struct tree_inode *dir = tree_entry(t, x->parent)->inode, *i;
	int r = tree_inode_new(t, mode, &i, err);

	if (r < 0)
		return r;
	i->opaque = S_ISDIR(mode) && (tree_is_whiteout(x->inode) || x->layer != t->layer);
	if (S_ISDIR(x->inode->mode)) {
		clear_dir(t, e);
		dir->nlink--;
	}
	inode_unref(t, x->inode);
	x->inode = i;
	x->layer = t->layer;
	x->named = 0;
	if (S_ISDIR(mode))
		dir->nlink++;
	else
		i->nlink = 1;
	return 0;
}

/* ---- paths ---- */

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
	if (len > TREE_MAX_NAME)
		return err_set(err, -EPROTO, "component of more than %u bytes", TREE_MAX_NAME);
	*p = s;
	*ret_len = len;
	return 0;
}

static bool is_dotdot(const char *s, size_t len)
{
	return len == 2 && s[0] == '.' && s[1] == '.';
}

/* The next component of a name, which must not be "..". */
static int name_component(const char **p, size_t *ret_len, struct err *err)
{
	int r = next_component(p, ret_len, err);

	if (r == 0 && is_dotdot(*p, *ret_len))
		return err_set(err, -EPROTO, "name with \"..\"");
	return r;
}

static int check_path(const char *path, struct err *err)
{
	if (!*path)
		return err_set(err, -EPROTO, "empty name");
	if (strnlen(path, TREE_MAX_PATH + 1) > TREE_MAX_PATH)
		return err_set(err, -EPROTO, "name of more than %u bytes", TREE_MAX_PATH);
	return 0;
}

/*
 * The directory that a symbolic link in directory `at` leads to, where "/" is the root of this
 * tree. False: it leads to none of this tree, or above the root. Recurses once for each link, of
 * which TREE_MAX_LINK_STEPS are allowed.
 */
static bool follow(struct tree *t, uint32_t at, const char *target, unsigned *steps, uint32_t *ret)
{
	size_t len;

	if (++*steps > TREE_MAX_LINK_STEPS)
		return false;
	if (*target == '/')
		at = TREE_ROOT;
	for (;; target += len) {
		const struct tree_inode *i;
		uint32_t e;

		if (next_component(&target, &len, NULL) < 0)
			return false;
		if (!len)
			break;
		if (is_dotdot(target, len)) {
			if (at == TREE_ROOT)
				return false;
			at = tree_entry(t, at)->parent;
			continue;
		}
		e = tree_lookup(t, at, target, len);
		i = e ? tree_entry(t, e)->inode : NULL;
		if (i && S_ISLNK(i->mode)) {
			if (!follow(t, at, i->link.target, steps, &at))
				return false;
		} else if (i && S_ISDIR(i->mode)) {
			at = e;
		} else {
			return false;
		}
	}
	*ret = at;
	return true;
}

/* From directory *at into its entry `name`. A missing one is made when `make`, else -ENOENT; then
 * also what an older layer has there, and is no directory, is replaced by a new one. */
static int step(struct tree *t, uint32_t *at, const char *name, size_t len, bool make,
		unsigned *steps, struct err *err)
{
	uint32_t e = tree_lookup(t, *at, name, len);
	struct tree_inode *i;
	int r = 0;

	if (!e && !make)
		return err_set(err, -ENOENT, "no such entry");
	if (!e)
		return make_dir(t, *at, name, len, at, err);
	i = tree_entry(t, e)->inode;
	if (make && !S_ISDIR(i->mode) &&
	    (tree_is_whiteout(i) || tree_entry(t, e)->layer != t->layer)) {
		r = tree_replace(t, e, S_IFDIR | 0755, err);
	} else if (S_ISLNK(i->mode)) {
		if (follow(t, *at, i->link.target, steps, at))
			return 0;
		return err_set(err, -EPROTO,
			       "passes through the symbolic link %.*s, which does not lead to a "
			       "directory of this layer",
			       (int)len, name);
	} else if (!S_ISDIR(i->mode)) {
		return err_set(err, -EPROTO, "passes through %.*s, which is not a directory",
			       (int)len, name);
	}
	if (make)
		tree_entry(t, e)->layer = t->layer;
	*at = e;
	return r;
}

/* Finds the directory of `path`. Missing ones are made when `make`, else -ENOENT. */
static int walk_to(struct tree *t, const char *path, bool make, struct walk *w, struct err *err)
{
	uint32_t at = TREE_ROOT;
	unsigned depth = 0, steps = 0;
	const char *s = path;
	size_t len;
	int r = check_path(path, err);

	if (r == 0)
		r = name_component(&s, &len, err);
	if (r < 0)
		return r;
	*w = (struct walk){ .parent = TREE_ROOT };
	while (len) {
		const char *name = s;
		size_t name_len = len;

		if (++depth > TREE_MAX_DEPTH)
			return err_set(err, -EPROTO, "more than %u directories deep",
				       TREE_MAX_DEPTH);
		s += len;
		r = name_component(&s, &len, err);
		if (r < 0)
			return r;
		if (!len) {
			*w = (struct walk){ .parent = at, .name = name, .len = name_len };
			return 0;
		}
		r = step(t, &at, name, name_len, make, &steps, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static uint32_t walk_end(struct tree *t, const struct walk *w)
{
	return w->len ? tree_lookup(t, w->parent, w->name, w->len) : TREE_ROOT;
}

uint32_t tree_find(struct tree *t, const char *path)
{
	struct walk w;

	return walk_to(t, path, false, &w, NULL) < 0 ? 0 : walk_end(t, &w);
}

/* ---- what the tar says ---- */

static int set_attr(struct tree *t, struct tree_inode *i, const struct tree_attr *a,
		    struct err *err)
{
	i->mode = (uint16_t)((i->mode & S_IFMT) | (a->mode & 07777));
	i->implied = false;
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
		void *p;
		int r = tree_alloc(t, n, &p, err);

		if (r < 0)
			return r;
		i->mode = S_IFLNK | 0777; /* the mode of every link on Linux */
		memcpy(p, a->target, n);
		i->link.target = p;
		i->size = n - 1;
	}
	return 0;
}

static bool has_whiteout_name(const struct walk *w)
{
	return w->len > 4 && !memcmp(w->name, ".wh.", 4);
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
	if (has_whiteout_name(&w))
		return tree_whiteout(t, &w, err);
	if (!w.len && !S_ISDIR(a->mode))
		return err_set(err, -EPROTO, "the root is not a directory");
	if (S_ISLNK(a->mode) && (!a->target || !*a->target || strlen(a->target) > TREE_MAX_PATH))
		return err_set(err, -EPROTO, "symbolic link with a bad target");
	e = walk_end(t, &w);
	if (!e) {
		r = tree_inode_new(t, a->mode & S_IFMT, &i, err);
		if (r == 0)
			r = tree_attach(t, w.parent, w.name, w.len, i, err);
	} else if (!S_ISDIR(a->mode) || !S_ISDIR(tree_entry(t, e)->inode->mode)) {
		r = tree_replace(t, e, a->mode & S_IFMT, err);
		i = tree_entry(t, e)->inode;
	} else {
		i = tree_entry(t, e)->inode;
		i->xattrs = NULL;
		tree_entry(t, e)->layer = t->layer;
	}
	if (r == 0)
		r = set_attr(t, i, a, err);
	if (r < 0)
		return r;
	if (!e)
		e = t->n;
	tree_entry(t, e)->named = S_ISDIR(a->mode) ? t->layer : 0;
	*ret = i;
	return 0;
}

int tree_imply(struct tree *t, const char *path, struct err *err)
{
	unsigned steps = 0;
	struct walk w;
	int r = walk_to(t, path, true, &w, err);

	return r < 0 || !w.len ? r : step(t, &w.parent, w.name, w.len, true, &steps, err);
}

/* The inode that a hard link to `target` gets. */
static int link_target(struct tree *t, const char *target, struct tree_inode **ret, struct err *err)
{
	struct tree_inode *i;
	struct walk w;
	uint32_t e;
	int r = walk_to(t, target, false, &w, err);

	if (r < 0)
		return err_wrap(err, r == -ENOENT ? -EPROTO : r, "hard link to \"%.200s\"", target);
	e = walk_end(t, &w);
	if (!e)
		return err_set(err, -EPROTO, "hard link to \"%.200s\": not in this layer", target);
	i = tree_entry(t, e)->inode;
	if (S_ISDIR(i->mode) || tree_is_whiteout(i))
		return err_set(err, -EPROTO, "hard link to \"%.200s\": not a file", target);
	if (i->nlink >= TREE_MAX_LINKS)
		return err_set(err, -EFBIG, "more than %u hard links to a file", TREE_MAX_LINKS);
	*ret = i;
	return 0;
}

int tree_link(struct tree *t, const char *path, const char *target, struct err *err)
{
	struct tree_inode *i = NULL;
	struct walk w;
	uint32_t e;
	int r = walk_to(t, path, true, &w, err);

	if (r < 0)
		return r;
	if (!w.len || has_whiteout_name(&w))
		return err_set(err, -EPROTO, "hard link with a bad name");
	/* After that walk, which may put a directory in place of an older layer's file. */
	r = link_target(t, target, &i, err);
	if (r < 0)
		return r;
	e = tree_lookup(t, w.parent, w.name, w.len);
	if (!e)
		return tree_attach(t, w.parent, w.name, w.len, i, err);
	if (tree_entry(t, e)->inode == i) {
		tree_entry(t, e)->layer = t->layer;
		return 0;
	}
	i->nlink++; /* before the replacement, which may remove its last other name */
	r = tree_replace(t, e, S_IFREG, err);
	if (r < 0) {
		i->nlink--;
		return r;
	}
	tree_entry(t, e)->inode = i;
	return 0;
}

int tree_new(struct tree **ret)
{
	struct tree *t = calloc(1, sizeof(*t));
	struct tree_inode *root;
	uint32_t e;

	if (!t)
		return -ENOMEM;
	arena_init(&t->arena);
	t->layer = 1;
	/* Without entropy names could be prepared to collide, which only costs time. */
	if (getrandom(&t->seed, sizeof(t->seed), 0) < 0)
		t->seed = 0x2545f4914f6cdd1dull;
	if (entry_new(t, &e, NULL) < 0 || tree_inode_new(t, S_IFDIR | 0755, &root, NULL) < 0) {
		tree_free(t);
		return -ENOMEM;
	}
	root->implied = true;
	*tree_entry(t, e) = (struct tree_entry){ .name = "", .parent = TREE_ROOT, .inode = root };
	*ret = t;
	return 0;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	arena_fini(&t->arena);
	free(t->slots);
	free(t);
}
