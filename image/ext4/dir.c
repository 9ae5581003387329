/* Directory blocks: one linear block, or a hashed tree ("htree") that is packed full. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

#include "base/check.h"
#include "image/ext4/internal.h"
#include "image/ext4/tree.h"

#define ROOT_LIMIT ((EXT4_BLOCK - 32 - 8) / 8) /* index entries in the first block */
#define NODE_LIMIT ((EXT4_BLOCK - 8 - 8) / 8)  /* and in the others */
#define LEAF_SPACE (EXT4_BLOCK - 12)	       /* entries of a block; its checksum follows */

static unsigned entry_size(unsigned name_len)
{
	return (8 + name_len + 3) & ~3u;
}

static uint8_t type_of(uint16_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EXT2_FT_REG_FILE;
	case S_IFDIR:
		return EXT2_FT_DIR;
	case S_IFCHR:
		return EXT2_FT_CHRDEV;
	case S_IFBLK:
		return EXT2_FT_BLKDEV;
	case S_IFIFO:
		return EXT2_FT_FIFO;
	case S_IFSOCK:
		return EXT2_FT_SOCK;
	default:
		return EXT2_FT_SYMLINK;
	}
}

/* Entries of one block, one after the other; the last one is stretched to the block's end. */
struct packer {
	uint8_t *block;
	unsigned used, last;
	uint32_t seed;
};

static void pack(struct packer *p, uint32_t ino, const char *name, unsigned len, uint8_t type)
{
	struct ext2_dir_entry_2 *d = (struct ext2_dir_entry_2 *)(void *)(p->block + p->used);

	check(p->used + entry_size(len) <= LEAF_SPACE);
	d->inode = ino;
	d->rec_len = (uint16_t)entry_size(len);
	d->name_len = (uint8_t)len;
	d->file_type = type;
	memcpy(d->name, name, len);
	p->last = p->used;
	p->used += d->rec_len;
}

static void stretch(struct packer *p, unsigned end)
{
	struct ext2_dir_entry_2 *d = (struct ext2_dir_entry_2 *)(void *)(p->block + p->last);

	d->rec_len = (uint16_t)(end - p->last);
}

/* The checksum has the form of an unused entry. */
static void pack_end(struct packer *p)
{
	struct ext2_dir_entry_tail *t =
		(struct ext2_dir_entry_tail *)(void *)(p->block + LEAF_SPACE);

	stretch(p, LEAF_SPACE);
	*t = (struct ext2_dir_entry_tail){ .det_rec_len = 12,
					   .det_reserved_name_len = EXT2_DIR_NAME_LEN_CSUM,
					   .det_checksum =
						   ext4_crc(p->seed, p->block, LEAF_SPACE) };
}

/* The checksum of an index block covers the used ones of the `limit` entries at `at`, and the 8
 * bytes behind all of them. */
static void sum_index(struct packer *p, unsigned at, unsigned limit)
{
	struct ext2_dx_countlimit *c = (struct ext2_dx_countlimit *)(void *)(p->block + at);
	struct ext2_dx_tail *t = (struct ext2_dx_tail *)(void *)(p->block + at + limit * 8);
	uint32_t crc = ext4_crc(p->seed, p->block, at + c->count * 8u);

	t->dt_reserved = t->dt_checksum = 0;
	t->dt_checksum = ext4_crc(crc, t, sizeof(*t));
}

static void pack_entry(struct packer *p, const struct tree_entry *e)
{
	pack(p, e->inode->ino, e->name, e->name_len, type_of(e->inode->mode));
}

static int new_block(struct ext4_writer *w, struct tree *t, uint32_t dir, struct packer *p,
		     uint32_t *ret_block, struct err *err)
{
	int r = out_block(&w->out, &p->block, ret_block, err);

	if (r < 0)
		return r;
	memset(p->block, 0, EXT4_BLOCK);
	p->used = p->last = 0;
	p->seed = ext4_inode_seed(w, tree_entry(t, dir)->inode->ino);
	return 0;
}

