/* What is written after all file data: attributes, directories, inodes, bitmaps, superblock. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext2_ext_attr.h>
#include <ext2fs/ext3_extents.h>

#include "base/check.h"
#include "base/util.h"
#include "image/ext4/internal.h"
#include "image/ext4/tree.h"

#define XATTR_SPACE (INODE_SIZE - EXT2_GOOD_OLD_INODE_SIZE - EXTRA_ISIZE) /* in the inode */
#define EXTRA_ISIZE 32u
#define NO_NUMBER 0u

struct meta {
	struct ext4_writer *w;
	struct tree *t;
	uint32_t n_inodes; /* without the root */
	uint32_t *dirs;	   /* entries of all directories, parents first; [0] = the root */
	uint32_t n_dirs;
	struct geometry g;
	uint32_t seed[4];
};

/* ---- numbers: breadth first, so that the inodes of a directory lie together ---- */

static int number_inodes(struct meta *m, struct err *err)
{
	m->dirs = malloc((size_t)tree_entries(m->t) * sizeof(*m->dirs));
	if (!m->dirs)
		return err_nomem(err);
	tree_entry(m->t, TREE_ROOT)->inode->ino = EXT2_ROOT_INO;
	m->dirs[m->n_dirs++] = TREE_ROOT;
	for (uint32_t d = 0; d < m->n_dirs; d++) {
		uint32_t e = tree_entry(m->t, m->dirs[d])->inode->dir.first;

		for (; e; e = tree_entry(m->t, e)->next) {
			struct tree_inode *i = tree_entry(m->t, e)->inode;

			tree_tick(m->t);
			if (S_ISDIR(i->mode))
				m->dirs[m->n_dirs++] = e;
			if (i->ino == NO_NUMBER) /* else: another name of it */
				i->ino = FIRST_INO + m->n_inodes++;
		}
	}
	return 0;
}

/* The same walk again: inodes in the order of their numbers, from FIRST_INO on. */
struct inode_walk {
	uint32_t dir;	/* index of the directory in `dirs` */
	uint32_t entry; /* the next entry to look at; 0 = the first of `dir` */
	uint32_t next;	/* the next number */
};

static struct tree_inode *next_inode(struct meta *m, struct inode_walk *k)
{
	for (;;) {
		struct tree_entry *e;

		if (k->next - FIRST_INO == m->n_inodes)
			return NULL;
		while (!k->entry)
			k->entry = tree_entry(m->t, m->dirs[k->dir++])->inode->dir.first;
		e = tree_entry(m->t, k->entry);
		tree_tick(m->t);
		k->entry = e->next;
		if (e->inode->ino == k->next) {
			k->next++;
			return e->inode;
		}
	}
}

/* ---- extended attributes ---- */

static unsigned xattrs_size(const struct tree_inode *i)
{
	unsigned n = 4; /* four zero bytes end the list */

	for (struct tree_xattr *x = i->xattrs; x; x = x->next)
		n += EXT2_EXT_ATTR_LEN(x->name_len) + EXT2_EXT_ATTR_SIZE(x->value_len);
	return n;
}

/* Entries grow from `first`, values from `end` downwards. Offsets count from `base`. */
static struct ext2_ext_attr_entry *put_xattrs(const struct tree_inode *i, uint8_t *first,
					      uint8_t *base, uint8_t *end, bool hash)
{
	struct ext2_ext_attr_entry *e = (struct ext2_ext_attr_entry *)(void *)first;

	for (struct tree_xattr *x = i->xattrs; x; x = x->next) {
		end -= EXT2_EXT_ATTR_SIZE(x->value_len);
		memcpy(end, x->data + x->name_len, x->value_len);
		*e = (struct ext2_ext_attr_entry){ .e_name_len = x->name_len,
						   .e_name_index = x->index,
						   .e_value_offs = (uint16_t)(end - base),
						   .e_value_size = x->value_len };
		if (!x->value_len)
			e->e_value_offs = 0;
		memcpy(EXT2_EXT_ATTR_NAME(e), x->data, x->name_len);
		e->e_hash = hash ? ext2fs_ext_attr_hash_entry(e, end) : 0;
		e = (void *)((char *)e + EXT2_EXT_ATTR_LEN(e->e_name_len));
	}
	return e;
}

