/*
 * Shared by writer.c (the data of files), meta.c and dir.c (the rest) and scratch.c (a container's
 * disk). One thread.
 */
#ifndef HUSK_IMAGE_EXT4_INTERNAL_H
#define HUSK_IMAGE_EXT4_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

#include "image/ext4/out.h"
#include "image/ext4/writer.h"
#include "image/ext4/tree.h"

#define GDT_BLOCKS 8u /* room for 1024 groups of 128 MiB */
#define FIRST_DATA_BLOCK (1 + GDT_BLOCKS)
#define BLOCKS_PER_GROUP 32768u
#define MAX_INODES_PER_GROUP 32768u
#define INODE_SIZE 256u
#define INODES_PER_BLOCK (EXT4_BLOCK / INODE_SIZE)
#define FIRST_INO 11u
#define IBLOCK_SIZE 60u
#define EXTENTS_IN_INODE 4u
#define EXTENTS_PER_BLOCK 340u

struct extent {
	uint32_t logical, block, len;
};

struct ext4_writer {
	struct out out;
	uint8_t uuid[16];
	uint32_t seed; /* of checksums */
	int failed;
	/* the file being written */
	struct extent *extents;
	size_t n_extents, cap_extents;
	uint64_t file_end;
	bool part_open; /* a block that is not full yet */
	uint32_t part_logical;
	_Alignas(16) uint8_t part[EXT4_BLOCK];
	/* ranges that are free again: block, len */
	struct extent *dropped;
	size_t n_dropped, cap_dropped;
};

/* What the superblock and the group descriptors are computed from. */
struct geometry {
	uint32_t blocks, groups, blocks_per_group, inodes_per_group;
	uint32_t inode_tables, block_bitmaps,
		inode_bitmaps; /* first blocks, each for all groups in a row */
	uint32_t free_blocks, free_inodes;
	uint32_t log_flex;
};

/* Checksums of metadata are CRC-32C over the file system's UUID and the data; for what belongs to
 * an inode its number and generation (0) come in between. */
static inline uint32_t ext4_crc(uint32_t crc, const void *data, size_t len)
{
	return ext2fs_crc32c_le(crc, data, len);
}

static inline uint32_t ext4_inode_seed(const struct ext4_writer *w, uint32_t ino)
{
	const uint32_t v[2] = { ino, 0 };

	return ext4_crc(w->seed, v, sizeof(v));
}

/* Writes the checksums of the extent blocks below this i_block, which need the inode's number. */
int extents_sum(struct ext4_writer *w, const void *iblock, uint32_t ino,
		struct err *err) must_check;
/*
 * Makes the i_block of a file with these extents. Extent blocks go to the stream; overwrites `x`.
 */
int extents_to_iblock(struct ext4_writer *w, struct extent *x, size_t n, void *iblock,
		      uint32_t *meta_blocks, struct err *err) must_check;

/* Writes the blocks of a directory and notes them in its inode; more than one are a hashed tree. */
int dir_write(struct ext4_writer *w, struct tree *t, uint32_t dir, const uint32_t seed[4],
	      struct err *err) must_check;

/*
 * The data of a small file is in its inode ("inline data"): in i_block, and the rest in the value
 * of the attribute "system.data", which exists even when it is empty. In memory, `spill` points to
 * the bytes, and the file has no blocks.
 */
#define INLINE_INDEX 7u
#define INLINE_ENTRY 20u /* header and name of that attribute */
#define INLINE_MAX (IBLOCK_SIZE + INODE_SIZE - 128 - 32 - 4 - INLINE_ENTRY - 4)

static inline bool ext4_is_inline(const struct tree_inode *i)
{
	return S_ISREG(i->mode) && i->file.spill && !i->file.n_blocks;
}

static inline unsigned inline_rest(const struct tree_inode *i)
{
	return i->size > IBLOCK_SIZE ? (unsigned)(i->size - IBLOCK_SIZE) : 0;
}

/* In l_i_version, which nobody sees in a file system that is mounted read-only: a directory that
 * lower layers give its attributes. */
#define EXT4_IMPLIED 1u

void super_fill(struct ext2_super_block *sb, const struct geometry *g, const uint8_t uuid[16]);
void hash_seed(const uint8_t uuid[16], uint32_t seed[4]);

#endif
