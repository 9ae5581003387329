/*
 * A container's scratch disk. All group metadata is in the first groups (one flexible group), and
 * every group has as many inodes as a bitmap has bits. So the bitmaps of empty groups are all
 * zeros, which means holes, and the template needs neither lazy initialisation nor checksums.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext3_extents.h>

#include "base/util.h"
#include "image/ext4/internal.h"
#include "image/ext4/scratch.h"

static const uint8_t scratch_uuid[16] = { 0x68, 0x75, 0x73, 0x6b, 0x73, 0x63, 0x40, 0x72,
					  0x80, 0x74, 0x63, 0x68, 0x00, 0x00, 0x00, 0x01 };

struct scratch {
	int fd;
	struct geometry g;
	uint32_t root_block, first_free;
	struct ext2_group_desc *gd;
};

static int put_root(struct scratch *s, struct err *err)
{
	_Alignas(16) uint8_t block[EXT4_BLOCK] = { 0 };
	struct ext2_dir_entry_2 *d = (struct ext2_dir_entry_2 *)(void *)block;
	struct ext2_inode_large *i = (struct ext2_inode_large *)(void *)(block + INODE_SIZE);
	struct ext3_extent_header *h;
	int r;

	*d = (struct ext2_dir_entry_2){ .inode = EXT2_ROOT_INO,
					.rec_len = 12,
					.name_len = 1,
					.file_type = EXT2_FT_DIR,
					.name = "." };
	d = (struct ext2_dir_entry_2 *)(void *)(block + 12);
	d->inode = EXT2_ROOT_INO;
	d->rec_len = EXT4_BLOCK - 12;
	d->name_len = 2;
	d->file_type = EXT2_FT_DIR;
	memcpy(d->name, "..", 2);
	r = out_write_at(s->fd, block, sizeof(block), (uint64_t)s->root_block * EXT4_BLOCK, err);
	if (r < 0)
		return r;
	memset(block, 0, sizeof(block));
	i->i_mode = LINUX_S_IFDIR | 0755;
	i->i_links_count = 2;
	i->i_size = EXT4_BLOCK;
	i->i_blocks = EXT4_BLOCK / 512;
	i->i_flags = EXT4_EXTENTS_FL;
	i->i_extra_isize = 32;
	h = (struct ext3_extent_header *)(void *)i->i_block;
	h->eh_magic = EXT3_EXT_MAGIC;
	h->eh_entries = 1;
	h->eh_max = EXTENTS_IN_INODE;
	*(struct ext3_extent *)(void *)(h + 1) =
		(struct ext3_extent){ .ee_len = 1, .ee_start = s->root_block };
	return out_write_at(s->fd, block, sizeof(block), (uint64_t)s->g.inode_tables * EXT4_BLOCK,
			    err);
}

/* Blocks [0, first_free) are in use, all others are free. */
static int put_groups(struct scratch *s, struct err *err)
{
	struct geometry *g = &s->g;
	uint8_t map[EXT4_BLOCK];
	int r;

	for (uint32_t k = 0; k < g->groups; k++) {
		struct ext2_group_desc *d = &s->gd[k];
		uint32_t first = k * BLOCKS_PER_GROUP;
		uint32_t used = s->first_free <= first
					? 0
					: MIN_OF(s->first_free - first, BLOCKS_PER_GROUP);

		d->bg_block_bitmap = g->block_bitmaps + k;
		d->bg_inode_bitmap = g->inode_bitmaps + k;
		d->bg_inode_table = g->inode_tables + k * (MAX_INODES_PER_GROUP / INODES_PER_BLOCK);
		d->bg_free_blocks_count = (uint16_t)(BLOCKS_PER_GROUP - used);
		d->bg_free_inodes_count =
			(uint16_t)(MAX_INODES_PER_GROUP - (k ? 0 : FIRST_INO - 1));
		d->bg_used_dirs_count = k == 0;
		g->free_blocks += d->bg_free_blocks_count;
		g->free_inodes += d->bg_free_inodes_count;
		if (!used)
			continue;
		memset(map, 0, sizeof(map));
		memset(map, 0xff, used / 8);
		if (used % 8)
			map[used / 8] = (uint8_t)((1u << (used % 8)) - 1);
		r = out_write_at(s->fd, map, sizeof(map), (uint64_t)d->bg_block_bitmap * EXT4_BLOCK,
				 err);
		if (r < 0)
			return r;
	}
	memset(map, 0, sizeof(map));
	map[0] = 0xff; /* inodes 1 to 10 */
	map[1] = 0x03;
	return out_write_at(s->fd, map, sizeof(map), (uint64_t)g->inode_bitmaps * EXT4_BLOCK, err);
}

int ext4_make_scratch(int fd, uint64_t size, struct err *err)
{
	cleanup_free struct ext2_group_desc *gd = NULL;
	struct ext2_super_block sb;
	struct scratch s = { .fd = fd };
	struct geometry *g = &s.g;
	int r;

	g->groups = (uint32_t)(size / EXT4_BLOCK / BLOCKS_PER_GROUP);
	if (!g->groups || size % ((uint64_t)EXT4_BLOCK * BLOCKS_PER_GROUP) ||
	    g->groups * sizeof(*gd) > GDT_BLOCKS * EXT4_BLOCK)
		return err_set(err, -EINVAL, "a scratch disk has 1 to 1024 times 128 MiB");
	g->blocks = g->groups * BLOCKS_PER_GROUP;
	g->blocks_per_group = BLOCKS_PER_GROUP;
	g->inodes_per_group = MAX_INODES_PER_GROUP;
	g->block_bitmaps = 1 + (g->groups * (uint32_t)sizeof(*gd) + EXT4_BLOCK - 1) / EXT4_BLOCK;
	g->inode_bitmaps = g->block_bitmaps + g->groups;
	g->inode_tables = g->inode_bitmaps + g->groups;
	s.root_block = g->inode_tables + g->groups * (MAX_INODES_PER_GROUP / INODES_PER_BLOCK);
	s.first_free = s.root_block + 1;
	while ((1u << g->log_flex) < g->groups)
		g->log_flex++;
	gd = s.gd = calloc(g->groups, sizeof(*gd));
	if (!gd)
		return err_nomem(err);
	if (ftruncate(fd, (off_t)size) < 0)
		return err_errno(err, -errno, "set the length of the scratch disk");
	r = put_root(&s, err);
	if (r == 0)
		r = put_groups(&s, err);
	if (r < 0)
		return r;
	super_fill(&sb, g, scratch_uuid);
	r = out_write_at(fd, gd, g->groups * sizeof(*gd), EXT4_BLOCK, err);
	if (r < 0)
		return r;
	return out_write_at(fd, &sb, sizeof(sb), 1024, err);
}