static int write_xattr_block(struct meta *m, struct tree_inode *i, struct err *err)
{
	struct ext2_ext_attr_header *h;
	struct ext2_ext_attr_entry *end;
	uint64_t place;
	uint8_t *p;
	int r;

	if (sizeof(*h) + xattrs_size(i) > EXT4_BLOCK)
		return err_set(err, -EFBIG, "extended attributes of more than a block");
	r = out_block(&m->w->out, &p, &i->xattrs->block, err);
	if (r < 0)
		return r;
	memset(p, 0, EXT4_BLOCK);
	h = (struct ext2_ext_attr_header *)(void *)p;
	h->h_magic = EXT2_EXT_ATTR_MAGIC;
	h->h_refcount = 1;
	h->h_blocks = 1;
	end = put_xattrs(i, p + sizeof(*h), p, p + EXT4_BLOCK, true);
	ext2fs_ext_attr_block_rehash(h, end);
	place = i->xattrs->block;
	h->h_checksum = ext4_crc(ext4_crc(m->w->seed, &place, sizeof(place)), p, EXT4_BLOCK);
	return 0;
}

/* How much of the inode's space for attributes the data of a small file takes. */
static unsigned inline_size(const struct tree_inode *i)
{
	return ext4_is_inline(i) ? INLINE_ENTRY + ((inline_rest(i) + 3) & ~3u) : 0;
}

static bool xattrs_fit_inode(const struct tree_inode *i)
{
	return 4 + inline_size(i) + xattrs_size(i) <= XATTR_SPACE;
}

static int write_long_link(struct meta *m, struct tree_inode *i, struct err *err)
{
	uint8_t *p;
	int r = out_block(&m->w->out, &p, &i->link.block, err);

	if (r < 0)
		return r;
	memset(p, 0, EXT4_BLOCK);
	memcpy(p, i->link.target, i->size);
	return 0;
}

static int write_attributes(struct meta *m, struct tree_inode *i, struct err *err)
{
	int r = 0;

	if (i->opaque && S_ISDIR(i->mode))
		r = tree_xattr_opaque(m->t, i, err);
	if (r == 0 && i->xattrs && !xattrs_fit_inode(i))
		r = write_xattr_block(m, i, err);
	if (r == 0 && S_ISLNK(i->mode) && i->size >= IBLOCK_SIZE)
		r = write_long_link(m, i, err);
	if (r == 0 && S_ISREG(i->mode) && i->file.spill && !ext4_is_inline(i))
		r = extents_sum(m->w, i->file.spill, i->ino, err);
	return r;
}

/* ---- inodes ---- */

static void put_time(int64_t s, uint32_t ns, uint32_t *low, uint32_t *extra)
{
	const int64_t min = INT32_MIN, max = min + (4ll << 32) - 1;

	s = s < min ? min : s > max ? max : s;
	*low = (uint32_t)s;
	*extra = (ns << 2) | (uint32_t)(((s - (int32_t)s) >> 32) & 3);
}