static int linear(struct ext4_writer *w, struct tree *t, uint32_t dir, uint32_t *ret_first,
		  struct err *err)
{
	struct tree_entry *d = tree_entry(t, dir);
	struct packer p;
	int r = new_block(w, t, dir, &p, ret_first, err);

	if (r < 0)
		return r;
	pack(&p, d->inode->ino, ".", 1, EXT2_FT_DIR);
	pack(&p, tree_entry(t, d->parent)->inode->ino, "..", 2, EXT2_FT_DIR);
	for (uint32_t e = d->inode->dir.first; e; e = tree_entry(t, e)->next)
		pack_entry(&p, tree_entry(t, e));
	pack_end(&p);
	return 0;
}

struct hashed {
	uint32_t hash, minor, entry;
};

struct leaf {
	uint32_t first; /* index of its first entry */
	uint32_t hash;	/* its lowest; bit 0: the leaf before ends with the same hash */
};

static int dir_by_hash(const void *a, const void *b)
{
	const struct hashed *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	if (x->minor != y->minor)
		return x->minor < y->minor ? -1 : 1;
	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static int sort_entries(struct tree *t, uint32_t dir, uint32_t n, const uint32_t seed[4],
			struct hashed **ret, struct err *err)
{
	struct hashed *h = malloc(n * sizeof(*h));
	uint32_t k = 0;

	if (!h)
		return err_nomem(err);
	for (uint32_t e = tree_entry(t, dir)->inode->dir.first; e;
	     e = tree_entry(t, e)->next, k++) {
		struct tree_entry *x = tree_entry(t, e);

		tree_tick(t);
		h[k].entry = e;
		if (ext2fs_dirhash2(EXT2_HASH_HALF_MD4_UNSIGNED, x->name, x->name_len, NULL, 0,
				    seed, &h[k].hash, &h[k].minor)) {
			free(h);
			return err_set(err, -EIO, "cannot hash a name");
		}
	}
	qsort(h, n, sizeof(*h), dir_by_hash);
	*ret = h;
	return 0;
}

/* Where the leaves begin. Returns their number. */
static uint32_t split_leaves(struct tree *t, const struct hashed *h, uint32_t n,
			     struct leaf *leaves)
{
	uint32_t made = 0;
	unsigned used = LEAF_SPACE;

	for (uint32_t k = 0; k < n; k++) {
		unsigned size = entry_size(tree_entry(t, h[k].entry)->name_len);

		tree_tick(t);
		if (used + size > LEAF_SPACE) {
			bool continued = k && h[k].hash == h[k - 1].hash;

			leaves[made++] = (struct leaf){ k, h[k].hash | continued };
			used = 0;
		}
		used += size;
	}
	return made;
}

/* Index entries; limit and count take the place of the first one's hash. */
static void put_index(uint8_t *at, const struct leaf *l, uint32_t n, uint32_t step, uint32_t limit,
		      uint32_t first_block)
{
	struct ext2_dx_entry *e = (struct ext2_dx_entry *)(void *)at;

	for (uint32_t k = 0; k < n; k++)
		e[k] = (struct ext2_dx_entry){ .hash = l[(size_t)k * step].hash,
					       .block = first_block + k };
	*(struct ext2_dx_countlimit *)e =
		(struct ext2_dx_countlimit){ (uint16_t)limit, (uint16_t)n };
}

static int put_root(struct ext4_writer *w, struct tree *t, uint32_t dir, const struct leaf *l,
		    uint32_t n_leaves, uint32_t n_nodes, uint32_t *ret_first, struct err *err)
{
	struct tree_entry *d = tree_entry(t, dir);
	struct packer p;
	int r = new_block(w, t, dir, &p, ret_first, err);

	if (r < 0)
		return r;
	pack(&p, d->inode->ino, ".", 1, EXT2_FT_DIR);
	pack(&p, tree_entry(t, d->parent)->inode->ino, "..", 2, EXT2_FT_DIR);
	stretch(&p, EXT4_BLOCK);
	*(struct ext2_dx_root_info *)(void *)(p.block + 24) = (struct ext2_dx_root_info){
		.hash_version = EXT2_HASH_HALF_MD4, .info_length = 8, .indirect_levels = n_nodes > 0
	};
	if (n_nodes)
		put_index(p.block + 32, l, n_nodes, NODE_LIMIT, ROOT_LIMIT, 1);
	else
		put_index(p.block + 32, l, n_leaves, 1, ROOT_LIMIT, 1);
	sum_index(&p, 32, ROOT_LIMIT);
	return 0;
}

static int put_node(struct ext4_writer *w, struct tree *t, uint32_t dir, const struct leaf *l,
		    uint32_t n, uint32_t first_block, struct err *err)
{
	struct packer p;
	int r = new_block(w, t, dir, &p, NULL, err);

	if (r < 0)
		return r;
	((struct ext2_dir_entry_2 *)(void *)p.block)->rec_len = EXT4_BLOCK;
	put_index(p.block + 8, l, n, 1, NODE_LIMIT, first_block);
	sum_index(&p, 8, NODE_LIMIT);
	return 0;
}

static int hashed_tree(struct ext4_writer *w, struct tree *t, uint32_t dir, uint32_t n,
		       const struct hashed *h, struct leaf *l, uint32_t *ret_first, uint32_t *ret_n,
		       struct err *err)
{
	uint32_t leaves = split_leaves(t, h, n, l), nodes = 0;
	struct packer p;
	int r;

	if (leaves > ROOT_LIMIT)
		nodes = (leaves + NODE_LIMIT - 1) / NODE_LIMIT;
	if (nodes > ROOT_LIMIT)
		return err_set(err, -EFBIG, "directory too large");
	r = put_root(w, t, dir, l, leaves, nodes, ret_first, err);
	for (uint32_t k = 0; k < nodes && r == 0; k++) {
		uint32_t first = k * NODE_LIMIT;
		uint32_t here = leaves - first < NODE_LIMIT ? leaves - first : NODE_LIMIT;

		r = put_node(w, t, dir, l + first, here, 1 + nodes + first, err);
	}
	for (uint32_t k = 0; k < leaves && r == 0; k++) {
		uint32_t end = k + 1 < leaves ? l[k + 1].first : n;

		r = new_block(w, t, dir, &p, NULL, err);
		if (r < 0)
			break;
		for (uint32_t j = l[k].first; j < end; j++) {
			tree_tick(t);
			pack_entry(&p, tree_entry(t, h[j].entry));
		}
		pack_end(&p);
	}
	if (r < 0)
		return r;
	*ret_n = 1 + nodes + leaves;
	return 0;
}

int dir_write(struct ext4_writer *w, struct tree *t, uint32_t dir, const uint32_t seed[4],
	      struct err *err)
{
	struct tree_inode *d = tree_entry(t, dir)->inode;
	struct hashed *h = NULL;
	uint64_t bytes = 24;
	struct leaf *l;
	uint32_t n = 0;
	int r;

	for (uint32_t e = d->dir.first; e; e = tree_entry(t, e)->next, n++) {
		tree_tick(t);
		bytes += entry_size(tree_entry(t, e)->name_len);
	}
	d->dir.n_blocks = 1;
	if (bytes <= LEAF_SPACE)
		return linear(w, t, dir, &d->dir.block, err);
	/* All leaves but the last one are at least half full. */
	l = malloc((bytes / (EXT4_BLOCK / 2) + 2) * sizeof(*l));
	if (!l)
		return err_nomem(err);
	r = sort_entries(t, dir, n, seed, &h, err);
	if (r == 0)
		r = hashed_tree(w, t, dir, n, h, l, &d->dir.block, &d->dir.n_blocks, err);
	free(h);
	free(l);
	return r;
}
