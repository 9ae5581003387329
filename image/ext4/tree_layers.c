/* Whiteouts and opaque directories, within one layer and between layers that become one. */
#include <errno.h>
#include <string.h>

#include "image/ext4/tree_internal.h"

/* Removes the entries of a directory for which `gone` is true. */
static void filter(struct tree *t, uint32_t dir,
		   bool (*gone)(const struct tree *t, const struct tree_entry *e))
{
	struct tree_inode *d = tree_entry(t, dir)->inode;
	uint32_t e = d->dir.first, next;

	d->dir.first = d->dir.last = 0;
	for (; e; e = next) {
		struct tree_entry *x = tree_entry(t, e);

		tree_tick(t);
		next = x->next;
		if (gone(t, x)) {
			tree_remove(t, e);
			continue;
		}
		x->next = 0;
		if (d->dir.last)
			tree_entry(t, d->dir.last)->next = e;
		else
			d->dir.first = e;
		d->dir.last = e;
	}
}

static bool tree_is_older(const struct tree *t, const struct tree_entry *e)
{
	return e->layer != t->layer;
}

static bool tree_is_whiteout_entry(const struct tree *t, const struct tree_entry *e)
{
	return tree_is_whiteout(e->inode);
}

static bool wants_pruning(struct tree *t, uint32_t e)
{
	const struct tree_entry *x = tree_entry(t, e);

	return S_ISDIR(x->inode->mode) && x->pruned != t->layer;
}

/*
 * Removes what only older layers have below `dir`. Done once for each layer and directory, so that
 * it takes linear time however often a tar says that a directory is opaque. Without recursion: down
 * to the next directory, along the list, and up again by the parents.
 */
static void prune(struct tree *t, uint32_t dir)
{
	uint32_t at = dir, next;

	if (t->layer == 1 || !wants_pruning(t, dir))
		return;
	filter(t, dir, tree_is_older);
	tree_entry(t, dir)->pruned = t->layer;
	next = tree_entry(t, dir)->inode->dir.first;
	for (;;) {
		while (next && !wants_pruning(t, next))
			next = tree_entry(t, next)->next;
		if (next) {
			at = next;
			filter(t, at, tree_is_older);
			tree_entry(t, at)->pruned = t->layer;
			next = tree_entry(t, at)->inode->dir.first;
			continue;
		}
		if (at == dir)
			return;
		next = tree_entry(t, at)->next;
		at = tree_entry(t, at)->parent;
	}
}

static void make_opaque(struct tree *t, uint32_t dir)
{
	tree_entry(t, dir)->inode->opaque = true;
	prune(t, dir);
}

int tree_whiteout(struct tree *t, const struct walk *w, struct err *err)
{
	const char *name = w->name + 4;
	size_t len = w->len - 4;
	struct tree_inode *i;
	uint32_t e;
	int r;

	if (w->len == 12 && !memcmp(w->name, ".wh..wh..opq", 12)) {
		make_opaque(t, w->parent);
		return 0;
	}
	if (len >= 4 && !memcmp(name, ".wh.", 4))
		return 0; /* other marks of AUFS say nothing about the tree */
	if (!len || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return err_set(err, -EPROTO, "whiteout without a name");
	e = tree_lookup(t, w->parent, name, len);
	if (e && tree_is_older(t, tree_entry(t, e)))
		return tree_replace(t, e, S_IFCHR, err); /* 0:0 */
	if (e) {
		/* The layer itself has an entry with that name: the whiteout is for those of older
		 * layers. */
		if (!S_ISDIR(tree_entry(t, e)->inode->mode))
			return 0;
		if (tree_entry(t, e)->named != t->layer)
			tree_reset_dir(tree_entry(t, e)->inode);
		tree_entry(t, e)->named = t->layer;
		make_opaque(t, e);
		return 0;
	}
	r = tree_inode_new(t, S_IFCHR, &i, err);
	return r < 0 ? r : tree_attach(t, w->parent, name, len, i, err);
}

int tree_next_layer(struct tree *t, struct err *err)
{
	if (t->layer == TREE_MAX_LAYERS)
		return err_set(err, -EFBIG, "more than %u layers in one", TREE_MAX_LAYERS);
	t->layer++;
	return 0;
}

/* ---- attributes of directories that a layer does not name ---- */

static bool is_plain(const struct tree_inode *i)
{
	return (i->mode & 07777) == 0755 && !i->uid && !i->gid && !i->xattrs;
}

static bool inherits(const struct tree *t, uint32_t e, const struct tree_entry *x)
{
	const struct tree_inode *i = x->inode;

	if (e == TREE_ROOT)
		return x->named && x->named != t->layer && !is_plain(i);
	return x->named && x->named != x->layer && (!is_plain(i) || i->mtime || i->mtime_ns);
}

static bool tree_is_not_kept(const struct tree *t, const struct tree_entry *e)
{
	return !e->kept;
}

uint32_t tree_only_inherited(struct tree *t)
{
	uint32_t n = 0;

	/* A parent has a lower number than what is in it. */
	for (uint32_t e = t->n; e >= TREE_ROOT; e--) {
		struct tree_entry *x = tree_entry(t, e);
		bool own;

		tree_tick(t);
		if (x->removed || !S_ISDIR(x->inode->mode))
			continue;
		own = inherits(t, e, x);
		n += own;
		x->kept |= own;
		tree_entry(t, x->parent)->kept |= x->kept;
	}
	for (uint32_t e = TREE_ROOT; e <= t->n; e++) {
		struct tree_entry *x = tree_entry(t, e);

		tree_tick(t);
		if (x->removed || !x->kept)
			continue;
		x->inode->opaque = false;
		filter(t, e, tree_is_not_kept);
	}
	return n;
}

void tree_facts(struct tree *t, struct tree_facts *ret)
{
	const struct tree_inode *root = tree_entry(t, TREE_ROOT)->inode;

	*ret = (struct tree_facts){ .root_named = !root->implied,
				    .root_unusual = !root->implied && !is_plain(root) };
	for (uint32_t e = TREE_ROOT + 1; e <= t->n; e++) {
		const struct tree_entry *x = tree_entry(t, e);

		tree_tick(t);
		ret->implied += !x->removed && S_ISDIR(x->inode->mode) && x->inode->implied;
	}
}

void tree_is_bottom(struct tree *t)
{
	for (uint32_t e = TREE_ROOT; e <= t->n; e++) {
		struct tree_entry *x = tree_entry(t, e);

		tree_tick(t);
		if (x->removed || !S_ISDIR(x->inode->mode))
			continue;
		x->inode->opaque = false;
		filter(t, e, tree_is_whiteout_entry);
	}
}