static void put_device(const struct tree_inode *i, uint32_t *iblock)
{
	uint32_t major = i->dev.major, minor = i->dev.minor;

	if (major < 256 && minor < 256)
		iblock[0] = (major << 8) | minor;
	else
		iblock[1] = (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
}

/*
 * Consecutive blocks from logical block 0: at most four extents, which is enough for any directory.
 */
static void put_run(struct meta *m, uint32_t block, uint32_t n, void *iblock)
{
	struct extent x[EXTENTS_IN_INODE];
	uint32_t at = 0, meta;
	size_t k = 0;

	for (; at < n && k < EXTENTS_IN_INODE; k++) {
		x[k] = (struct extent){ at, block + at,
					MIN_OF(n - at, (uint32_t)EXT_INIT_MAX_LEN) };
		at += x[k].len;
	}
	/* Cannot fail: four extents fit into i_block. */
	(void)!extents_to_iblock(m->w, x, k, iblock, &meta, NULL);
}

/* The part that depends on the kind: i_block, flags, size. Returns the number of blocks. */
static uint32_t put_content(struct meta *m, struct tree_inode *i, struct ext2_inode_large *o,
			    uint64_t *size)
{
	switch (i->mode & S_IFMT) {
	case S_IFREG:
		*size = i->size;
		if (ext4_is_inline(i)) {
			o->i_flags = EXT4_INLINE_DATA_FL;
			memcpy(o->i_block, i->file.spill, MIN_OF(i->size, (uint64_t)IBLOCK_SIZE));
			return 0;
		}
		o->i_flags = EXT4_EXTENTS_FL;
		if (i->file.spill)
			memcpy(o->i_block, i->file.spill, IBLOCK_SIZE);
		else
			put_run(m, i->file.block, i->file.n_blocks, o->i_block);
		return i->file.n_blocks;
	case S_IFDIR:
		*size = (uint64_t)i->dir.n_blocks * EXT4_BLOCK;
		o->i_flags = EXT4_EXTENTS_FL | (i->dir.n_blocks > 1 ? EXT2_INDEX_FL : 0);
		put_run(m, i->dir.block, i->dir.n_blocks, o->i_block);
		return i->dir.n_blocks;
	case S_IFLNK:
		*size = i->size;
		if (!i->link.block) {
			memcpy(o->i_block, i->link.target, i->size);
			return 0;
		}
		o->i_flags = EXT4_EXTENTS_FL;
		put_run(m, i->link.block, 1, o->i_block);
		return 1;
	case S_IFCHR:
	case S_IFBLK:
		put_device(i, o->i_block);
		return 0;
	default:
		return 0;
	}
}

/* Attributes in the inode. "system.data", the rest of a small file's data, comes first. */
static void put_inode_xattrs(const struct tree_inode *i, uint8_t *at)
{
	uint8_t *x = at + EXT2_GOOD_OLD_INODE_SIZE + EXTRA_ISIZE, *first = x + 4;
	uint8_t *end = at + INODE_SIZE;

	*(uint32_t *)(void *)x = EXT2_EXT_ATTR_MAGIC;
	if (ext4_is_inline(i)) {
		struct ext2_ext_attr_entry *e = (struct ext2_ext_attr_entry *)(void *)first;
		unsigned rest = inline_rest(i);

		*e = (struct ext2_ext_attr_entry){ .e_name_len = 4,
						   .e_name_index = INLINE_INDEX,
						   .e_value_size = rest };
		memcpy(EXT2_EXT_ATTR_NAME(e), "data", 4);
		if (rest) {
			end -= (rest + 3) & ~3u;
			memcpy(end, (const uint8_t *)i->file.spill + IBLOCK_SIZE, rest);
			e->e_value_offs = (uint16_t)(end - first);
		}
		x += INLINE_ENTRY;
	}
	if (i->xattrs && !i->xattrs->block)
		put_xattrs(i, x + 4, first, end, false);
}

static void put_inode(struct meta *m, struct tree_inode *i, uint8_t *at)
{
	struct ext2_inode_large *o = (struct ext2_inode_large *)(void *)at;
	uint64_t size = 0, sectors;
	uint32_t blocks = put_content(m, i, o, &size), links = i->nlink, crc;

	if (S_ISDIR(i->mode))
		links = i->nlink + 2 < TREE_MAX_LINKS ? i->nlink + 2 : 1; /* dir_nlink */
	o->i_mode = i->mode;
	o->i_uid = (uint16_t)i->uid;
	o->osd2.linux2.l_i_uid_high = (uint16_t)(i->uid >> 16);
	o->i_gid = (uint16_t)i->gid;
	o->osd2.linux2.l_i_gid_high = (uint16_t)(i->gid >> 16);
	o->i_size = (uint32_t)size;
	o->i_size_high = (uint32_t)(size >> 32);
	o->i_links_count = (uint16_t)links;
	o->i_extra_isize = EXTRA_ISIZE;
	if (S_ISDIR(i->mode) && i->implied)
		o->osd1.linux1.l_i_version = EXT4_IMPLIED;
	put_time(i->mtime, i->mtime_ns, &o->i_mtime, &o->i_mtime_extra);
	o->i_atime = o->i_ctime = o->i_crtime = o->i_mtime;
	o->i_atime_extra = o->i_ctime_extra = o->i_crtime_extra = o->i_mtime_extra;
	if (i->xattrs && i->xattrs->block) {
		o->i_file_acl = i->xattrs->block;
		blocks++;
	}
	if (ext4_is_inline(i) || (i->xattrs && !i->xattrs->block))
		put_inode_xattrs(i, at);
	sectors = (uint64_t)blocks * (EXT4_BLOCK / 512);
	o->i_blocks = (uint32_t)sectors;
	o->osd2.linux2.l_i_blocks_hi = (uint16_t)(sectors >> 32);
	crc = ext4_crc(ext4_inode_seed(m->w, i->ino), at, INODE_SIZE);
	o->osd2.linux2.l_i_checksum_lo = (uint16_t)crc;
	o->i_checksum_hi = (uint16_t)(crc >> 16);
}

static int write_inode_tables(struct meta *m, struct err *err)
{
	uint32_t total = m->g.groups * m->g.inodes_per_group;
	struct inode_walk walk = { .next = FIRST_INO };

	m->g.inode_tables = out_next(&m->w->out);
	for (uint32_t ino = 1; ino <= total; ino += INODES_PER_BLOCK) {
		uint8_t *p;
		int r = out_block(&m->w->out, &p, NULL, err);

		if (r < 0)
			return r;
		memset(p, 0, EXT4_BLOCK);
		for (uint32_t k = ino; k < ino + INODES_PER_BLOCK; k++, p += INODE_SIZE) {
			if (k == EXT2_ROOT_INO)
				put_inode(m, tree_entry(m->t, TREE_ROOT)->inode, p);
			else if (k >= FIRST_INO && k - FIRST_INO < m->n_inodes)
				put_inode(m, next_inode(m, &walk), p);
		}
	}
	return 0;
}

/* ---- groups ---- */

static uint32_t div_up(uint32_t n, uint32_t by)
{
	return n / by + (n % by != 0);
}

/*
 * As few groups as can hold all blocks and all inodes. If the inodes need more groups than the
 * blocks, the groups are smaller.
 */
static int choose_geometry(struct meta *m, struct err *err)
{
	uint32_t inodes = FIRST_INO - 1 + m->n_inodes, n = div_up(inodes, MAX_INODES_PER_GROUP);
	struct geometry *g = &m->g;

	for (;;) {
		g->groups = n;
		g->inodes_per_group =
			div_up(div_up(inodes, n), INODES_PER_BLOCK) * INODES_PER_BLOCK;
		g->blocks = out_next(&m->w->out) + n * (g->inodes_per_group / INODES_PER_BLOCK + 2);
		if (g->blocks > EXT4_MAX_BLOCKS)
			return err_set(err, -EFBIG, "layer of more than %zu GiB",
				       (size_t)EXT4_MAX_BLOCKS * EXT4_BLOCK / GIB);
		if (div_up(g->blocks, BLOCKS_PER_GROUP) <= n)
			break;
		n = div_up(g->blocks, BLOCKS_PER_GROUP);
	}
	g->blocks_per_group = BLOCKS_PER_GROUP;
	if (n > 1 && g->blocks <= (n - 1) * BLOCKS_PER_GROUP)
		g->blocks_per_group = div_up(div_up(g->blocks, n), 8) * 8;
	if (div_up(g->blocks, g->blocks_per_group) != n)
		return err_set(err, -EFBIG, "%u blocks and %u inodes fit no layout of groups",
			       g->blocks, inodes);
	g->log_flex = 4;
	return 0;
}

static int meta_by_block(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->block < y->block ? -1 : x->block > y->block;
}

static void clear_bits(uint8_t *map, uint32_t from, uint32_t to)
{
	for (; from < to; from++)
		map[from / 8] &= (uint8_t) ~(1u << (from % 8));
}

/* Clears what is free in blocks [first, first + n). `next` walks over the sorted list of free
 * ranges. */
static uint32_t clear_free(struct ext4_writer *w, uint8_t *map, uint32_t first, uint32_t n,
			   size_t *next)
{
	uint32_t end = first + n, free_blocks = 0;

	for (; *next < w->n_dropped; (*next)++) {
		struct extent *x = &w->dropped[*next];
		uint32_t from = MAX_OF(x->block, first), to = MIN_OF(x->block + x->len, end);

		if (from < to) {
			clear_bits(map, from - first, to - first);
			free_blocks += to - from;
		}
		if (x->block + x->len > end)
			break;
	}
	return free_blocks;
}

static int write_block_bitmaps(struct meta *m, struct ext2_group_desc *gd, struct err *err)
{
	struct geometry *g = &m->g;
	size_t next = 0;

	g->block_bitmaps = out_next(&m->w->out);
	for (uint32_t k = 0; k < g->groups; k++) {
		uint32_t first = k * g->blocks_per_group;
		uint32_t n = MIN_OF(g->blocks_per_group, g->blocks - first);
		uint8_t *p;
		int r = out_block(&m->w->out, &p, &gd[k].bg_block_bitmap, err);

		if (r < 0)
			return r;
		memset(p, 0xff, EXT4_BLOCK);
		gd[k].bg_free_blocks_count = (uint16_t)clear_free(m->w, p, first, n, &next);
		gd[k].bg_block_bitmap_csum_lo =
			(uint16_t)ext4_crc(m->w->seed, p, g->blocks_per_group / 8);
		g->free_blocks += gd[k].bg_free_blocks_count;
	}
	return 0;
}

static int write_inode_bitmaps(struct meta *m, struct ext2_group_desc *gd, struct err *err)
{
	struct geometry *g = &m->g;
	uint32_t used = FIRST_INO - 1 + m->n_inodes; /* inodes 1 .. used */

	g->inode_bitmaps = out_next(&m->w->out);
	for (uint32_t k = 0; k < g->groups; k++) {
		uint32_t first = k * g->inodes_per_group;
		uint32_t here = used <= first ? 0 : MIN_OF(used - first, g->inodes_per_group);
		uint8_t *p;
		int r = out_block(&m->w->out, &p, &gd[k].bg_inode_bitmap, err);

		if (r < 0)
			return r;
		memset(p, 0xff, EXT4_BLOCK);
		clear_bits(p, here, g->inodes_per_group);
		gd[k].bg_free_inodes_count = (uint16_t)(g->inodes_per_group - here);
		gd[k].bg_inode_bitmap_csum_lo =
			(uint16_t)ext4_crc(m->w->seed, p, g->inodes_per_group / 8);
		gd[k].bg_inode_table =
			g->inode_tables + k * (g->inodes_per_group / INODES_PER_BLOCK);
		g->free_inodes += g->inodes_per_group - here;
	}
	for (uint32_t d = 0; d < m->n_dirs; d++) {
		uint32_t ino = tree_entry(m->t, m->dirs[d])->inode->ino;

		tree_tick(m->t);
		gd[(ino - 1) / g->inodes_per_group].bg_used_dirs_count++;
	}
	return 0;
}

/* ---- superblock ---- */

void hash_seed(const uint8_t uuid[16], uint32_t seed[4])
{
	memcpy(seed, uuid, 16);
	for (int k = 0; k < 4; k++)
		seed[k] ^= 0x68757368u * (uint32_t)(k + 1);
}

void super_fill(struct ext2_super_block *sb, const struct geometry *g, const uint8_t uuid[16])
{
	memset(sb, 0, sizeof(*sb));
	sb->s_inodes_count = g->groups * g->inodes_per_group;
	sb->s_blocks_count = g->blocks;
	sb->s_free_blocks_count = g->free_blocks;
	sb->s_free_inodes_count = g->free_inodes;
	sb->s_log_block_size = sb->s_log_cluster_size = 2; /* 4 KiB */
	sb->s_blocks_per_group = sb->s_clusters_per_group = g->blocks_per_group;
	sb->s_inodes_per_group = g->inodes_per_group;
	sb->s_max_mnt_count = -1;
	sb->s_magic = EXT2_SUPER_MAGIC;
	sb->s_state = EXT2_VALID_FS;
	sb->s_errors = EXT2_ERRORS_CONTINUE;
	sb->s_rev_level = EXT2_DYNAMIC_REV;
	sb->s_first_ino = FIRST_INO;
	sb->s_inode_size = INODE_SIZE;
	sb->s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX |
			       EXT4_FEATURE_COMPAT_SPARSE_SUPER2;
	sb->s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
				 EXT4_FEATURE_INCOMPAT_FLEX_BG;
	sb->s_feature_ro_compat =
		EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
		EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE;
	memcpy(sb->s_uuid, uuid, 16);
	hash_seed(uuid, sb->s_hash_seed);
	sb->s_def_hash_version = EXT2_HASH_HALF_MD4;
	sb->s_flags = EXT2_FLAGS_UNSIGNED_HASH;
	sb->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
	sb->s_min_extra_isize = sb->s_want_extra_isize = EXTRA_ISIZE;
	sb->s_log_groups_per_flex = (uint8_t)g->log_flex;
}

static int write_super(struct meta *m, struct ext2_group_desc *gd, struct err *err)
{
	struct ext2_super_block sb;
	int r;

	for (uint32_t k = 0; k < m->g.groups; k++)
		gd[k].bg_checksum = (uint16_t)ext4_crc(ext4_crc(m->w->seed, &k, sizeof(k)), &gd[k],
						       sizeof(gd[k]));
	super_fill(&sb, &m->g, m->w->uuid);
	sb.s_feature_incompat |= EXT4_FEATURE_INCOMPAT_INLINE_DATA;
	sb.s_feature_ro_compat |= EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
	sb.s_checksum_type = EXT2_CRC32C_CHKSUM;
	sb.s_checksum = ext4_crc(~0u, &sb, offsetof(struct ext2_super_block, s_checksum));
	r = out_write_at(m->w->out.fd, gd, m->g.groups * sizeof(*gd), EXT4_BLOCK, err);
	if (r < 0)
		return r;
	return out_write_at(m->w->out.fd, &sb, sizeof(sb), 1024, err);
}

/* ---- the whole ---- */

/* Blocks that are reserved for descriptors and not needed are free, too. */
static int free_ranges(struct meta *m, struct err *err)
{
	struct ext4_writer *w = m->w;
	uint32_t used = div_up(m->g.groups * (uint32_t)sizeof(struct ext2_group_desc), EXT4_BLOCK);

	if (used > GDT_BLOCKS)
		return err_set(err, -EFBIG, "too many groups");
	if (used < GDT_BLOCKS) {
		struct tree_inode spare = { .file = { .block = 1 + used,
						      .n_blocks = GDT_BLOCKS - used } };

		ext4_writer_drop(w, &spare);
	}
	if (w->failed)
		return err_nomem(err);
	qsort(w->dropped, w->n_dropped, sizeof(*w->dropped), meta_by_block);
	/* Without holes (the file system below may not support them) they only waste space. */
	for (size_t k = 0; k < w->n_dropped; k++)
		(void)fallocate(w->out.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)w->dropped[k].block * EXT4_BLOCK,
				(off_t)w->dropped[k].len * EXT4_BLOCK);
	return 0;
}

static int write_all_meta(struct meta *m, struct err *err)
{
	cleanup_free struct ext2_group_desc *gd = NULL;
	struct inode_walk walk = { .next = FIRST_INO };
	struct tree_inode *i;
	int r;

	tree_close_index(m->t);
	r = number_inodes(m, err);
	if (r == 0)
		r = write_attributes(m, tree_entry(m->t, TREE_ROOT)->inode, err);
	while (r == 0 && (i = next_inode(m, &walk)))
		r = write_attributes(m, i, err);
	for (uint32_t d = 0; d < m->n_dirs && r == 0; d++)
		r = dir_write(m->w, m->t, m->dirs[d], m->seed, err);
	if (r == 0)
		r = choose_geometry(m, err);
	if (r < 0)
		return r;
	gd = calloc(m->g.groups, sizeof(*gd));
	if (!gd)
		return err_nomem(err);
	r = write_inode_tables(m, err);
	if (r == 0)
		r = free_ranges(m, err);
	if (r == 0)
		r = write_block_bitmaps(m, gd, err);
	if (r == 0)
		r = write_inode_bitmaps(m, gd, err);
	if (r == 0) {
		check(out_next(&m->w->out) == m->g.blocks);
		r = out_flush(&m->w->out, err);
	}
	if (r == 0)
		r = write_super(m, gd, err);
	return r;
}

int ext4_writer_finish(struct ext4_writer *w, struct tree *t, uint64_t *ret_size, struct err *err)
{
	struct meta m = { .w = w, .t = t };
	uint64_t size;
	int r;

	hash_seed(w->uuid, m.seed);
	r = write_all_meta(&m, err);
	size = (uint64_t)m.g.blocks * EXT4_BLOCK;
	free(m.dirs);
	if (r < 0)
		return r;
	if (ftruncate(w->out.fd, (off_t)size) < 0)
		return err_errno(err, -errno, "set the length of the layer's file");
	*ret_size = size;
	return 0;
}
